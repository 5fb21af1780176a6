"""Gradients. One kernel writes H of a panel of pairs, H_ij = scale a_i b_j G_ij, in the dtype of
the products, and library products take it to x and y: dx += H y, dy += H^T x, added up in fp32. A
panel is bounded, so memory does not grow with M N.

A slab of rows meets all columns before the next slab does. Its part of dx is final then and is
rounded, so that only the columns have fp32 sums of their full length.

Of a symmetric problem only panels above the diagonal are visited. Their H holds both orientations,
so the two products together are the gradient of x, whose rows are the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import COL, ROW, Axis
from ..call import Gradients, PairCall, mask, tangential
from . import words
from .config import Config, choose, grid, precision
from .forward import add_slice
from .maths import along, score_gradient, shifted, weights
from .program import Operands, strides
from .tile import item, operands, products, scores

__all__ = ["pair_stats_backward"]

#: elements of H that are held at once
PANEL = 1 << 27
#: rows of a slab
SLAB = 4096


@triton.jit
def own(vector, HAS: tl.constexpr, place, valid, AXIS: tl.constexpr):
    """A channel's vector along its own axis; 0 where there is none."""
    if HAS:
        return along(tl.load(vector + place, mask=valid, other=0), AXIS)
    else:
        return 0.0


@triton.jit
def gradient(
    P: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr, HAS: tl.constexpr,
    dot, scale, a, b, beta, gamma, rows, cols, stats, state, by_col, slot, allowed,
    i, in_i, j, in_j, R: tl.constexpr,
):  # fmt: skip
    """H of a tile with rows i along axis R; what it adds to the sums that lie along axis 0 of the
    tile joins ``state``, along axis 1 the slices ``by_col``."""
    s = scores(dot, scale, a, b, beta, gamma, HAS, i, in_i, j, in_j, R)
    total = tl.zeros(dot.shape, tl.float32)
    for c in tl.static_range(words.channels(P)):
        if words.live(LIVE, c, 0) or words.live(LIVE, c, 1):
            part = channel_gradient(
                P, c, LIVE, stats[c], s, allowed, rows, cols, i, in_i, j, in_j, R
            )  # fmt: skip
            total += part
            state = sum_up(SUMS, "shift", c, -part, state, by_col, slot, i, in_i, j, in_j, R)
    state = sum_up(SUMS, "bias", -1, total, state, by_col, slot, i, in_i, j, in_j, R)
    by_b = total * dot
    by_a = by_b
    h = total * scale
    if HAS[0]:
        left = along(tl.load(a + i, mask=in_i, other=0), R)
        by_a *= left
        h *= left
    if HAS[1]:
        right = along(tl.load(b + j, mask=in_j, other=0), 1 - R)
        by_b *= right
        h *= right
    state = sum_up(SUMS, "row dot", -1, by_b, state, by_col, slot, i, in_i, j, in_j, R)
    state = sum_up(SUMS, "col dot", -1, by_a, state, by_col, slot, i, in_i, j, in_j, R)
    return h, state


@triton.jit
def channel_gradient(
    P: tl.constexpr, c: tl.constexpr, LIVE: tl.constexpr, stats, s, allowed, rows, cols,
    i, in_i, j, in_j, R: tl.constexpr,
):  # fmt: skip
    """The part of one channel, whose vectors lie along its own axis."""
    w = weights(P, words.channel(P, c, "group"), allowed, rows, cols, i, in_i, j, in_j, R)
    u = shifted(P, c, s, rows, cols, i, in_i, j, in_j, R)
    if words.channel(P, c, "axis") == 0:
        part = from_stats(P, c, LIVE, stats, s, w, u, i, in_i, j, R)
    else:
        part = from_stats(P, c, LIVE, stats, s, w, u, j, in_j, i, 1 - R)
    return tl.where(allowed, part, 0.0)


@triton.jit
def from_stats(
    P: tl.constexpr, c: tl.constexpr, LIVE: tl.constexpr, stats, s, w, u, place, valid, other,
    AXIS: tl.constexpr,
):  # fmt: skip
    KIND: tl.constexpr = words.channel(P, c, "kind")
    mean = own(stats[0], KIND == "EXPECT", place, valid, AXIS)
    lse = own(stats[1], KIND == "LSE" or KIND == "EXPECT", place, valid, AXIS)
    at = own(stats[2], KIND == "MAX", place, valid, AXIS)
    grad = own(stats[3], words.live(LIVE, c, 0), place, valid, AXIS)
    grad_lse = own(stats[4], words.live(LIVE, c, 1), place, valid, AXIS)
    return score_gradient(P, c, s, w, u, mean, lse, at, grad, grad_lse, along(other, 1 - AXIS))


