"""The hierarchical contrast of time series of TS2Vec."""

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
    r"""NT-Xent between series at each time and between times of each series, at every scale.

    With ``NT-Xent`` over both views of all series at one time (instance), and over both views of
    one series at all times (temporal),

    .. math:: \ell_i = \frac1L \sum_{k=0}^{L-1} \left(\alpha\, \text{instance}_i(x^k, y^k) +
        (1 - \alpha)\, \text{temporal}_i(x^k, y^k)\right)

    means over times and both views, where :math:`x^0 = x` and :math:`x^{k+1}` has the largest of
    every two neighbouring times, an odd last one left out, until one time is left. There the
    temporal term is 0.

    Args:
        alpha: weight of the instance term, 0.5.
        temperature: divides the scores; 1.0.
        normalize: False: scores are plain products. True: cosines of what was pooled.

    Shape:
        x, y: (B, T, D), two views of B series. Loss: (), or (B,) for ``reduction='none'``. One
        series alone has no instance term.

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
        """Three times, at each a direction per series, in both views."""
        cosine = min(0.9, math.sqrt(math.log(2 * n + 2) / d))
        x = normalize(torch.randn(3, n, 3, d, generator=generator, dtype=torch.float64), dim=-1)
        x, y = math.sqrt(cosine) * x[0] + math.sqrt(1 - cosine) * x[1:]
        return x, y


def _halved(x: Tensor) -> Tensor:
    """The larger of every two neighbouring times."""
    times = x.shape[1] // 2 * 2
    return torch.maximum(x[:, :times:2], x[:, 1:times:2])
