"""What both kernels need of a tile: products, scores, and the operands of a batch item."""

from __future__ import annotations

import triton
import triton.language as tl

from .maths import along

__all__ = [
    "item",
    "operands",
    "products",
    "scores",
]


@triton.jit
def item(vectors, STRIDES: tl.constexpr, z, n):
    """The operands of batch item z; STRIDES holds the numbers per position, 1 or a form's
    extent."""
    found = ()
    for k in tl.static_range(len(STRIDES)):
        found = found + (vectors[k] + z * n * STRIDES[k],)  # type: ignore[assignment]
    return found


@triton.jit
def operands(
    x, y, a, b, beta, gamma, rows, cols, z, m, n, D: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr,
):  # fmt: skip
    """All operands, of batch item z."""
    return (
        x + z * m * D, y + z * n * D, a + z * m, b + z * n, beta + z * m, gamma + z * n,
        item(rows, ROW_STRIDES, z, m), item(cols, COL_STRIDES, z, n),
    )  # fmt: skip


@triton.jit
def products(
    x, y, i0, i1, j0, j1, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr,
    BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """<x_i, y_j> for rows [i0, i1) and columns [j0, j1), in fp32, unrounded. Offsets within a tile
    are int32: pointers would take twice as many registers."""
    zero = tl.zeros((), tl.int64)
    x += (zero + i0) * D
    y += (zero + j0) * D
    r, c, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    left, right = r[:, None] * D + d[None, :], c[None, :] * D + d[:, None]
    in_r, in_c = (i0 + r < i1)[:, None], (j0 + c < j1)[None, :]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, D, BLOCK_D):
        if D % BLOCK_D == 0:
            u = tl.load(x + k + left, mask=in_r, other=0)
            v = tl.load(y + k + right, mask=in_c, other=0)
        else:
            u = tl.load(x + k + left, mask=in_r & (d + k < D)[None, :], other=0)
            v = tl.load(y + k + right, mask=in_c & (d + k < D)[:, None], other=0)
        acc = tl.dot(u, v, acc, input_precision=PRECISION)
    return acc


@triton.jit
def scores(dot, scale, a, b, beta, gamma, HAS: tl.constexpr, i, in_i, j, in_j, R: tl.constexpr):
    """scale a_i b_j <x_i, y_j> + beta_i + gamma_j; rows i are along axis R."""
    C: tl.constexpr = 1 - R
    s = dot * scale
    if HAS[0]:
        s *= along(tl.load(a + i, mask=in_i, other=0), R)
    if HAS[1]:
        s *= along(tl.load(b + j, mask=in_j, other=0), C)
    if HAS[2]:
        s += along(tl.load(beta + i, mask=in_i, other=0), R)
    if HAS[3]:
        s += along(tl.load(gamma + j, mask=in_j, other=0), C)
    return s
