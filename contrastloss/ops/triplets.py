"""Sums over the triplets of rows whose scores are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import widest
from .check import check_count, check_embeddings

__all__ = ["triplet_sums"]


def triplet_sums(
    scores: Tensor, positive: Tensor, negative: Tensor, margin: float, most: int
) -> tuple[Tensor, Tensor]:
    r"""For every row the sum and the number of the nonzero terms

    :math:`[s_n - (s_p - m)]_+, \qquad p \in P, \; n \in N,`

    in time O(K log P) for a row of K columns, from an order of its positives: a negative's score
    lies above so many of the bounds :math:`s_p - m`, and a bound lies below so many negatives.
    These two numbers are also the gradients of :math:`s_n` and, with a minus, of :math:`s_p`.

    Args:
        scores: (M, K).
        positive, negative: (M, K), bool, which columns are in P and in N. They are disjoint.
        margin: m.
        most: the number of positives of a row, at most; of more the least similar ones are used.

    Returns:
        The sums (M,), added up in fp64, in the dtype of the scores; and the numbers (M,), int64.
        A margin that is met exactly is no term.
    """
    check_embeddings("scores", scores)
    check_count("most", most)
    wide = widest(scores)
    shifted = torch.where(positive, scores - margin, scores)
    with torch.no_grad():
        bounds = torch.where(positive, shifted, torch.inf)
        bounds, place = bounds.topk(min(most, scores.shape[1]), dim=1, largest=False)
        below = torch.searchsorted(bounds, shifted.detach(), out_int32=True).long()
        below.masked_fill_(~negative, 0)
        # all columns, by how many bounds lie below them: those that are no negatives come first
        above = scores.shape[1] - _histogram(below, bounds.shape[1] + 1).cumsum(1)[:, :-1]
        slope = below.to(wide)
        # of places that no positive has, since there are fewer, 0 is subtracted
        slope.scatter_(1, place, slope.gather(1, place) - above)
        base = bounds[:, :1].sum(1, keepdim=True)
        base = torch.where(base.isfinite(), base, 0.0)
    # the slopes of a row add up to 0, and differences of near scores are exact
    terms = torch.where(slope == 0, 0.0, shifted - base).to(wide)
    return torch.linalg.vecdot(slope, terms).to(scores.dtype), below.sum(1)


def _histogram(values: Tensor, size: int) -> Tensor:
    """How often each integer below ``size`` stands in each row, (M, size). Unlike a sum by indices
    this is deterministic on a GPU, too."""
    rows = torch.arange(values.shape[0], device=values.device)[:, None] * size
    return (values + rows).flatten().bincount(minlength=rows.shape[0] * size).view(-1, size)
