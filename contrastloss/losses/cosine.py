"""Cosine regression to a target."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..options import AtLeastOne
from .base.loss import RowLoss
from .base.scores import cosine, wide

__all__ = ["CosineLoss"]


class CosineLoss(RowLoss, name="cosine"):
    r"""Cosine distance of each row to its own target, without negatives.

    :math:`\ell_i = (1 - \cos(x_i, t_i))^{\text{power}}`

    BYOL's ``2 - 2 cos`` is ``loss_weight=2``, SimSiam's ``-cos`` is this loss minus one, GraphMAE's
    scaled cosine error is ``power`` 2 or 3. For a symmetric loss, average two calls. A zero vector
    has cosine 0.

    Args:
        power: exponent, at least 1. Default: 1.
        pairs: ``'aligned'``, or ``'all'``, which compares every row with the mean of all targets:
            :math:`\ell_i = 1 - \langle \hat x_i, \tfrac1N \sum_j \hat t_j \rangle`, in O(N D), as
            in Point-CMAE's released code; its paper has aligned tokens. ``'all'`` requires
            ``power=1``. Default: ``'aligned'``.
        stop_gradient: whether the target is a constant. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x, target: (..., N, D).
        weights: (..., N). A bool tensor marks the rows that count. Floating weights multiply the
        losses; they get no gradient and do not change the divisor of ``reduction='mean'``.
        ``pairs='all'`` averages the targets of all rows, counted or not.
        Loss: (), or (..., N) for ``reduction='none'``.

    Source: Grill et al., Bootstrap Your Own Latent, 2020; Chen and He, Exploring Simple Siamese
    Representation Learning, 2021; Hou et al., GraphMAE, 2022; Ren et al., Bringing Masked
    Autoencoders Explicit Contrastive Properties for Point Cloud Self-Supervised Learning, 2024.
    """

    power: AtLeastOne = 1.0
    pairs: Literal["aligned", "all"] = "aligned"
    stop_gradient: bool = True

    inputs: ClassVar[dict[str, str]] = {
        "x": "... N D",
        "target": "... N D",
        "weights": "... N bool | ... N float",
    }

    def check(self) -> None:
        super().check()
        if self.pairs == "all" and self.power != 1:
            raise ValueError(f"power: got {self.power}, expected 1 with pairs='all'")

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"target"} if self.stop_gradient else ())

    def forward(self, x: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
        if self.stop_gradient:
            target = target.detach()
        if self.pairs == "all":
            x, target = wide(x), wide(target)
            mean = ops.unit(target).sum(-2, keepdim=True) / max(x.shape[-2], 1)
            losses = 1 - (ops.unit(x) * mean).sum(-1)
        else:
            losses = 1 - cosine(x, target)
        if self.power != 1:
            losses = losses.clamp_min(0) ** self.power  # rounding may make 1 - cos negative
        if weights is None or weights.dtype == torch.bool:
            return self.reduce(losses, weights)
        return self.reduce(losses * weights.detach().to(losses.dtype))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows, and the same rows with noise as targets."""
        x, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        return x, x + noise

    @staticmethod
    def reference(
        x: Tensor, target: Tensor, *, power: float, pairs: str, stop_gradient: bool
    ) -> Tensor:
        x, target = (torch.nn.functional.normalize(v, dim=-1) for v in (x, target))
        if stop_gradient:
            target = target.detach()
        scores = x @ target.mT
        if pairs == "all":
            return 1 - scores.mean(-1)
        return (1 - scores.diagonal(dim1=-2, dim2=-1)) ** power
