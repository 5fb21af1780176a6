"""Differentiable Spearman rank correlation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import ops, sorting
from ..options import Positive
from .base.loss import RowLoss
from .base.scores import wide

__all__ = ["SpearmanLoss"]


class SpearmanLoss(RowLoss, name="spearman"):
    r"""One minus Spearman's rank correlation of scores and targets, with soft ranks.

    :math:`\ell = 1 - \cos(r - \bar r, t - \bar t), \qquad r = \operatorname{soft\_rank}(x)`

    with t the ranks of the targets, where equal targets share their mean rank. The time is
    O(n log^2 n). If all scores or all targets are equal, there is no correlation: the loss is 1,
    without gradient.

    Args:
        regularization: ``'l2'`` or ``'kl'``, as in :func:`contrastloss.sorting.soft_rank`.
            Default: ``'l2'``.
        strength: strength of the regularisation, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., n), scores.
        target: (..., n), real numbers whose order the scores should have.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Blondel et al., Fast Differentiable Sorting and Ranking, 2020.
    """

    regularization: Literal["l2", "kl"] = "l2"
    strength: Positive = 1.0

    inputs: ClassVar[dict[str, str]] = {"x": "... n>=1", "target": "... n real"}

    def _soft_rank(self, x: Tensor) -> Tensor:
        return sorting.soft_rank(x, regularization=self.regularization, strength=self.strength)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        r = self._soft_rank(x)
        a, b = (v - (x.shape[-1] + 1) / 2 for v in (r, _ranks(target, r.dtype)))
        cosine = (a * b).sum(-1) * ops.inverse_norm(a) * ops.inverse_norm(b)
        return self.reduce(1 - torch.where(r.amax(-1) == r.amin(-1), 0.0, cosine))

    @staticmethod
    def reference(
        x: Tensor, target: Tensor, *, regularization: Literal["l2", "kl"], strength: float
    ) -> Tensor:
        r = sorting.soft_rank(x, regularization=regularization, strength=strength)
        lower = (target.unsqueeze(-1) > target.unsqueeze(-2)).sum(-1)
        t = lower + ((target.unsqueeze(-1) == target.unsqueeze(-2)).sum(-1) + 1) / 2
        pairs = torch.stack([r, t.to(r.dtype)], -2).flatten(0, -3)
        if x.shape[-1] < 2:  # no correlation
            return 1 + 0 * r.sum(-1)
        return torch.stack([1 - torch.corrcoef(pair)[0, 1] for pair in pairs]).view(x.shape[:-1])


def _ranks(target: Tensor, dtype: torch.dtype) -> Tensor:
    """Ranks from 1 to n; equal values share their mean rank."""
    target = wide(target) if target.is_floating_point() else target.long()
    ordered, target = target.sort(-1).values.contiguous(), target.contiguous()
    below = torch.searchsorted(ordered, target)
    return (below + torch.searchsorted(ordered, target, right=True) + 1).to(dtype) / 2
