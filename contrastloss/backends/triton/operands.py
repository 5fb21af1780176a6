"""A call's tensors as kernel arguments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...channel import Channel
from ..call import PairCall
from ..h_blocks import inverse_norms
from .words import Words, encode

__all__ = ["KernelOperands", "strides"]


@dataclass
class KernelOperands:
    """A call with a batch dimension, ready for the kernels: x and y in ``compute_dtype``, all other
    tensors in the statistics' dtype, contiguous. With cosines, ``a`` and ``b`` include the inverse
    norms."""

    x: Tensor
    y: Tensor
    scale: Tensor
    a: Tensor
    b: Tensor
    beta: Tensor
    gamma: Tensor
    rows: tuple[Tensor, ...]
    cols: tuple[Tensor, ...]
    #: the program, and its channels
    words: Words
    channels: tuple[Channel, ...]
    symmetric: bool
    #: which of a, b, beta and gamma are given; x is passed in place of the others
    has: tuple[bool, ...]
    x_norm: Tensor | None
    y_norm: Tensor | None

    @staticmethod
    def of(call: PairCall) -> KernelOperands:
        call = call.batched()
        given = call.operands
        stat = call.stat_dtype
        x = call.x.to(call.compute_dtype).contiguous()
        y = x if call.y is None else call.y.to(call.compute_dtype).contiguous()
        x_norm = inverse_norms(x) if call.cosine else None
        y_norm = x_norm if call.y is None else inverse_norms(y) if call.cosine else None
        a, b = _product(given.row_scale, x_norm), _product(given.col_scale, y_norm)
        vectors = (a, b, given.row_bias, given.col_bias)
        scale = given.scale
        if scale is None:
            scale = torch.ones((), dtype=stat, device=x.device)
        filled = [x if v is None else v.to(stat).contiguous() for v in vectors]
        return KernelOperands(
            x=x,
            y=y,
            scale=scale.to(x.device),
            a=filled[0],
            b=filled[1],
            beta=filled[2],
            gamma=filled[3],
            rows=tuple(_operand(v, stat) for v in given.rows),
            cols=tuple(_operand(v, stat) for v in given.cols),
            words=encode(call.program, strides(given.rows)),
            channels=call.program.channels,
            symmetric=call.y is None,
            has=tuple([v is not None for v in vectors]),
            x_norm=x_norm,
            y_norm=y_norm,
        )


def strides(operands: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Numbers per position: 1, or the length of a form's vectors."""
    return tuple(v.shape[-1] if v.ndim == 3 else 1 for v in operands)


def _product(vector: Tensor | None, norm: Tensor | None) -> Tensor | None:
    if vector is None or norm is None:
        return norm if vector is None else vector
    return vector * norm


def _operand(value: Tensor, stat: torch.dtype) -> Tensor:
    return value.to(stat if value.is_floating_point() else torch.int64).contiguous()
