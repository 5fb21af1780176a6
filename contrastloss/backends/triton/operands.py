"""A call's tensors as kernel arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from triton.tools.tensor_descriptor import TensorDescriptor

from ...channel import COL, ROW, ROW_TERMS, SUM, Channel
from ..call import PairCall
from .config import Config
from .rows import inverse_norms
from .tile import Vectors
from .words import Words, encode

__all__ = ["KernelOperands", "described", "strides"]


@dataclass
class KernelOperands:
    """A call with a batch dimension, ready for the kernels. x and y are contiguous, in
    ``compute_dtype``, and rows that are no multiple of 16 bytes are padded with zeros."""

    x: Tensor
    y: Tensor
    vectors: Vectors
    #: the program, and its channels
    words: Words
    channels: tuple[Channel, ...]
    symmetric: bool
    #: whether a tile above the diagonal has the same values in either direction
    mirrored: bool
    #: which of a, b, beta and gamma are given; x is passed in place of the others
    has: tuple[bool, ...]
    x_norm: Tensor | None
    y_norm: Tensor | None

    @staticmethod
    def of(call: PairCall, mirror: bool = True) -> KernelOperands:
        """``mirror``: whether a tile may stand for both directions."""
        call = call.batched()
        given, stat, symmetric = call.operands, call.stat_dtype, call.y is None
        x = _aligned(call.x.to(call.compute_dtype))
        y = x if call.y is None else _aligned(call.y.to(call.compute_dtype))
        x_norm = y_norm = None
        if call.cosine:
            x_norm, y_norm = inverse_norms(x, None if symmetric else y)
        a, b = _product(given.row_scale, x_norm), _product(given.col_scale, y_norm)
        places = (a, b, given.row_bias, given.col_bias)
        vectors = [x if v is None else v.to(stat).contiguous() for v in places]
        scale = torch.ones((), dtype=stat) if given.scale is None else given.scale
        mirrored = symmetric and mirror and _mirrored(call)
        return KernelOperands(
            x=x,
            y=y,
            vectors=Vectors(
                scale=scale.to(x.device),
                a=vectors[0],
                b=vectors[1],
                beta=vectors[2],
                gamma=vectors[3],
                rows=tuple([_operand(v, stat) for v in given.rows]),
                cols=tuple([_operand(v, stat) for v in given.cols]),
            ),
            words=encode(
                call.program,
                strides(given.rows),
                "mirrored" if mirrored else "both" if symmetric else "direct",
            ),
            channels=call.program.channels,
            symmetric=symmetric,
            mirrored=mirrored,
            has=tuple([v is not None for v in places]),
            x_norm=x_norm,
            y_norm=y_norm,
        )

    def loaded(self, config: Config) -> tuple[Any, Any]:
        """x and y as kernels load them: through descriptors of blocks, or as they are."""
        if config.how != "tma":
            return self.x, self.y
        depth = config.depth(self.x.shape[-1])
        return described(self.x, config.block_m, depth), described(self.y, config.block_n, depth)


def described(x: Tensor, rows: int, cols: int) -> TensorDescriptor:
    """A descriptor of blocks (rows, cols) of x (B, M, N)."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, rows, cols])


def strides(operands: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Numbers per position: 1, or the length of a form's vectors."""
    return tuple([v.shape[-1] if v.ndim == 3 else 1 for v in operands])


def _aligned(x: Tensor) -> Tensor:
    """x (B, M, D), contiguous, with rows of a multiple of 16 bytes at an address of such one."""
    missing = -x.shape[-1] % (16 // x.element_size())
    if missing:
        return functional.pad(x, (0, missing)).contiguous()
    x = x.contiguous()
    return x.clone() if x.storage_offset() * x.element_size() % 16 else x


def _product(vector: Tensor | None, norm: Tensor | None) -> Tensor | None:
    if vector is None or norm is None:
        return norm if vector is None else vector
    return vector * norm


def _operand(value: Tensor, stat: torch.dtype) -> Tensor:
    return value.to(stat if value.is_floating_point() else torch.int64).contiguous()


def _mirrored(call: PairCall) -> bool:
    """Whether s_ij = s_ji, and every channel has the same terms for (i, j) and (j, i)."""
    given = call.operands
    return (
        _same(given.row_scale, given.col_scale)
        and _same(given.row_bias, given.col_bias)
        and all(_even(call, c) for c in call.program.channels)
    )


def _even(call: PairCall, c: Channel) -> bool:
    if isinstance(c, SUM) and c.shift is not None:
        return False
    if any(t.op == "lt" for t in c.pairs):
        return False
    if any(t.kind == "col" or t.kind in ROW_TERMS for t in c.weight):
        return False
    names = {t.name for t in c.pairs}.union(*[t.names for t in c.weight])
    return all(_same(call.operand(ROW, name), call.operand(COL, name)) for name in names)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two vectors are one place in memory, or both missing."""
    if a is None or b is None:
        return a is b
    return a is b or (
        a.untyped_storage()._cdata == b.untyped_storage()._cdata
        and (a.storage_offset(), a.shape, a.stride(), a.dtype)
        == (b.storage_offset(), b.shape, b.stride(), b.dtype)
    )
