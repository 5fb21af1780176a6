"""The data structure in which a call reaches a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..channel import COL, INDEX, ROW, Axis, Program

__all__ = [
    "Gradients",
    "PairCall",
    "mask",
    "stat_dtype",
    "widest",
]


@dataclass(eq=False)
class PairCall:
    """``s_ij = scale a_i b_j <x_i, y_j> + beta_i + gamma_j``, and the channels to compute from it.

    Either every tensor has one leading batch dimension or none has. x is (B, M, D). y is (B, N, D)
    or None for x itself; then self pairs are dropped by position. a ``row_scale``, b ``col_scale``,
    beta ``row_bias`` and gamma ``col_bias`` are (B, M) or (B, N) or None; scale is 0-dim or None.
    With ``cosine`` x and y stand for their unit vectors, and gradients are those of x and y
    themselves. ``rows`` and ``cols`` hold the program's operands in its order, (B, M) or (B, N),
    for a form (B, M, E) or (B, N, E).
    """

    x: Tensor
    y: Tensor | None
    scale: Tensor | None
    row_scale: Tensor | None
    col_scale: Tensor | None
    row_bias: Tensor | None
    col_bias: Tensor | None
    rows: tuple[Tensor, ...]
    cols: tuple[Tensor, ...]
    program: Program
    cosine: bool
    #: x and y are rounded to this dtype for the products; statistics and gradients are not rounded
    compute_dtype: torch.dtype

    @property
    def columns(self) -> Tensor:
        return self.x if self.y is None else self.y

    @property
    def batch(self) -> int:
        return self.x.shape[0] if self.x.ndim == 3 else 1

    def length(self, axis: Axis) -> int:
        return (self.x if axis == ROW else self.columns).shape[-2]

    def batched(self) -> PairCall:
        """The same call with a batch dimension, for a backend that needs one. :meth:`add_batch`
        and :meth:`drop_batch` convert the tensors that belong to it."""
        batched = {name: self.add_batch(getattr(self, name)) for name in Gradients.NAMES}
        rows, cols = tuple(map(self.add_batch, self.rows)), tuple(map(self.add_batch, self.cols))
        return replace(self, **batched, rows=rows, cols=cols)

    def _as_it_is(self, value: Tensor | None) -> bool:
        return value is None or not value.ndim or self.x.ndim == 3

    def add_batch(self, value: Any) -> Any:
        return value if self._as_it_is(value) else value.unsqueeze(0)

    def drop_batch(self, value: Any) -> Any:
        return value if self._as_it_is(value) else value.squeeze(0)

    @property
    def stat_dtype(self) -> torch.dtype:
        return stat_dtype(self.x)

    def operand(self, axis: Axis, name: str) -> Tensor | None:
        """The vector called ``name``; None means the position itself, for INDEX without an
        operand."""
        names, values = (
            (self.program.rows, self.rows) if axis == ROW else (self.program.cols, self.cols)
        )
        if name in names:
            return values[names.index(name)]
        if name == INDEX:
            return None
        raise KeyError(name)

    def named(self, axis: Axis, name: str) -> Tensor:
        """The operand called ``name``, which must be given."""
        found = self.operand(axis, name)
        assert found is not None, name
        return found

    @cached_property
    def features(self) -> frozenset[str]:
        """The features of the program and of the operands."""
        extra = set()
        if self.batch != 1:
            extra.add("batch")
        if self.y is None:
            extra.add("symmetric")
        if self.cosine:
            extra.add("cosine")
        return self.program.features | extra


def stat_dtype(x: Tensor) -> torch.dtype:
    """The dtype of scores and statistics of x: fp64 for fp64, fp32 for all other dtypes."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


#: devices without fp64, where creating such a tensor is an error
WITHOUT_FP64 = frozenset({"mps"})


def widest(x: Tensor) -> torch.dtype:
    """The dtype of long sums: fp64 if the device of x has it. Otherwise fp32, added block by block
    or as torch does; over a hundred blocks this is accurate to about 2e-6 of the sum."""
    return stat_dtype(x) if x.device.type in WITHOUT_FP64 else torch.float64


def mask(flags: Iterable[bool]) -> int:
    """Flags as the bits of a number; the first flag is the lowest bit."""
    return sum([1 << bit for bit, flag in enumerate(flags) if flag])


@dataclass
class Gradients:
    """What a backward pass returns; None where no gradient is needed. The gradients of x and y have
    the dtype of x, all others the statistics' dtype. For ``y=None`` dy is added to dx.
    ``row_shifts`` and ``col_shifts`` have the order of :meth:`Program.shifts`."""

    x: Tensor | None = None
    y: Tensor | None = None
    scale: Tensor | None = None
    row_scale: Tensor | None = None
    col_scale: Tensor | None = None
    row_bias: Tensor | None = None
    col_bias: Tensor | None = None
    row_shifts: tuple[Tensor, ...] = ()
    col_shifts: tuple[Tensor, ...] = ()

    #: names in the order of the operator's ``needs`` mask
    NAMES = ("x", "y", "scale", "row_scale", "col_scale", "row_bias", "col_bias")

    def shifts(self, axis: Axis) -> tuple[Tensor, ...]:
        return self.col_shifts if axis == COL else self.row_shifts

    def each(self, f: Callable[[Any], Any]) -> Gradients:
        """``f`` applied to all gradients."""
        found = Gradients(*[f(getattr(self, name)) for name in self.NAMES])
        found.row_shifts = tuple(map(f, self.row_shifts))
        found.col_shifts = tuple(map(f, self.col_shifts))
        return found
