from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import DINOLoss
from contrastloss.functional import dino
from contrastloss.testing import CHECKS, Subject

TEACHERS = {}


def teacher(like):
    """Fixed unit vectors that are exact in every dtype, and a centre."""
    d = like.shape[1]
    key = (d, like.dtype, like.device)
    if key not in TEACHERS:
        generator = torch.Generator().manual_seed(d)
        rows = torch.zeros(200, d)
        for row in rows:
            few = torch.randperm(d, generator=generator)[: 4 if d >= 4 else 1]
            row[few] = len(few) ** -0.5
        rows *= torch.randint(0, 2, (200, d), generator=generator) * 2 - 1
        center = torch.randint(-4, 5, (200,), generator=generator) / 64
        TEACHERS[key] = rows.to(like.device, like.dtype), center.to(like.device)
    return TEACHERS[key]


class Taught(DINOLoss):
    """The teacher has no gradient and is not an input: ``number`` selects its row for each student
    row, which is similar. Its prototypes are mirror images of its rows."""

    @staticmethod
    def example(n, d, generator):
        k = n // 3 + 3
        noise = torch.randn(n + k, d, generator=generator).double() / d**0.5
        rows = teacher(noise)[0]
        number = torch.randint(200, (n,), generator=generator)
        return rows[number] + noise[:n], 1.5 * rows[:k].flip(1) + noise[n:], number

    @staticmethod
    def taught(prototypes):
        rows, center = teacher(prototypes)
        k = len(prototypes)
        return {"teacher_prototypes": rows[:k].flip(1), "center": center[:k].to(prototypes.dtype)}

    def forward(self, student, prototypes, number):
        rows = teacher(student)[0][number]
        return super().forward(student, rows, prototypes, **self.taught(prototypes))

    @staticmethod
    def reference(student, prototypes, number, **options):
        rows = teacher(student)[0][number]
        more = Taught.taught(prototypes)
        return DINOLoss.reference(student, rows, prototypes, **more, **options)


@every_check
def test_properties(check, device):
    teacher(torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    check(Subject(Taught, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(Taught, {"teacher_temperature": 0.2}, device, backend))


def test_by_hand(device, backend):
    student, rows = tensor(E1, E2, device=device), tensor([2, 0], E1, device=device)
    prototypes = tensor(E1, [0, 7], device=device)
    options = {"temperature": 0.5, "teacher_temperature": 1.0, "backend": backend}
    own, other = log(1 + exp(-2)), log(1 + exp(2))  # -log p of both prototypes
    p = e / (1 + e)
    want = [p * own + (1 - p) * other, p * other + (1 - p) * own]
    close(dino(student, rows, prototypes, reduction="none", **options), want)
    close(dino(student, rows, prototypes, **options), sum(want) / 2)
    # with a centre of 1 for the first prototype, the teacher is uniform
    center = tensor(1, 0, device=device)
    value = dino(student, rows, prototypes, center=center, reduction="none", **options)
    close(value, [(own + other) / 2] * 2)
    # the teacher has its own prototypes: for the first row it prefers the second one
    value = dino(
        student[:1], rows[:1], prototypes, teacher_prototypes=prototypes.flip(0), **options
    )
    close(value, want[1])


def test_teacher_is_constant(device, backend):
    inputs = [v.requires_grad_() for v in Subject(DINOLoss, {}, device).inputs()]
    mean = torch.zeros(len(inputs[2]), device=device, requires_grad=True)
    tau = torch.tensor(0.05, device=device, requires_grad=True)
    loss = dino(*inputs, center=mean, teacher_temperature=tau, backend=backend)
    wanted = torch.autograd.grad(loss, [*inputs, mean, tau], allow_unused=True)
    assert [g is None for g in wanted] == [False, True, False, True, True]
    unit = [normalize(v) for v in inputs]
    want = DINOLoss.reference(*unit, scale=10.0, bias=0.0, teacher_temperature=0.05).mean()
    rtol = 1e-6  # tau is fp32
    torch.testing.assert_close(loss, want, rtol=rtol, atol=0)
    for got, grad in zip(wanted[::2], gradients(want, inputs[0], inputs[2]), strict=False):
        torch.testing.assert_close(got, grad, rtol=rtol, atol=rtol)


def test_many_features(device, backend):
    """DINO's sizes, in fp32 with 256 features."""
    inputs = Subject(DINOLoss, {}, device).inputs(n=40, d=256)
    rows = dino(*(v.float() for v in inputs), reduction="none", backend=backend)
    unit = [normalize(v) for v in inputs]
    want = DINOLoss.reference(*unit, scale=10.0, bias=0.0, teacher_temperature=0.04)
    torch.testing.assert_close(rows.double(), want, rtol=1e-5, atol=0)


def test_center(device):
    rows, prototypes = tensor([2, 0], E1, E2, device=device), tensor([0, 3], E1, device=device)
    close(DINOLoss.center(rows, prototypes), [1 / 3, 2 / 3])
    close(DINOLoss.center(rows, prototypes, normalize=False), [1.0, 1.0])
    close(DINOLoss.center(rows[:0], prototypes), [0.0, 0.0])
    assert DINOLoss.center(rows.bfloat16(), prototypes.bfloat16()).dtype == torch.float32


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"teacher: got shape \(2, 2\), expected student's"):
        dino(x, x[:2], x)
    with pytest.raises(ValueError, match=r"^prototypes: got shape \(0, 2\), .* with K >= 1"):
        dino(x, x, x[:0])
    with pytest.raises(ValueError, match=r"teacher_prototypes: .*, expected prototypes' \(3, 2\)"):
        dino(x, x, x, teacher_prototypes=x[:2])
    with pytest.raises(ValueError, match=r"center: got shape \(2,\), expected \(3,\)"):
        dino(x, x, x, center=x[0])
    with pytest.raises(ValueError, match=r"teacher_temperature: got 0.0, expected a positive"):
        DINOLoss(teacher_temperature=0.0)
    with pytest.raises(ValueError, match=r"teacher_temperature: got shape \(3,\), expected \(\)"):
        DINOLoss(teacher_temperature=x[:, 0])
    with pytest.raises(ValueError, match=r"teacher_prototypes: got shape .*, expected \(K, 2\)"):
        DINOLoss.center(x, x[:, :1])
