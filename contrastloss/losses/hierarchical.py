"""Hierarchical contrastive loss for time series (TS2Vec)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..options import Fraction, Temperature
from .base.pair_loss import PairLoss
from .base.series import between, dense_between, in_turn

__all__ = ["HierarchicalContrastiveLoss"]


class HierarchicalContrastiveLoss(PairLoss, name="hierarchical_contrastive"):
    r"""TS2Vec: NT-Xent across series and across time steps, averaged over temporal scales.

    With ``NT-Xent`` over both views of all series at one time step (instance), and over both views
    of one series at all time steps (temporal),

    :math:`\ell_i = \frac1L \sum_{k=0}^{L-1} \left(\alpha\, \text{instance}_i(x^k, y^k) +
    (1 - \alpha)\, \text{temporal}_i(x^k, y^k)\right)`

    where both terms are means over time steps and both views, :math:`x^0 = x`, and
    :math:`x^{k+1}` is the maximum over pairs of neighbouring time steps of :math:`x^k` (an odd last
    step is dropped), until one time step is left. There the temporal term is 0.

    Args:
        alpha: weight of the instance term, from 0 to 1. Default: 0.5.
        temperature: divides the scores, positive. Default: 1.
        normalize: False uses dot products, True cosines of the pooled vectors. Default: False.
        group: the instance term is over the series of all ranks, which are always gathered,
            whatever the strategy. T is the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (B, T, D), two views of B series.
        Loss: (), or (B,) for ``reduction='none'``. For B = 1 the instance term is 0.

    Source: Yue et al., TS2Vec: Towards Universal Representation of Time Series, 2022.
    """

    alpha: Fraction = 0.5
    _: KW_ONLY
    temperature: Temperature = 1.0
    normalize: bool = False

    inputs: ClassVar[dict[str, str]] = {"x": "B T>=1 D", "y": "B T>=1 D"}
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    without: ClassVar[dict[str, str]] = {
        "memory": "a queue holds single embeddings, not sets of them",
        "return_stats": "it sums several terms with scores of their own",
    }

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        levels, spread = [], None
        while True:
            rows = in_turn(x.movedim(1, 0), y.movedim(1, 0))
            scores = self.scores(rows, None, logit_scale, logit_bias, spread=spread)
            level, spread = self.alpha * between(scores).mean(0), scores.spread
            if x.shape[1] > 1 and self.alpha < 1:
                scores = self.scores(in_turn(x, y), None, logit_scale, logit_bias, alone=True)
                level = level + (1 - self.alpha) * between(scores).mean(1)
            levels.append(level)
            if x.shape[1] == 1:
                return self.reduce(torch.stack(levels).mean(0))
            x, y = _halved(x), _halved(y)

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor, alpha: float) -> Tensor:
        levels = []
        while x.shape[1]:
            rows = alpha * dense_between(x.movedim(1, 0), y.movedim(1, 0), scale, bias).mean(0)
            levels.append(rows + (1 - alpha) * dense_between(x, y, scale, bias).mean(1))
            half = x.shape[1] // 2
            x, y = (torch.maximum(v[:, : 2 * half : 2], v[:, 1 : 2 * half : 2]) for v in (x, y))
        return torch.stack(levels).mean(0)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Three time steps; at each, both views share one direction per series."""
        cosine = min(0.9, math.sqrt(math.log(2 * n + 2) / d))
        x = normalize(torch.randn(3, n, 3, d, generator=generator, dtype=torch.float64), dim=-1)
        x, y = math.sqrt(cosine) * x[0] + math.sqrt(1 - cosine) * x[1:]
        return x, y


def _halved(x: Tensor) -> Tensor:
    """Maximum over pairs of neighbouring time steps."""
    times = x.shape[1] // 2 * 2
    return torch.maximum(x[:, :times:2], x[:, 1:times:2])
