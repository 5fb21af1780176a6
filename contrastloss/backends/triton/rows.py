"""Kernels of single rows: norms before the tiles, gradients of x and y after them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..norms import EPS
from .config import ceil_div

__all__ = ["finished", "inverse_norms"]

#: numbers of a block of rows
BLOCK = 4096


@triton.jit(do_not_specialize=["m", "n"])
def norms_kernel(
    x, y, x_norm, y_norm, m, n, D: tl.constexpr, EPS: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """:func:`~..norms.inverse_norm` of the m rows of x and of the n rows of y."""
    if tl.program_id(0) < tl.cdiv(m, ROWS):
        block_norms(x, x_norm, tl.program_id(0), m, D, EPS, ROWS, WIDTH)
    else:
        block_norms(y, y_norm, tl.program_id(0) - tl.cdiv(m, ROWS), n, D, EPS, ROWS, WIDTH)


@triton.jit
def block_norms(
    x, out, block, rows, D: tl.constexpr, EPS: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    r = block.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    valid = (r < rows)[:, None] & (d < D)[None, :]
    v = tl.load(x + r[:, None] * D + d[None, :], mask=valid, other=0).to(tl.float32)
    top = tl.max(tl.abs(v), 1)
    bits = tl.maximum(top, EPS).to(tl.int32, bitcast=True) & 0x7F800000
    size = bits.to(tl.float32, bitcast=True)  # the power of two of the largest number
    v = tl.div_rn(v, tl.broadcast_to(size[:, None], v.shape))
    norm = tl.sqrt_rn(tl.sum(v * v, 1))
    least = tl.div_rn(tl.full(size.shape, EPS, tl.float32), size)
    norm = tl.where(norm < least, least, norm)  # NaN stays NaN
    inverse = tl.div_rn(tl.div_rn(tl.full(size.shape, 1.0, tl.float32), norm), size)
    tl.store(out + r, tl.where(top == 0, inverse * 0.0, inverse), mask=r < rows)


@triton.jit(do_not_specialize=["rows", "count", "x_item", "grad_item", "norm_item"])
def finish_kernel(
    x, grad, norms, gain, out, rows, count, x_item, grad_item, norm_item,
    COSINE: tl.constexpr, GAIN: tl.constexpr, D: tl.constexpr, OUT: tl.constexpr,
    EPS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The gradients of ``count`` rows of every batch item, in all ``rows``, from those of the unit
    vectors if COSINE (:func:`~..norms.tangential`), divided by ``gain`` if GAIN. OUT numbers of
    each D are written."""
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    z, i = r // count, r % count
    at, valid = i[:, None] * D + d[None, :], (r < rows)[:, None] & (d < D)[None, :]
    g = tl.load(grad + (z * grad_item)[:, None] + at, mask=valid, other=0)
    if GAIN:
        g = g / tl.load(gain)
    if COSINE:
        inverse = tl.load(norms + z * norm_item + i, mask=r < rows, other=0)
        v = tl.load(x + (z * x_item)[:, None] + at, mask=valid, other=0).to(tl.float32)
        u = v * inverse[:, None]
        # where the norm is below eps, it is a constant
        radial = tl.where(inverse < 1.0 / EPS, tl.sum(u * g, 1), 0.0)
        g -= u * radial[:, None]
    written = (r < rows)[:, None] & (d < OUT)[None, :]
    tl.store(out + r[:, None] * OUT + d[None, :], g.to(out.dtype.element_ty), mask=written)


def _blocks(d: int) -> tuple[int, int]:
    """(rows, width) of a block."""
    width = 1 << max(d - 1, 0).bit_length()
    return max(1, BLOCK // width), width


def inverse_norms(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """The inverse norms (B, M) and (B, N) of contiguous x (B, M, D) and y (B, N, D); twice the same
    for a missing y."""
    made = [torch.empty(v.shape[:2], dtype=torch.float32, device=x.device)
            for v in (x, y) if v is not None]  # fmt: skip
    m, n = len(x) * x.shape[1], 0 if y is None else y.shape[0] * y.shape[1]
    rows, width = _blocks(x.shape[2])
    if m + n:
        norms_kernel[(ceil_div(m, rows) + ceil_div(n, rows),)](
            x, x if y is None else y, made[0], made[-1], m, n,
            D=x.shape[2], EPS=EPS, ROWS=rows, WIDTH=width,
        )  # fmt: skip
    return made[0], made[-1]


def finished(
    sums: Tensor, x: Tensor, norms: Tensor | None, gain: Tensor | None, width: int,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The gradients (B, M, ``width``) of rows x (B, M, D), from the fp32 ``sums`` (B, M, D) and, if
    the scores include them, the inverse norms (B, M)."""
    batch, m, d = sums.shape
    out = torch.empty(batch, m, width, dtype=dtype, device=x.device)
    if out.numel():
        rows, block = _blocks(d)
        finish_kernel[(ceil_div(batch * m, rows),)](
            x, sums, x if norms is None else norms, sums if gain is None else gain, out,
            batch * m, m, x.stride(0), sums.stride(0), 0 if norms is None else norms.stride(0),
            COSINE=norms is not None, GAIN=gain is not None, D=d, OUT=width, EPS=EPS, ROWS=rows,
            WIDTH=block,
        )  # fmt: skip
    return out