@triton.jit
def sum_up(
    SUMS: tl.constexpr, WHAT: tl.constexpr, CHANNEL: tl.constexpr, value, state, by_col, slot,
    i, in_i, j, in_j, R: tl.constexpr,
):  # fmt: skip
    """``state`` with ``value`` summed into those of the sums that are of this kind."""
    new = ()
    for k in tl.static_range(words.sums(SUMS)):
        if words.summed(SUMS, k, "what") == WHAT and words.summed(SUMS, k, "channel") == CHANNEL:
            new = new + (  # type: ignore[assignment]
                added(
                    words.summed(SUMS, k, "axis"), value, state[k], by_col[k], slot,
                    i, in_i, j, in_j, R,
                ),
            )  # fmt: skip
        else:
            new = new + (state[k],)  # type: ignore[assignment]
    return new


@triton.jit
def added(OWN: tl.constexpr, value, state, slices, slot, i, in_i, j, in_j, R: tl.constexpr):
    """``state`` with the sums over this tile that lie along its axis 0; others go to the slices."""
    if OWN == 0:  # one per row: over the columns
        total = tl.sum(value, 1 - R)
        if R == 0:
            return state + total
        else:
            add_slice((slices,), "SUM", (total,), slot + i, in_i)
            return state
    else:
        total = tl.sum(value, R)
        if R == 0:
            add_slice((slices,), "SUM", (total,), slot + j, in_j)
            return state
        else:
            return state + total


