from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import InfoNCELoss, SampledContrastiveLoss
from contrastloss.functional import sampled
from contrastloss.losses.sampled import _numbered
from contrastloss.testing import Subject


class Drawn(SampledContrastiveLoss):
    """Seven candidates per row, from more columns than rows: some drawn twice, some equal to the
    positive, some missing."""

    @staticmethod
    def example(n, d, generator):
        x = torch.randn(n, d, generator=generator).double()
        y = torch.randn(n + 5, d, generator=generator).double()
        y[:n] = x + 5.0 * y[:n]
        y[n:] = y[:1]
        y = normalize(
            y
        )  # columns that are equal for the loss are so for the reference, which gets unit vectors
        index = torch.randint(-1, n + 5, (n, 7), generator=generator)
        index[:, 0] = torch.arange(n)
        index[::5, 0] = -1
        index[:, 1] = index[:, 0]
        return x, y, index


@every_check
@pytest.mark.parametrize("cls", [SampledContrastiveLoss, Drawn])
def test_properties(check, cls, device, backend):
    check(Subject(cls, {}, device, backend, thorough=cls is SampledContrastiveLoss))


# scores of the candidates: 1, 0, -1
Y = E1, E2, [-1.0, 0.0]


@pytest.mark.parametrize(
    ("index", "want"),
    [
        ([0, 1, 2], log(e + 1 + 1 / e) - 1),
        ([1, 0, 2], log(e + 1 + 1 / e)),
        ([1, 0, 0], log(2 * e + 1)),  # drawn twice
        ([1, 0, 1], log(e + 1)),  # the positive is not a negative
        ([1, 0, -1], log(e + 1)),
        ([1, 1, -1], 0.0),
        ([-1, 0, 1], 0.0),
        ([3, 0, 1], log(e + 1)),  # columns 3 and 1 are equal
    ],
)
def test_by_hand(index, want, device, backend):
    x, y = tensor(E1, device=device), tensor(*Y, E2, device=device)
    index = torch.tensor([index], device=device)
    close(sampled(x, y, index, temperature=1.0, backend=backend), want)


def test_rows_without_positive_do_not_count(device, backend):
    x, y = tensor(E1, E1, device=device, grad=True), tensor(*Y, device=device, grad=True)
    index = torch.tensor([[1, 0, 2], [-1, 0, 1]], device=device)
    loss = SampledContrastiveLoss(1.0, backend=backend)(x, y, index)
    close(loss, log(e + 1 + 1 / e))
    dx, dy = gradients(loss, x, y)
    assert not dx[1].any()
    assert dy.isfinite().all()


def test_every_column_is_info_nce(device, backend):
    x, y = torch.randn(2, 6, 4, dtype=torch.float64, device=device)
    i = torch.arange(6, device=device)
    index = (i[:, None] + i) % 6
    loss = SampledContrastiveLoss(0.3, reduction="none", backend=backend)
    close(loss(x, y, index), InfoNCELoss(0.3, reduction="none", backend=backend)(x, y))


def test_statistics(device, backend):
    x, y, index = (v.to(device) for v in Drawn.example(12, 4, torch.Generator()))
    _, stats = SampledContrastiveLoss(0.3, return_stats=True, backend=backend)(x, y, index)
    s = torch.einsum("nd,nkd->nk", normalize(x), normalize(y)[index]) / 0.3
    out = (y[index] == y[index[:, :1]]).all(2) | (index < 0)
    counted = index[:, 0] >= 0
    negatives = s.masked_fill(out, -torch.inf)[counted]
    positive = s[counted, 0]
    close(stats["positive"], positive.mean())
    close(stats["hardest_negative"], negatives.amax(1).mean())
    close(stats["lse"], torch.logaddexp(negatives.logsumexp(1), positive).mean())
    close(stats["accuracy"], (positive > negatives.amax(1)).double().mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_row_numbers_match_unique(dtype, device):
    """Compared with torch.unique, on rows that differ in one bit, the order, or the sign of 0."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(-1, 2, (400, 5), generator=g).to(device, dtype)
    y[7], y[8] = y[9], -y[9]
    y[10] = torch.nextafter(y[9].float(), y.new_tensor(9.0).float()).to(dtype)
    y[11:13] = 0.0
    y[12] *= -1.0
    got, want = _numbered(y), torch.unique(y + 0.0, dim=0, return_inverse=True)[1]
    assert torch.equal(got[:, None] == got, want[:, None] == want)


def test_errors():
    x, y = torch.randn(4, 3), torch.randn(6, 3)
    index, loss = torch.zeros(4, 2, dtype=torch.int64), SampledContrastiveLoss()
    for bad, kind, message in (
        (index.int(), TypeError, "got dtype torch.int32, expected int64"),
        ([[0]], ValueError, r"got shape \(1, 1\), expected \(4, K\) with K >= 1"),
        ([["a"]], TypeError, "got list, expected a tensor"),
        (index[:3], ValueError, r"got shape \(3, 2\), expected \(4, K\)"),
        (index[:, 0], ValueError, r"got shape \(4,\), expected \(4, K\)"),
        (index[:, :0], ValueError, r"got shape \(4, 0\), expected \(4, K\)"),
        (index + 6, ValueError, "got 6, expected -1 to 5"),
        (index - 2, ValueError, "got -2, expected -1 to 5"),
        (index.to("meta"), ValueError, "got device meta, expected x's cpu"),
    ):
        with pytest.raises(kind, match=f"^index: {message}"):
            loss(x, y, bad)
    for bad, kind, message in (
        (y[:, :2], ValueError, r"got shape \(6, 2\), expected \(M, 3\)"),
        (y.double(), TypeError, "got dtype torch.float64, expected x's torch.float32"),
        (y[0], ValueError, r"got shape \(3,\), expected \(M, 3\)"),
    ):
        with pytest.raises(kind, match=f"^y: {message}"):
            loss(x, bad, index)
