"""The Kozachenko-Leonenko regulariser."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor

from .. import ops
from ..channel import MAX
from .base.checks import check_matrix
from .base.loss import RowLoss, nan_rows
from .base.options import Positive
from .base.scores import lacking, wide

__all__ = ["KoLeoLoss"]

_NEAREST = (MAX(),)


class KoLeoLoss(RowLoss, name="koleo"):
    r"""Every row away from its nearest neighbour: an estimate of the negative entropy.

    .. math:: \ell_i = -\log\bigl(\min_{j \ne i} |z_i - z_j| + \varepsilon\bigr)

    The neighbour is the one of the largest score, to that precision; its distance is computed from
    the two rows, not from the score, which has no digits left for near duplicates.

    Args:
        eps: what an exact duplicate's distance is taken for, 1e-8. It gets no gradient.
        normalize: of unit vectors, True, a zero vector being orthogonal to all others; False takes
            z as it is.

    Shape:
        z: (N, D). Loss: (), or (N,) for ``reduction='none'``. One row alone: 0. A row's gradient
        also reaches its neighbour.

    Source: Sablayrolles et al., Spreading Vectors for Similarity Search, 2019; eps: Oquab et al.,
    DINOv2: Learning Robust Visual Features without Supervision, 2023.
    """

    eps: Positive = 1e-8
    _: KW_ONLY
    normalize: bool = True

    def forward(self, z: Tensor) -> Tensor:
        check_matrix("z", z)
        best, index = self._neighbours(z.detach())
        z = wide(z)
        if self.normalize:
            z = ops.unit(z)
        place = index.clamp_min(0)
        difference = z - z.index_select(0, place)
        distance = torch.linalg.vector_norm(difference, dim=-1)  # at 0 its gradient is 0
        if self.normalize:
            rest = lacking(z)
            rest = rest + rest.index_select(0, place)
            longer = (distance.square() + torch.where(rest > 0, rest, 1.0)).sqrt()
            distance = torch.where(rest > 0, longer, distance)
        none = torch.where(best == -torch.inf, 0.0, best)  # NaN has no index, and is no 0
        losses = torch.where(index >= 0, -torch.log(distance + self.eps), none)
        return self.reduce(losses, None, nan_rows(z))

    def _neighbours(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest other row of each, its score and its index, -inf and -1 for none."""
        # |z_i - z_j|^2 is smallest where <z_i, z_j> - |z_j|^2 / 2 is largest
        bias = None if self.normalize else -0.5 * wide(z).square().sum(-1)
        (nearest,) = ops.pair_stats(
            z,
            None,
            _NEAREST,
            col_bias=bias,
            cosine=self.normalize,
            compute_dtype=z.dtype,  # under autocast as well: another neighbour is another loss
            backend=self.backend,
        )
        return nearest.value, nearest.index

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor]:
        """Inputs for ``forward``, for :mod:`contrastloss.testing`."""
        return (torch.randn(n, d, generator=generator, dtype=torch.float64),)

    @staticmethod
    def reference(z: Tensor, *, eps: float, normalize: bool) -> Tensor:
        zero = (z == 0).all(1) & normalize
        if normalize:
            z = torch.nn.functional.normalize(z)
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        # the cosines of a zero vector are 0
        distance = (z[:, None] - z).norm(dim=2).masked_fill(zero[:, None] | zero, 2**0.5)
        distance = distance.masked_fill(own, torch.inf)
        return -torch.log(distance.amin(1) + eps)
