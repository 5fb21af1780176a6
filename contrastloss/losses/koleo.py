"""Kozachenko-Leonenko (KoLeo) regulariser."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import MAX
from ..options import Positive
from .base.loss import RowLoss, nan_rows
from .base.scores import lacking, wide

__all__ = ["KoLeoLoss"]

_NEAREST = (MAX(),)


class KoLeoLoss(RowLoss, name="koleo"):
    r"""KoLeo: pushes each row away from its nearest neighbour; estimates the negative entropy.

    :math:`\ell_i = -\log\bigl(\min_{j \ne i} |z_i - z_j| + \varepsilon\bigr)`

    The neighbour is the row with the largest score, to the precision of the scores. Its distance is
    computed from the two rows, not from the score, which loses all digits for near duplicates. The
    gradient of a row also flows to its neighbour.

    Args:
        eps: the distance assigned to exact duplicates, which get no gradient; positive.
            Default: 1e-8.
        normalize: whether z is normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        z: (N, D).
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Sablayrolles et al., Spreading Vectors for Similarity Search, 2019; eps: Oquab et al.,
    DINOv2: Learning Robust Visual Features without Supervision, 2023.
    """

    eps: Positive = 1e-8
    _: KW_ONLY
    normalize: bool = True

    inputs: ClassVar[dict[str, str]] = {"z": "N D"}

    def forward(self, z: Tensor) -> Tensor:
        best, index = self._neighbours(z.detach())
        z = wide(z)
        if self.normalize:
            z = ops.unit(z)
        place = index.clamp_min(0)
        difference = z - z.index_select(0, place)
        distance = torch.linalg.vector_norm(difference, dim=-1)  # its gradient at 0 is 0
        if self.normalize:
            rest = lacking(z)
            rest = rest + rest.index_select(0, place)
            longer = (distance.square() + torch.where(rest > 0, rest, 1.0)).sqrt()
            distance = torch.where(rest > 0, longer, distance)
        none = torch.where(best == -torch.inf, 0.0, best)  # keeps NaN, whose index is -1, too
        losses = torch.where(index >= 0, -torch.log(distance + self.eps), none)
        return self.reduce(losses, None, nan_rows(z))

    def _neighbours(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Score and index of each row's nearest other row; -inf and -1 if there is none."""
        # |z_i - z_j|^2 is smallest where <z_i, z_j> - |z_j|^2 / 2 is largest
        bias = None if self.normalize else -0.5 * wide(z).square().sum(-1)
        (nearest,) = ops.pair_stats(
            z,
            None,
            _NEAREST,
            col_bias=bias,
            cosine=self.normalize,
            compute_dtype=z.dtype,  # also under autocast: a different neighbour changes the loss
            backend=self.backend,
        )
        return nearest.value, nearest.index

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor]:
        """Normally distributed rows."""
        return (torch.randn(n, d, generator=generator, dtype=torch.float64),)

    @staticmethod
    def reference(z: Tensor, *, eps: float, normalize: bool) -> Tensor:
        zero = (z == 0).all(1) & normalize
        if normalize:
            z = torch.nn.functional.normalize(z)
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        # a zero vector has cosine 0, so its squared distances are 2
        distance = (z[:, None] - z).norm(dim=2).masked_fill(zero[:, None] | zero, 2**0.5)
        distance = distance.masked_fill(own, torch.inf)
        return -torch.log(distance.amin(1) + eps)
