"""Cross entropy of a relaxed permutation (differentiable sorting networks)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .. import sorting
from .base.ranking import NetworkLoss, log_mass

__all__ = ["DiffSortLoss"]


class DiffSortLoss(NetworkLoss, name="diff_sort"):
    r"""Ranking loss: cross entropy between a relaxed sorting of scores and the order of targets.

    :math:`\ell = -\frac1n \sum_i \log \sum_{r \in R_i} P_{ir}`

    where :math:`P_{ir}` is the mass that a relaxed sorting network moves from score i to rank r,
    and :math:`R_i` holds the rank of target i; equal targets share all of their ranks. This is the
    cross entropy between P and the permutation matrix of the targets. The published code also adds
    the terms for the zeros of that matrix. Memory is O(n^2) per row, for P.

    Args:
        steepness: steepness of the comparators, positive. Default: 10.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., n), scores.
        target: (..., n), real numbers whose order the scores should have.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Petersen et al., Differentiable Sorting Networks for Scalable Sorting and Ranking
    Supervision, 2021.
    """

    inputs: ClassVar[dict[str, str]] = {"x": "... n>=1", "target": "... n real"}

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        P = sorting.sort(x, **self.sorting(x)).P
        own = target.unsqueeze(-1) == target.sort(-1).values.unsqueeze(-2)
        return self.reduce(-log_mass(torch.where(own, P, 0.0).sum(-1)).mean(-1))

    @staticmethod
    def reference(x: Tensor, target: Tensor, **network: Any) -> Tensor:
        """Requires distinct targets."""
        P = sorting.sort(x, **network).P
        Q = one_hot(target.argsort(-1).argsort(-1), x.shape[-1])
        return -(Q * P.log()).sum((-2, -1)) / x.shape[-1]
