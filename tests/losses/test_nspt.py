from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import NSPTLoss
from contrastloss.functional import nspt
from contrastloss.testing import CHECKS, Subject

TEACHERS = {}


def teacher(number, like):
    """Fixed unit vectors that are exact in every dtype."""
    d = like.shape[1]
    key = (d, like.dtype, like.device)
    if key not in TEACHERS:
        generator = torch.Generator().manual_seed(d)
        rows = torch.zeros(200, d)
        for row in rows:
            few = torch.randperm(d, generator=generator)[: 4 if d >= 4 else 1]
            row[few] = len(few) ** -0.5
        rows *= torch.randint(0, 2, (200, d), generator=generator) * 2 - 1
        TEACHERS[key] = rows.to(like.device, like.dtype)
    return TEACHERS[key][number]


class Taught(NSPTLoss):
    """The teacher has no gradient and is not an input; it has two rows per label."""

    @staticmethod
    def example(n, d, generator):
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        number = 2 * labels + torch.arange(n) % 2
        noise = torch.randn(n, d, generator=generator).double() / d**0.5
        near = teacher(2 * labels, noise) + teacher(2 * labels + 1, noise)
        return 1.5 * near + noise, labels, number

    def forward(self, h, labels, number, **overrides):
        marks = number % 3 > 0
        return super().forward(h, teacher(number, h), labels, rehearsal=marks, **overrides)

    @staticmethod
    def reference(h, labels, number, **options):
        marks = number % 3 > 0
        return NSPTLoss.reference(h, teacher(number, h), labels, rehearsal=marks, **options)


@every_check
def test_properties(check, device):
    teacher(0, torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    check(Subject(Taught, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(Taught, {"include_own": True}, device, backend))


def test_by_hand(device, backend):
    # student scores: 1, 0 for the first two rows, 0, 0 for the third
    h, taught = tensor(E1, E1, E2, device=device), tensor(E1, E2, [0, 3], device=device)
    labels = torch.tensor([0, 0, 0], device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    # teacher scores: 1, 0, 0 for the first two rows, 0, 1, 1 for the third
    rows = nspt(h, taught, labels, **options)
    close(rows, [log(e + 1), log(e + 1) - 1 / 2, log(2) - 1 / 2])
    rows = nspt(h, taught, labels, include_own=True, **options)
    close(rows, [log(e + 1) - 1 / 3, log(e + 1) - 1 / 3, log(2) - 2 / 3])
    marks = torch.tensor([True, False, True], device=device)
    rows = nspt(h, taught, labels, rehearsal=marks, **options)
    close(rows, [log(e + 1), 0.0, log(2) - 1 / 2])
    mean = nspt(h, taught, labels, rehearsal=marks, temperature=1.0, backend=backend)
    close(mean, (log(e + 1) + log(2) - 1 / 2) / 2)


def test_the_teacher_is_constant(device, backend):
    h, taught = torch.randn(2, 6, 3, device=device, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 0, 2], device=device)
    loss = nspt(h, taught, labels, backend=backend)
    grads = torch.autograd.grad(loss, (h, taught), allow_unused=True)
    assert grads[0].any()
    assert grads[1] is None


def test_no_anchor_or_no_positive(device, backend):
    h = torch.randn(4, 3, device=device, requires_grad=True)
    one, many = torch.zeros(4, device=device).long(), torch.arange(4, device=device)
    nobody = torch.zeros(4, dtype=torch.bool, device=device)
    for loss in (
        nspt(h, h, one, rehearsal=nobody, backend=backend),
        nspt(h, h, many, backend=backend),
        nspt(h[:1], h[:1], one[:1], include_own=True, backend=backend),
    ):
        assert loss.item() == 0.0
        assert not gradients(loss, h)[0].any()


def test_errors(device):
    h, labels = torch.ones(3, 2, device=device), torch.zeros(3, device=device).long()
    with pytest.raises(ValueError, match=r"teacher: got shape \(2, 2\), expected h's \(3, 2\)"):
        nspt(h, h[:2], labels)
    with pytest.raises(TypeError, match=r"rehearsal: got dtype torch.int64, expected torch.bool"):
        nspt(h, h, labels, rehearsal=labels)
    with pytest.raises(ValueError, match=r"rehearsal: got shape \(2,\), expected \(3,\)"):
        nspt(h, h, labels, rehearsal=labels[:2] > 0)
