"""AD-L-JEPA loss: prediction of map cells with variance regularisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..options import Fraction, Positive
from .base.features import variance_hinge
from .base.loss import Loss
from .base.scores import cosine, wide

__all__ = ["JEPALoss"]


class JEPALoss(Loss, name="jepa"):
    r"""AD-L-JEPA: cosine regression of hidden map cells, with variance regularisation.

    With O the hidden occupied cells, E the hidden empty cells, and V the visible occupied cells,

    :math:`\alpha \Bigl[w\, \operatorname{mean}_O (1 - \cos(p_c, t_c)) +
    (1 - w) \operatorname{mean}_E (1 - \cos(p_c, t_c))\Bigr] +
    \beta \bigl[v(\text{context}_V) + v(\text{prediction}_O)\bigr]`

    :math:`v(z) = \operatorname{mean}_d \Bigl[\gamma -
    \sqrt{\operatorname{Var}(z_d) + \epsilon}\Bigr]_+`

    with unbiased variances over the cells of a map, where v is averaged over maps.

    Args:
        alpha: weight of the prediction, positive. Default: 1.
        beta: weight of the variance terms, positive; 1 for KITTI, 10 for Waymo. Default: 1.
        occupied_weight: w, from 0 to 1. Default: 0.75.
        gamma: minimum standard deviation of a feature, positive. Default: 1/16.
        eps: added to variances, positive. Default: 1e-4.
        stop_gradient: whether the target is a constant. In the released code it is not: its empty
            cells are a token that learns. Default: True.
        normalize: whether variances are those of unit vectors, as in the released code, whose maps
            are normalised over features. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        prediction, target: (P, D) or (B, P, D), P cells of B maps.
        context: (P, C) or (B, P, C).
        occupied: (P,) or (B, P), bool.
        hidden: same shape as occupied, bool, marks the masked cells. None: every cell counts as
        both hidden and visible.
        Loss: (). A mean over no cells is 0, as is v. The variance of a single cell is 0.

    Source: Zhu et al., AD-L-JEPA: Self-Supervised Spatial World Models with Joint Embedding
    Predictive Architecture for Autonomous Driving with LiDAR Data, 2025.
    """

    alpha: Positive = 1.0
    beta: Positive = 1.0
    occupied_weight: Fraction = 0.75
    gamma: Positive = 1 / 16
    eps: Positive = 1e-4
    stop_gradient: bool = True
    normalize: bool = False

    inputs: ClassVar[dict[str, str]] = {
        "prediction": "... N D",
        "target": "... N D",
        "context": "... N C>=1",
        "occupied": "... N bool",
        "hidden": "... N bool",
    }

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"target"} if self.stop_gradient else ())

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        context: Tensor,
        occupied: Tensor,
        hidden: Tensor | None = None,
    ) -> Tensor:
        if self.stop_gradient:
            target = target.detach()
        visible = occupied if hidden is None else occupied & ~hidden
        full = occupied if hidden is None else occupied & hidden
        empty = ~occupied if hidden is None else ~occupied & hidden
        prediction, context = wide(prediction), wide(context)
        losses = 1 - cosine(prediction, wide(target))
        if self.normalize:
            prediction, context = ops.unit(prediction), ops.unit(context)
        share = self.occupied_weight
        loss = self.alpha * (share * _mean(losses, full) + (1 - share) * _mean(losses, empty))
        maps = max(losses[..., :1].numel(), 1) if losses.ndim > 1 else 1
        for z, seen in ((context, visible), (prediction, full)):
            spread = variance_hinge(z, self.gamma, self.eps, seen)
            loss = loss + self.beta * spread.sum() / maps
        return self.scaled(loss)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A noisy prediction; about 60 % of the cells are occupied."""
        target, noise, context = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
        occupied = torch.rand(n, generator=generator) < 0.6
        return target + noise, target, 0.05 * context, occupied

    @staticmethod
    def reference(
        prediction: Tensor,
        target: Tensor,
        context: Tensor,
        occupied: Tensor,
        hidden: Tensor | None = None,
        *,
        alpha: float,
        beta: float,
        occupied_weight: float,
        gamma: float,
        eps: float,
        stop_gradient: bool,
        normalize: bool,
    ) -> Tensor:
        if normalize:
            prediction, context = (
                torch.nn.functional.normalize(v, dim=-1) for v in (prediction, context)
            )
        if stop_gradient:
            target = target.detach()
        if prediction.ndim == 2:  # one map
            prediction, target, context = prediction[None], target[None], context[None]
            occupied, hidden = occupied[None], None if hidden is None else hidden[None]
        visible = occupied if hidden is None else occupied & ~hidden
        hidden = torch.ones_like(occupied) if hidden is None else hidden
        losses = 1 - torch.cosine_similarity(prediction, target, dim=-1)
        terms = [losses[m & hidden] for m in (occupied, ~occupied)]
        full, empty = (t.mean() if len(t) else t.sum() for t in terms)
        loss = alpha * (occupied_weight * full + (1 - occupied_weight) * empty) + 0 * context.sum()
        for z, seen in ((context, visible), (prediction, occupied & hidden)):
            for one, cells in zip(z, seen, strict=True):
                rows = one[cells]
                if len(rows):
                    variance = rows.var(0, unbiased=len(rows) > 1)
                    hinge = torch.relu(gamma - (variance + eps).sqrt()).mean()
                    loss = loss + beta * hinge / len(z)
        return loss


def _mean(losses: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp_min(1)
