"""Differentiable top-k classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import sorting
from ..ops.check import check_range
from ..options import Count, NonNegative
from .base.ranking import NetworkLoss, log_mass
from .base.scores import wide

__all__ = ["TopKCrossEntropyLoss"]


class TopKCrossEntropyLoss(NetworkLoss, name="topk_cross_entropy"):
    r"""Cross entropy of relaxed top-k accuracy, for several k at once.

    :math:`\ell = -\log \Bigl( w_1 \operatorname{softmax}(x)_y +
    \sum_{k > 1} w_k \sum_{r \le k} P_{yr} \Bigr)`

    where y is the target class and :math:`P_{yr}` the mass that a relaxed sorting network, in
    descending order, moves from the score of y to rank r. All top-k masses are computed in one
    sweep, without P, in O(n) memory per row. The input of the network is the score of y, followed
    by the scores of the other classes in descending order.

    Args:
        weights: :math:`w_1, w_2, \dots` of top-1, top-2, ...: probabilities >= 0 that sum to 1.
            Default: (0.5, 0, 0, 0, 0.5).
        candidates: number of scores to compare, at least 1: that of y and the largest scores of
            other classes. None for all, which suits a few dozen classes. Default: 16.
        steepness: steepness of the comparators, positive. Default: 10.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., C), scores.
        target: (...), classes, int64.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Petersen et al., Differentiable Top-k Classification Learning, 2022, whose top-1 is a
    softmax too.
    """

    weights: Sequence[NonNegative] = (0.5, 0.0, 0.0, 0.0, 0.5)
    _: KW_ONLY
    candidates: Count | None = 16

    inputs: ClassVar[dict[str, str]] = {"x": "... C>=1", "target": "... int"}

    def check(self) -> None:
        super().check()
        if not math.isclose(sum(self.weights), 1.0):
            raise ValueError(f"weights: got {self.weights}, expected probabilities that sum to 1")

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        check_range("target", target, 0, x.shape[-1] - 1, "classes of x")
        target = target.long()
        classes = x.shape[-1]
        count = classes if self.candidates is None else min(self.candidates, classes)
        x, place = wide(x), target.unsqueeze(-1)
        others = x.scatter(-1, place, -torch.inf).topk(count - 1).values
        x = torch.cat([x.gather(-1, place), others], -1)
        first, *rest = self.weights
        found = x.log_softmax(-1)[..., 0] + (math.log(first) if first else -math.inf)
        if any(rest):
            ranks = torch.arange(x.shape[-1], device=x.device)
            within = [w * (ranks < k).to(x.dtype) for k, w in enumerate(rest, 2)]
            t = torch.stack(within).sum(0)
            mass = sorting.rank_mass(x, t, descending=True, **self.sorting(x))[..., 0]
            found = torch.logaddexp(found, log_mass(mass))
        return self.reduce(-found)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random scores and classes."""
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        return x, torch.randint(0, d, (n,), generator=generator)

    @staticmethod
    def reference(
        x: Tensor,
        target: Tensor,
        *,
        weights: Sequence[float],
        candidates: int | None,
        **network: Any,
    ) -> Tensor:
        rows = []
        for scores, y in zip(x.flatten(0, -2), target.flatten(), strict=True):
            others = torch.cat([scores[:y], scores[y + 1 :]]).sort(descending=True).values
            seen = torch.cat([scores[y : y + 1], others])[:candidates]
            P = sorting.sort(seen, descending=True, **network).P
            p = sum(w * P[0, : k + 2].sum() for k, w in enumerate(weights[1:]))
            rows.append(-(weights[0] * seen.softmax(0)[0] + p).log())
        return torch.stack(rows).view(target.shape)
