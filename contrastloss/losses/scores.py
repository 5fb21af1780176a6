"""The pair scores of a loss: temperature, normalisation and bias, in front of the operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..channel import Channel

__all__ = ["Scores", "inverse_norm"]

#: torch.nn.functional.normalize's
EPS = 1e-12


def inverse_norm(x: Tensor) -> Tensor:
    """``1 / max(|x|, eps)`` over the last dimension; 0 for a zero vector, whose cosines are then 0
    with zero gradient (``F.normalize`` gives 0 with a gradient of order 1e12)."""
    norm = torch.linalg.vector_norm(x, dim=-1)
    return torch.where(norm > 0, 1.0 / norm.clamp_min(EPS), 0.0)


class Scores:
    r""":math:`s_{ij} = \text{scale}\; \langle \hat x_i, \hat y_j \rangle / \tau_i + \text{bias}`.

    Low-precision embeddings are widened here, exactly, and only their products are taken in the
    narrow dtype: norms, scores and the sum of all gradients stay fp32, and each gradient is
    rounded once, when it leaves for the caller. For the same reason cosines are scores of the
    embeddings as they came, times their inverse norms, and not of rounded unit vectors.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        *,
        scale: Tensor | float,
        row_scale: Tensor | None = None,
        bias: Tensor | None = None,
        normalize: bool = True,
        backend: str | None = None,
    ) -> None:
        self.compute_dtype = _compute_dtype(x)
        self.x = _wide(x)
        self.y = None if y is None else _wide(y)
        self.scale, self.bias, self.backend = scale, bias, backend
        #: 0-dim, or one per row
        self.inverse_temperature = scale if row_scale is None else row_scale
        norm = inverse_norm(self.x) if normalize else None
        self.col_scale = norm if self.y is None or norm is None else inverse_norm(self.y)
        self.row_scale = norm
        if row_scale is not None:
            self.row_scale = row_scale if norm is None else norm * row_scale

    def stats(
        self,
        channels: Sequence[Channel],
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> list[Any]:
        """:func:`contrastloss.ops.pair_stats` of these scores."""
        return ops.pair_stats(
            self.x,
            self.y,
            channels,
            scale=self.scale,
            row_scale=self.row_scale,
            col_scale=self.col_scale,
            row_bias=self.bias,
            rows=rows,
            cols=cols,
            compute_dtype=self.compute_dtype,
            backend=self.backend,
        )

    def aligned(self) -> Tensor:
        """``s_ii``, (N,): the scores of x with the column of the same position."""
        columns = self.x if self.y is None else self.y
        return self._finish((self.x * columns).sum(-1), self.row_scale, self.col_scale)

    def halves(self) -> Tensor:
        """``s_ij`` of every row with its counterpart in the other half of x, (2N,)."""
        n = self.x.shape[0] // 2
        dot = (self.x[:n] * self.x[n:]).sum(-1)
        other = None if self.col_scale is None else self.col_scale.roll(n)
        return self._finish(torch.cat([dot, dot]), self.row_scale, other)

    def cosines(self, scores: Tensor) -> Tensor:
        """Scores of rows without temperature and bias."""
        return (scores if self.bias is None else scores - self.bias) / self.inverse_temperature

    def _finish(self, dot: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
        if left is not None:
            dot = dot * left
        if right is not None:
            dot = dot * right
        dot = dot * self.scale
        return dot if self.bias is None else dot + self.bias


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
