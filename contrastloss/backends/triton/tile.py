"""What both kernels need of a tile: products, scores, and the operands of a batch item."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from . import words
from .maths import along

__all__ = ["Vectors", "interior", "item", "listed", "of_item", "products", "scores"]


class Vectors(NamedTuple):
    """A call's operands besides x and y, in the statistics' dtype or int64, one item of a batch
    after the other. ``a`` and ``b`` include the inverse norms."""

    scale: Tensor
    a: Tensor
    b: Tensor
    beta: Tensor
    gamma: Tensor
    rows: tuple[Tensor, ...]
    cols: tuple[Tensor, ...]


@triton.jit
def item(vectors, STRIDES: tl.constexpr, z, n):
    """The operands of batch item z; STRIDES holds the numbers per position, 1 or a form's
    extent."""
    found = ()
    for k in tl.static_range(len(STRIDES)):
        found = found + (vectors[k] + z * n * STRIDES[k],)  # type: ignore[assignment]
    return found


@triton.jit
def of_item(v, z, m, n, ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr):
    """The vectors of batch item z: (a, b, beta, gamma), rows, cols."""
    return (
        (v.a + z * m, v.b + z * n, v.beta + z * m, v.gamma + z * n),
        item(v.rows, ROW_STRIDES, z, m),
        item(v.cols, COL_STRIDES, z, n),
    )


@triton.jit
def interior(
    P: tl.constexpr, SYMMETRIC: tl.constexpr, i0, i1, j0, j1, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Whether all pairs of the tile at (i0, j0) are in the problem, and no position is in both a
    row and a column if it matters."""
    whole = (i0 + BLOCK_M <= i1) & (j0 + BLOCK_N <= j1)
    if SYMMETRIC:
        whole &= i0 + BLOCK_M <= j0
    elif words.positional(P):
        whole &= (i0 + BLOCK_M <= j0) | (j0 + BLOCK_N <= i0)
    return whole


@triton.jit
def products(
    x, y, z, m, n, i0, i1, j0, j1, HOW: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """<x_i, y_j> for rows [i0, i1) and columns [j0, j1) of batch item z, in fp32, unrounded. x and
    y are tensor descriptors (HOW is "tma") or pointers. Offsets within a tile are int32: pointers
    would take twice as many registers."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if HOW == "tma":
        for k in range(0, D, BLOCK_D):
            u = x.load([z, i0, k]).reshape(BLOCK_M, BLOCK_D)
            v = y.load([z, j0, k]).reshape(BLOCK_N, BLOCK_D)
            acc = tl.dot(u, v.T, acc, input_precision=PRECISION)
    else:
        wide = tl.zeros((), tl.int64) + z
        x += (wide * m + i0) * D
        y += (wide * n + j0) * D
        r, c, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
        left, right = r[:, None] * D + d[None, :], c[None, :] * D + d[:, None]
        in_r, in_c = (i0 + r < i1)[:, None], (j0 + c < j1)[None, :]
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
def listed(panel, z, stride, ld, i, j, rows, cols, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The products at row i and column j of a panel (B, rows, cols) that a library has computed."""
    r, c = tl.arange(0, BLOCK_M)[:, None], tl.arange(0, BLOCK_N)[None, :]
    corner = panel + z.to(tl.int64) * stride + (i + tl.zeros((), tl.int64)) * ld + j
    return tl.load(corner + r * ld + c, mask=(i + r < rows) & (j + c < cols), other=0)


@triton.jit
def scores(dot, scale, vectors, HAS: tl.constexpr, at, inside, R: tl.constexpr):
    """scale a_i b_j <x_i, y_j> + beta_i + gamma_j; the rows of the problem are along axis R of the
    tile. HAS says which of a, b, beta and gamma there are."""
    C: tl.constexpr = 1 - R
    if HAS[0]:
        s = dot * along(tl.load(vectors[0] + at[R], mask=inside[R], other=0) * scale, R)
    else:
        s = dot * scale
    if HAS[1]:
        s *= along(tl.load(vectors[1] + at[C], mask=inside[C], other=0), C)
    if HAS[2]:
        s += along(tl.load(vectors[2] + at[R], mask=inside[R], other=0), R)
    if HAS[3]:
        s += along(tl.load(vectors[3] + at[C], mask=inside[C], other=0), C)
    return s
