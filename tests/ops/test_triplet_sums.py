"""Sums over triplets that are counted, not formed, against all of them."""

import pytest
import torch

from contrastloss.ops import triplet_sums

SIZES = [(0, 5), (3, 0), (1, 1), (2, 3), (5, 33), (4, 130), (37, 64)]


def formula(scores, positive, negative, margin, most):
    """Every p and every n of a row, (M, P, N)."""
    hardest = torch.where(positive, scores.detach(), torch.inf).argsort(dim=1, stable=True)
    rank = hardest.argsort(1)
    used = positive & (rank < most)
    u = scores[:, None, :] - (scores[:, :, None] - margin)
    terms = torch.where(used[:, :, None] & negative[:, None, :], u.relu(), 0.0)
    return terms.sum((1, 2)), (terms > 0).sum((1, 2))


def draw(m, k, step):
    """Scores, of which many are equal if there is a step; rows without positives or negatives; and
    columns that are neither."""
    scores = torch.randn(m, k, dtype=torch.float64)
    scores = scores if step is None else (scores / step).round() * step
    kind = torch.randint(0, 4, (m, k))
    kind[: m // 4] = 0
    kind[m // 4 : m // 3] = 1
    return scores.requires_grad_(), kind == 0, kind % 2 == 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("step", [None, 0.25])
@pytest.mark.parametrize("margin", [0.0, 0.25, -0.5, 2.0])
def test_all_triplets(size, step, margin, device):
    scores, positive, negative = (v.detach().to(device) for v in draw(*size, step))
    scores.requires_grad_()
    for most in (1, 3, max(size[1], 1), 1000):
        got = triplet_sums(scores, positive, negative, margin, most)
        want = formula(scores, positive, negative, margin, most)
        torch.testing.assert_close(got[0], want[0], rtol=1e-13, atol=1e-13)
        assert torch.equal(got[1], want[1])
        if step is None or most >= size[1]:  # equal positives, of which some are used
            weight = torch.randn(size[0], dtype=torch.float64, device=device)
            grads = [torch.autograd.grad((v[0] * weight).sum(), scores) for v in (got, want)]
            torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_fp32_is_as_good_as_the_sum_of_all_terms(device):
    """A million triplets in a row: its sum is exact but for the scores' own differences."""
    scores = torch.randn(3, 2048, device=device).requires_grad_()
    positive = torch.arange(2048, device=device).expand(3, -1) % 2 == 0
    wide = scores.detach().double().requires_grad_()
    got = triplet_sums(scores, positive, ~positive, 0.125, 1024)
    want = formula(wide, positive, ~positive, 0.125, 1024)
    torch.testing.assert_close(got[0].double(), want[0], rtol=2e-7, atol=0)
    grads = [torch.autograd.grad(v[0].sum(), x)[0] for v, x in ((got, scores), (want, wide))]
    differ = (grads[0].double() - grads[1]).abs()
    assert differ.max() <= 1  # a score and a bound that only rounding makes equal
    assert (differ > 0).sum() < 10
    assert (got[1] - want[1]).abs().max() < 10


def test_what_is_no_number(device):
    """Columns without a score form no pair, and NaN of a negative shows."""
    scores = torch.tensor([[0.5, -torch.inf, 0.25], [0.5, torch.nan, 0.25]], device=device)
    positive = torch.tensor([True, False, False], device=device).expand(2, 3)
    total, count = triplet_sums(scores, positive, ~positive, 0.5, 1)
    assert (total[0].item(), count[0].item()) == (0.25, 1)
    assert total[1].isnan()


@pytest.mark.parametrize("most", [0, 1.5])
def test_wrong_arguments(most):
    scores = torch.zeros(2, 3)
    with pytest.raises((TypeError, ValueError), match=r"^most: got .*, expected"):
        triplet_sums(scores, scores > 0, scores < 0, 0.1, most)
