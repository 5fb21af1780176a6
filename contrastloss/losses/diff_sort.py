"""Cross entropy of a relaxed permutation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .. import sorting
from .base.ranking import NetworkLoss, check_scores, check_target, log_mass

__all__ = ["DiffSortLoss"]


class DiffSortLoss(NetworkLoss, name="diff_sort"):
    r"""Scores are to be in the order of their targets.

    .. math:: \ell = -\frac1n \sum_i \log \sum_{r \in R_i} P_{ir}

    with :math:`P_{ir}` the mass that a relaxed sorting network brings from score i to rank r, and
    :math:`R_i` the rank of target i; equal targets have all their ranks in common. This is the
    cross entropy between P and the permutation matrix of the targets, without the terms of that
    matrix's zeros, which the published code adds. Memory is O(n^2) per row, that of P.

    Args:
        steepness, network, distribution, art_lambda: of the network; 10, ``'odd_even'``,
            ``'cauchy'`` and (for ``'logistic_phi'`` alone) 0.25.

    Shape:
        x: scores, (..., n). target: numbers of x's shape, in whose order the scores are to be.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Petersen et al., Differentiable Sorting Networks for Scalable Sorting and Ranking
    Supervision, 2021.
    """

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        check_scores(x)
        check_target(target, x)
        P = sorting.sort(x, **self.sorting(x)).P
        own = target.unsqueeze(-1) == target.sort(-1).values.unsqueeze(-2)
        return self.reduce(-log_mass(torch.where(own, P, 0.0).sum(-1)).mean(-1))

    @staticmethod
    def reference(x: Tensor, target: Tensor, **network: Any) -> Tensor:
        """Of different targets."""
        P = sorting.sort(x, **network).P
        Q = one_hot(target.argsort(-1).argsort(-1), x.shape[-1])
        return -(Q * P.log()).sum((-2, -1)) / x.shape[-1]
