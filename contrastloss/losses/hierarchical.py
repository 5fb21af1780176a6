"""Hierarchical contrastive loss for time series (TS2Vec)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .base.loss import ScoreLoss
from .base.options import Fraction, Temperature
from .base.series import between, check_series, dense_between

__all__ = ["HierarchicalContrastiveLoss"]


class HierarchicalContrastiveLoss(ScoreLoss, name="hierarchical_contrastive"):
    r"""TS2Vec: NT-Xent across series and across time steps, averaged over temporal scales.

    With ``NT-Xent`` over both views of all series at one time step (instance), and over both views
    of one series at all time steps (temporal),

    .. math:: \ell_i = \frac1L \sum_{k=0}^{L-1} \left(\alpha\, \text{instance}_i(x^k, y^k) +
        (1 - \alpha)\, \text{temporal}_i(x^k, y^k)\right)

    where both terms are means over time steps and both views, :math:`x^0 = x`, and
    :math:`x^{k+1}` is the maximum over pairs of neighbouring time steps of :math:`x^k` (an odd last
    step is dropped), until one time step is left. There the temporal term is 0.

    Args:
        alpha: weight of the instance term, from 0 to 1. Default: 0.5.
        temperature: divides the scores, positive. Default: 1.
        normalize: False uses dot products, True cosines of the pooled vectors. Default: False.

    Shape:
        x, y: (B, T, D), two views of B series.
        Loss: (), or (B,) for ``reduction='none'``. For B = 1 the instance term is 0.

    Source: Yue et al., TS2Vec: Towards Universal Representation of Time Series, 2022.
    """

    alpha: Fraction = 0.5
    _: KW_ONLY
    temperature: Temperature = 1.0
    normalize: bool = False

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        check_series(self, ("x", "y"), x, y)
        levels = []
        while True:
            level = self.alpha * between(self.scores, x.movedim(1, 0), y.movedim(1, 0)).mean(0)
            if x.shape[1] > 1 and self.alpha < 1:
                level = level + (1 - self.alpha) * between(self.scores, x, y).mean(1)
            levels.append(level)
            if x.shape[1] == 1:
                return self.reduce(torch.stack(levels).mean(0))
            x, y = _halved(x), _halved(y)

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor, alpha: float) -> Tensor:
        levels = []
        while x.shape[1]:
            rows = alpha * dense_between(x.movedim(1, 0), y.movedim(1, 0), scale).mean(0)
            levels.append(rows + (1 - alpha) * dense_between(x, y, scale).mean(1))
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