@triton.jit
def panel_kernel(
    h, x, y, scale, a, b, beta, gamma, rows, cols, stats, by_row, by_col, gain,
    m, n, i0, i1, j0, j1, across, down, ld, h_stride,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """H of rows [i0, i1) and columns [j0, j1), and the sums over these pairs of what SUMS lists:
    (what, axis, channel)."""
    p, q, z = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, y, a, b, beta, gamma, rows, cols = operands(
        x, y, a, b, beta, gamma, rows, cols, z, m, n, D, ROW_STRIDES, COL_STRIDES
    )
    h += z * h_stride
    own_stats = ()
    for c in tl.static_range(words.channels(P)):
        own_stats = own_stats + (  # type: ignore[assignment]
            item(stats[c], (1, 1, 1, 1, 1), z, m if words.channel(P, c, "axis") == 0 else n),
        )
    scale = tl.load(scale)
    gain = tl.load(gain)
    slot = (z * across + p) * n
    for block in range(p, tl.cdiv(i1 - i0, BLOCK_M), across):
        i = i0 + block * BLOCK_M + tl.arange(0, BLOCK_M)
        in_i = i < i1
        state = ()
        for _ in tl.static_range(words.sums(SUMS)):
            state = state + (tl.zeros((BLOCK_M,), tl.float32),)  # type: ignore[assignment]
        for column in range(q, tl.cdiv(j1 - j0, BLOCK_N), down):
            j = j0 + column * BLOCK_N + tl.arange(0, BLOCK_N)
            in_j = j < j1
            dot = products(
                x, y, i0 + block * BLOCK_M, i1, j0 + column * BLOCK_N, j1, BLOCK_M, BLOCK_N, D,
                BLOCK_D, PRECISION,
            )  # fmt: skip
            allowed = in_i[:, None] & in_j[None, :]
            if SYMMETRIC:
                allowed = allowed & (i[:, None] < j[None, :])
            value, state = gradient(
                P, LIVE, SUMS, HAS, dot, scale, a, b, beta, gamma, rows, cols, own_stats, state,
                by_col, slot, allowed, i, in_i, j, in_j, 0,
            )  # fmt: skip
            if SYMMETRIC:
                other, state = gradient(
                    P, LIVE, SUMS, HAS, dot, scale, a, b, beta, gamma, rows, cols, own_stats,
                    state, by_col, slot, allowed, j, in_j, i, in_i, 1,
                )  # fmt: skip
                value += other
            at = (i - i0).to(tl.int64)[:, None] * ld + (j - j0)[None, :]
            inside = in_i[:, None] & in_j[None, :]
            tl.store(h + at, (value * gain).to(h.dtype.element_ty), mask=inside)
        for k in tl.static_range(words.sums(SUMS)):
            if SYMMETRIC or words.summed(SUMS, k, "axis") == 0:
                at = by_row[k] + (z * down + q) * m + i
                tl.store(at, tl.load(at, mask=in_i, other=0) + state[k], mask=in_i)


class Pass:
    """One backward pass."""

    def __init__(
        self,
        o: Operands,
        outputs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: frozenset[str],
        config: Config,
    ) -> None:
        self.o, self.needs, self.config = o, needs, config
        self.stats: list[tuple[Tensor, ...]] = []
        self.live = 0
        values, given = iter(outputs), iter(grads)
        for k, channel in enumerate(o.channels):
            kind, grad_lse = channel.kind, None
            first, grad = next(values), next(given)
            mean, lse, at = (first if kind == k else None for k in ("EXPECT", "LSE", "MAX"))
            if kind == "MAX":
                at, _ = next(values), next(given)
            if kind == "EXPECT":
                lse, grad_lse = next(values), next(given)
            self.live |= mask([grad is not None, grad_lse is not None]) << 2 * k
            at = None if at is None else at.to(torch.int32)
            vectors = (mean, lse, at, grad, grad_lse)
            self.stats.append(tuple(o.x if v is None else v.contiguous() for v in vectors))
        self.sums = self._sums()
        batch, m, _ = o.x.shape
        self.m, self.n = m, o.y.shape[1]
        self.p, self.q = grid(min(m, SLAB), self.n, config, o.x.device)
        self.by_row = tuple(self._slices(s, 0, (batch, self.q, m)) for s in self.sums)
        self.by_col = tuple(self._slices(s, 1, (batch, self.p, self.n)) for s in self.sums)

    def _slices(self, what: words.SumWords, axis: int, shape: tuple[int, ...]) -> Tensor:
        """Zeros; of a problem that is not symmetric only along the axis of the sum."""
        if self.o.symmetric or what.axis == axis:
            return torch.zeros(shape, dtype=torch.float32, device=self.o.x.device)
        return self.o.scale

    def _sums(self) -> tuple[words.SumWords, ...]:
        found = []
        for axis, name in ((0, "row"), (1, "col")):
            if f"{name}_bias" in self.needs:
                found.append(words.SumWords("bias", axis, -1))
            if f"{name}_scale" in self.needs or (axis == 0 and "scale" in self.needs):
                found.append(words.SumWords(f"{name} dot", axis, -1))
        for k, channel in enumerate(self.o.channels):
            if getattr(channel, "shift", None) is not None:
                found.append(words.SumWords("shift", 0 if channel.axis == ROW else 1, k))
        return tuple(found)

    def panel(self) -> tuple[int, int]:
        """Rows and columns of H that are held at once."""
        rows, step = max(1, min(SLAB, self.m)), self.config.block_n
        cols = PANEL // max(1, self.o.x.shape[0] * rows) // step * step
        return rows, max(1, min(max(cols, step), self.n))

    def run(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """dx and dy in ``dtype``, of a symmetric problem dx alone; sums go to the slices."""
        o, gain, (rows, cols) = self.o, self._gain(), self.panel()
        panel = o.x.new_empty(o.x.shape[0], rows, cols)
        dx = torch.empty_like(o.x, dtype=dtype) if "x" in self.needs else None
        wanted = ("x" if o.symmetric else "y") in self.needs
        columns = torch.zeros_like(o.y, dtype=torch.float32) if wanted else None
        for i in parts(0, self.m, rows):
            x, slab = o.x[:, i], None
            if columns is not None and o.symmetric:
                slab = columns[:, i]
            elif dx is not None:
                slab = torch.zeros_like(x, dtype=torch.float32)
            for j in parts(i.start if o.symmetric else 0, self.n, cols):
                h = panel[:, : i.stop - i.start, : j.stop - j.start]
                self._launch(h, gain, i, j)
                if slab is not None:
                    add_product(slab, h, o.y[:, j])
                if columns is not None:
                    add_product(columns[:, j], h.mT, x)
            if dx is not None and slab is not None:
                dx[:, i] = raw(slab / gain, x, o.x_norm, i)
        if columns is None or o.symmetric:
            return dx, None
        dy = columns if columns.dtype == dtype else torch.empty_like(o.y, dtype=dtype)
        for j in parts(0, self.n, SLAB):
            dy[:, j] = raw(columns[:, j] / gain, o.y[:, j], o.y_norm, j)
        return dx, dy

    def _gain(self) -> Tensor:
        """A power of two that lifts H into the range of fp16; 1 where the range is no matter."""
        one = torch.ones((), dtype=torch.float32, device=self.o.x.device)
        if self.o.x.dtype != torch.float16:
            return one
        grads = [g for vectors in self.stats for g in vectors[3:]]
        grads = [g for k, g in enumerate(grads) if self.live >> k & 1 and g.numel()]
        tops = [g.abs().amax() for g in grads]
        if not tops:
            return one
        top = torch.stack(tops).amax()
        return torch.where(top > 0, torch.exp2(-torch.log2(top).ceil()), one)

    def _launch(self, h: Tensor, gain: Tensor, i: slice, j: slice) -> None:
        o, config = self.o, self.config
        batch, _, d = o.x.shape
        panel_kernel[(self.p, self.q, batch)](
            h, o.x, o.y, o.scale, o.a, o.b, o.beta, o.gamma, o.rows, o.cols,
            tuple(self.stats), self.by_row, self.by_col, gain,
            self.m, self.n, i.start, i.stop, j.start, j.stop, self.p, self.q,
            h.stride(1), h.stride(0),
            D=d, HAS=o.has, P=o.words, LIVE=self.live, SUMS=words.Words(self.sums),
            ROW_STRIDES=strides(o.rows), COL_STRIDES=strides(o.cols), SYMMETRIC=o.symmetric,
            PRECISION=precision(o), **config.options(d),
        )  # fmt: skip

    def total(self, k: int) -> Tensor:
        """One of the sums, (B, M) or (B, N)."""
        if self.o.symmetric:
            return self.by_row[k].sum(1) + self.by_col[k].sum(1)
        return (self.by_col if self.sums[k].axis else self.by_row)[k].sum(1)


def parts(start: int, stop: int, step: int) -> list[slice]:
    return [slice(k, min(k + step, stop)) for k in range(start, stop, step)]


def add_product(total: Tensor, h: Tensor, v: Tensor) -> None:
    """total += h @ v, in fp32."""
    if h.device.type == "cuda" and h.dtype != torch.float32:
        torch.baddbmm(total, h, v, out_dtype=torch.float32, out=total)
    else:
        total.baddbmm_(h.float(), v.float())


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (of :attr:`Gradients.NAMES`), and those of all shifts."""
    o = Operands.of(call)
    outputs, grads = [*map(call.lift, outputs)], [*map(call.lift, grads)]

    def of(config: Config) -> Pass:
        return Pass(o, outputs, grads, needs, config)

    job = of(choose(o, "backward", lambda config: of(config).run(call.x.dtype)))
    found = Gradients(*job.run(call.x.dtype))
    totals: dict[tuple, Tensor] = {what: job.total(k) for k, what in enumerate(job.sums)}
    if "row_bias" in needs:
        found.row_bias = totals["bias", 0, -1]
    if "col_bias" in needs:
        found.col_bias = totals["bias", 1, -1]
    if "scale" in needs:
        dots = totals["row dot", 0, -1].double()
        found.scale = (dots * o.a if o.has[0] else dots).sum().to(call.stat_dtype)
    if "row_scale" in needs:
        found.row_scale = _scaled(totals["row dot", 0, -1] * o.scale, o.x_norm)
    if "col_scale" in needs:
        found.col_scale = _scaled(totals["col dot", 1, -1] * o.scale, o.y_norm)
    shifts: dict[tuple[Axis, str], Tensor] = {}
    for (what, _, k), value in totals.items():
        if what == "shift":
            channel: Any = o.channels[k]
            key = (channel.axis, channel.shift)
            shifts[key] = shifts[key] + value if key in shifts else value
    found.row_shifts = tuple(shifts[ROW, name] for name in call.program.shifts(ROW))
    found.col_shifts = tuple(shifts[COL, name] for name in call.program.shifts(COL))
    return found.each(call.lower)


def _scaled(value: Tensor, norm: Tensor | None) -> Tensor:
    return value if norm is None else value * norm


def raw(grad: Tensor, x: Tensor, norms: Tensor | None, part: slice) -> Tensor:
    """From the gradient through the products to that of a part of x, whose norm is part of the
    scores."""
    return grad if norms is None else tangential(x.float(), grad, norms[:, part, None])
