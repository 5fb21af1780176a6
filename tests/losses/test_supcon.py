from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor
from torch.nn.functional import normalize

from contrastloss import NTXentLoss, SupConLoss
from contrastloss.functional import supcon
from contrastloss.testing import Subject, example


class Views(SupConLoss):
    """With three views of every instance."""

    @staticmethod
    def example(n, d, generator):
        labels = torch.randint(0, max(n // 3, 1), (n,), generator=generator)
        centre = torch.randn(n + 1, 1, d, generator=generator).double()[labels]
        return centre + 0.55 * torch.randn(n, 3, d, generator=generator), labels


class Remembering(SupConLoss):
    """With additional columns from a partly filled queue."""

    @staticmethod
    def example(n, d, generator):
        return example(SupConLoss, n, d, generator)

    def forward(self, z, labels, **overrides):
        return super().forward(z, labels, memory=queue_for(z), **overrides)

    @staticmethod
    def reference(z, labels, *, scale, bias, variant, label_smoothing):
        queue = queue_for(z)
        columns = torch.cat([z, rows_of(queue)])
        own = torch.eye(len(z), len(columns), dtype=torch.bool, device=z.device)
        mask = (labels[:, None] == torch.cat([labels, queue.labels[queue.steps >= 0]])) & ~own
        s = (scale * (z @ columns.mT) + bias).masked_fill(own, -torch.inf)
        log_p = s - s.logsumexp(1, keepdim=True)
        count = mask.sum(1).clamp_min(1)
        if variant == "out":
            losses = -torch.where(mask, log_p, 0.0).sum(1) / count
        else:
            losses = torch.log(count.to(z.dtype)) - torch.where(mask, log_p, -1e9).logsumexp(1)
        return torch.where(mask.any(1), losses, 0.0), mask.any(1)


@every_check
@pytest.mark.parametrize("variant", ["out", "in"])
@pytest.mark.parametrize("cls", [SupConLoss, Views, Remembering])
def test_properties(check, cls, variant, device, backend):
    queue_for(torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    thorough = (cls, variant) == (SupConLoss, "out")
    check(Subject(cls, {"variant": variant}, device, backend, thorough=thorough))


# z = [e1, e1, e2, e2], labels 0, 0, 0, 1. Row 0: scores 1, 0, 0 with the others, log-sum-exp
# log(e + 2), positives 1 and 0. Row 2: scores 0, 0, 1, the same log-sum-exp, positives 0 and 0.
# Row 3 has no positive.
@pytest.mark.parametrize(
    ("variant", "first", "third"),
    [
        ("out", log(e + 2) - (1 + 0) / 2, log(e + 2)),
        ("in", log(e + 2) - log((e + 1) / 2), log(e + 2)),
    ],
)
def test_by_hand(variant, first, third, device, backend):
    z = tensor(E1, E1, E2, E2, device=device)
    labels = torch.tensor([0, 0, 0, 1], device=device)
    options = {"temperature": 1.0, "variant": variant, "backend": backend}
    close(supcon(z, labels, reduction="none", **options), [first, first, third, 0.0])
    close(supcon(z, labels, **options), (2 * first + third) / 3)  # not / 4


def test_views_are_rows_of_one_label(device, backend):
    z = torch.randn(5, 3, 4, device=device, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 3], device=device)
    loss = SupConLoss(backend=backend, reduction="none")
    flat = loss(z.flatten(0, 1), labels.repeat_interleave(3))
    close(loss(z, labels), flat.view(5, 3))


@pytest.mark.parametrize("variant", ["out", "in"])
def test_two_views_and_distinct_labels_are_nt_xent(variant, device, backend):
    x, y = torch.randn(2, 8, 4, device=device, dtype=torch.float64)
    loss = SupConLoss(0.2, variant, backend=backend)
    labels = torch.arange(8, device=device)
    close(loss(torch.stack([x, y], 1), labels), NTXentLoss(0.2, backend=backend)(x, y))


@pytest.mark.parametrize("variant", ["out", "in"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_positive_anywhere_is_zero(variant, reduction, device, backend):
    z = torch.randn(5, 4, device=device, requires_grad=True)
    loss = SupConLoss(variant=variant, reduction=reduction, backend=backend)
    value = loss(z, torch.arange(5, device=device))
    assert value.item() == 0.0
    assert not gradients(value, z)[0].any()


@pytest.mark.parametrize("variant", ["out", "in"])
def test_all_positive(variant, device, backend):
    """One class, without negatives. 'in' is log(N - 1) for any z, since the sum over all rows is
    the sum over positives. 'out' has this value if all scores are equal."""
    z = torch.randn(5, 4, device=device, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(5, dtype=torch.int64, device=device)
    loss = SupConLoss(variant=variant, backend=backend)
    close(loss(torch.ones_like(z), labels), log(4))
    if variant == "in":
        close(loss(z, labels), log(4))
        assert gradients(loss(z, labels), z)[0].abs().max() < 1e-12


def test_a_row_without_positive_is_still_a_negative(device, backend):
    z = tensor(E1, E1, E1, device=device, grad=True)
    rows = SupConLoss(1.0, reduction="none", backend=backend)(
        z, torch.tensor([0, 0, 7], device=device)
    )
    close(rows, [log(2), log(2), 0.0])


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_labels_of_any_integer_type(dtype, device, backend):
    z = torch.randn(6, 3, device=device)
    labels = torch.tensor([0, 1, 1, 0, 1, 0], device=device)
    loss = SupConLoss(backend=backend)
    assert torch.equal(loss(z, labels.to(dtype)), loss(z, labels))


def test_statistics(device, backend):
    z = torch.randn(9, 4, device=device, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 2, 2, 3], device=device)
    _, stats = SupConLoss(0.3, return_stats=True, backend=backend)(z, labels)
    s = (normalize(z) @ normalize(z).T / 0.3).fill_diagonal_(-torch.inf)
    same = (labels[:, None] == labels).fill_diagonal_(False)
    rows = same.any(1)  # the last row is not counted
    hardest = s.masked_fill(labels[:, None] == labels, -torch.inf).amax(1)
    best = s.masked_fill(~same, -torch.inf).amax(1)
    positive = torch.where(same, s, 0.0).sum(1) / same.sum(1)
    close(stats["positive"], positive[rows].mean())
    close(stats["hardest_negative"], hardest[rows].mean())
    close(stats["lse"], s.logsumexp(1)[rows].mean())
    close(stats["accuracy"], (best > hardest).double()[rows].mean())
