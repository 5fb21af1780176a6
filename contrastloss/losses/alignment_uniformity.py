"""Alignment and uniformity on the hypersphere."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, differs
from ..ops.merge import log_sum_exp
from ..options import NonNegative, Positive
from .base.loss import Loss
from .base.scores import at_least_one, lacking, log_count, wide

__all__ = ["AlignmentUniformityLoss"]

INSTANCE = "instance"
_OTHERS, _OTHER_INSTANCES = (LSE(),), (LSE(pairs=(differs(INSTANCE),)),)


class AlignmentUniformityLoss(Loss, name="alignment_uniformity"):
    r"""Alignment of positive pairs plus uniformity of all embeddings on the hypersphere.

    :math:`\begin{aligned}
    \ell &= \frac1N \sum_i |x_i - y_i|^\alpha + \lambda\, \frac{U(x) + U(y)}{2} \\
    U(z) &= \log \frac{2}{N (N - 1)} \sum_{i < j} e^{-t |z_i - z_j|^2}
    \end{aligned}`

    for unit vectors x and y. With ``across``, the two means over pairs are replaced by one mean
    over the pairs of different instances among all 2N rows. BECLR's repulsion, with scores divided
    by 2, is that with ``t=0.25``, up to a constant.

    Args:
        alpha: exponent of the distance, positive. Equal rows get no gradient. Default: 2.
        t: scale of the Gaussian kernel, positive. Default: 2.
        weight: lambda >= 0; 0 uses alignment alone. Default: 1.
        across: whether pairs across views repel each other, too. Default: False.
        normalize: whether x and y are normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). The uniformity of fewer than two rows is 0.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, 2020.
    """

    alpha: Positive = 2.0
    t: Positive = 2.0
    weight: NonNegative = 1.0
    across: bool = False
    _: KW_ONLY
    normalize: bool = True

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D"}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self._alignment(x, y)
        if self.weight and x.shape[0] > 1:
            if self.across:
                spread = self._uniformity(torch.cat([x, y]), views=2)
            else:
                spread = 0.5 * (self._uniformity(x) + self._uniformity(y))
            loss = loss + self.weight * spread
        return self.scaled(loss)

    def _alignment(self, x: Tensor, y: Tensor) -> Tensor:
        """Computed from differences: 2 - 2 cos loses all digits where rows are nearly equal."""
        x, y = wide(x), wide(y)
        if self.normalize:
            x, y = (ops.unit(v) for v in (x, y))
        distance = (x - y).square().sum(-1)
        if self.normalize:
            distance = distance + lacking(x) + lacking(y)
        if self.alpha != 2.0:
            apart = distance != 0
            power = torch.where(apart, distance, 1.0).pow(0.5 * self.alpha)
            distance = torch.where(apart, power, 0.0)
        return distance.sum() / at_least_one(x.shape[0])

    def _uniformity(self, z: Tensor, views: int = 1) -> Tensor:
        n, channels, ids = z.shape[0], _OTHERS, None
        if views > 1:
            channels = _OTHER_INSTANCES
            ids = {INSTANCE: torch.arange(n, device=z.device) % (n // views)}
        if self.normalize:
            (rows,) = ops.pair_stats(
                z, None, channels, scale=2.0 * self.t, rows=ids, cosine=True, backend=self.backend
            )
            rows = rows - 2.0 * self.t
        else:
            bias = -self.t * wide(z).square().sum(-1)
            # no low-precision products under autocast: distances are differences of larger numbers
            (rows,) = ops.pair_stats(
                z, None, channels, scale=2.0 * self.t, row_bias=bias, col_bias=bias,
                rows=ids, compute_dtype=z.dtype, backend=self.backend,
            )  # fmt: skip
        return log_sum_exp(rows) - log_count(n, rows) - log_count(n - views, rows)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        alpha: float,
        t: float,
        weight: float,
        across: bool,
        normalize: bool,
    ) -> Tensor:
        def rest(z: Tensor) -> Tensor:
            """Correction for zero vectors, whose cosines are 0."""
            return ((z == 0).all(1) & normalize).to(z.dtype)

        if normalize:
            x, y = (torch.nn.functional.normalize(v) for v in (x, y))
        i = torch.arange(len(x), device=x.device).repeat(2 if across else 1)
        spread = []
        for z in [torch.cat([x, y])] if across else [x, y]:
            apart = (z[:, None] - z).square().sum(2) + rest(z)[:, None] + rest(z)
            pairs = apart[i[:, None] != i]
            spread.append(pairs.mul(-t).exp().mean().log() if len(pairs) else pairs.sum())
        far, gap = (x - y).norm(dim=1), rest(x) + rest(y)
        far = torch.where(gap > 0, (far.square() + gap.clamp_min(1)).sqrt(), far)
        return far.pow(alpha).mean() + weight * torch.stack(spread).mean()
