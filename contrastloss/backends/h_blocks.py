"""The gradients of x and y from blocks of H, which a kernel writes and library products multiply.

A kernel writes H_ij = scale a_i b_j G_ij for a block of pairs, in the dtype of the products.
Library matrix products then add up dx += H y and dy += H^T x in the statistics' dtype. The size of
a block is bounded, so memory does not grow with M N.

A block of rows meets all columns before the next block of rows begins. Its part of dx is then final
and is rounded, so only the columns need sums of full length.

In a symmetric problem only blocks on and above the diagonal are visited. Their H holds both
orientations, so the two products together give the gradient of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .call import PairCall, stat_dtype, widest

__all__ = ["HBlocks", "add_product", "allows_tf32", "dot_gradients", "fp16_gain", "parts"]

#: elements of H in memory at a time
ELEMENTS = 1 << 27
#: rows per block
ROWS = 4096


class HBlocks:
    """The blocks of H for x (B, M, D) and y (B, N, D), which have the dtype of the products; y is x
    in a symmetric problem. Widths are multiples of ``step``; blocks are ``share`` times smaller
    than they may be."""

    def __init__(self, x: Tensor, y: Tensor, symmetric: bool, step: int, share: int = 1) -> None:
        self.x, self.y, self.symmetric = x, y, symmetric
        self.m, self.n = x.shape[1], y.shape[1]
        self.rows = max(1, min(ROWS, self.m))
        cols = ELEMENTS // share // max(1, x.shape[0] * self.rows) // step * step
        self.cols = max(1, min(max(cols, step), self.n))

    def buffer(self, dtype: torch.dtype) -> Tensor:
        """Memory for a block. Rows begin at multiples of 16 numbers, so that kernels may write 16
        bytes at a time."""
        shape = self.x.shape[0], self.rows, -(-self.cols // 16) * 16
        return torch.empty(shape, dtype=dtype, device=self.x.device)

    @property
    def single(self) -> bool:
        """Whether one block has all pairs."""
        return self.rows >= self.m and self.cols >= self.n

    def gradients(
        self,
        needs: frozenset[str],
        write: Callable[[Tensor, slice, slice], None],
        finish: Callable[[Tensor, str, slice], Tensor],
    ) -> tuple[Tensor | None, Tensor | None]:
        """dx and dy, in a symmetric problem only dx; None where ``needs`` has no "x" or "y".

        ``write(h, i, j)`` fills h (B, rows, columns) for rows i and columns j. ``finish(sums, side,
        part)`` turns the sums of H times the other side into the gradient of a part of "x" or "y".
        """
        x, y, dtype = self.x, self.y, stat_dtype(self.x)
        buffer = self.buffer(x.dtype)
        col_sums, dx = None, None
        if ("x" if self.symmetric else "y") in needs:
            # in a symmetric problem rows and columns add to the same sums in mixed order
            col_sums = (torch.zeros_like if self.symmetric else torch.empty_like)(y, dtype=dtype)
        for i in parts(0, self.m, self.rows):
            row_sums = None
            if col_sums is not None and self.symmetric:
                row_sums = col_sums[:, i]
            elif "x" in needs:
                row_sums = torch.empty_like(x[:, i], dtype=dtype)
            start = i.start if self.symmetric else 0
            for j in parts(start, self.n, self.cols):
                h = buffer[:, : i.stop - i.start, : j.stop - j.start]
                if h.numel():
                    write(h, i, j)
                if row_sums is not None:
                    add_product(row_sums, h, y[:, j], fresh=j.start == 0 and not self.symmetric)
                if col_sums is not None:
                    fresh = i.start == 0 and not self.symmetric
                    add_product(col_sums[:, j], h.mT, x[:, i], fresh=fresh)
            if row_sums is not None:
                dx = placed(dx, finish(row_sums, "x", i), i, self.m)
        dy = None
        if col_sums is not None and not self.symmetric:
            for j in parts(0, self.n, ROWS):
                dy = placed(dy, finish(col_sums[:, j], "y", j), j, self.n)
        return dx, dy


def parts(start: int, stop: int, step: int) -> list[slice]:
    """[start, stop) in steps; one empty slice if there is nothing."""
    return [slice(k, min(k + step, stop)) for k in range(start, max(stop, start + 1), step)]


def placed(whole: Tensor | None, value: Tensor, part: slice, length: int) -> Tensor:
    """``whole`` with ``value`` in its place, or ``value`` itself if it is the whole."""
    if part.stop - part.start == length:
        return value
    if whole is None:
        whole = value.new_empty(value.shape[0], length, value.shape[2])
    whole[:, part] = value
    return whole


def add_product(total: Tensor, h: Tensor, v: Tensor, fresh: bool) -> None:
    """total += h @ v, or total = h @ v, in the dtype of ``total``."""
    beta = 0 if fresh else 1
    if h.dtype == total.dtype:
        total.baddbmm_(h, v, beta=beta)
    elif h.device.type == "cuda":
        torch.baddbmm(total, h, v, beta=beta, out_dtype=total.dtype, out=total)
    else:
        total.baddbmm_(h.to(total.dtype), v.to(total.dtype), beta=beta)


def allows_tf32() -> bool:
    """Whether the user lets products of fp32 be rounded to TF32, as the library products of a
    backward pass then are; by either of torch's two interfaces."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def fp16_gain(grads: Iterable[Tensor | None], dtype: torch.dtype) -> Tensor | None:
    """A power of two that scales H into the range of fp16, from the gradients of the statistics;
    None for dtypes that do not need it."""
    if dtype != torch.float16:
        return None
    tops = [g.abs().amax() for g in grads if g is not None and g.numel()]
    if not tops:
        return None
    top = torch.stack(tops).amax()
    return torch.where(top > 0, torch.exp2(-torch.log2(top).ceil()), 1.0)


def dot_gradients(
    call: PairCall,
    needs: frozenset[str],
    row_dot: Tensor | None,
    col_dot: Tensor | None,
    a: Tensor | None,
    norms: tuple[Tensor | None, Tensor | None],
) -> dict[str, Tensor]:
    """The gradients of scale, row_scale and col_scale, from sum_j G_ij b_j <x_i, y_j> and sum_i
    G_ij a_i <x_i, y_j>. With cosines, a and b include the inverse ``norms``."""
    found, scale = {}, call.operands.scale
    if "scale" in needs and row_dot is not None:
        dots = row_dot.to(widest(row_dot))
        found["scale"] = (dots if a is None else dots * a).sum().to(call.stat_dtype)
    for name, dot, norm in (("row_scale", row_dot, norms[0]), ("col_scale", col_dot, norms[1])):
        if name in needs and dot is not None:
            value = dot if scale is None else dot * scale
            found[name] = value if norm is None else value * norm
    return found
