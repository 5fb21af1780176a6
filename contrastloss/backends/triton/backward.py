"""Gradients: the kernel that writes blocks of H, which :mod:`..h_blocks` multiplies, and the sums
over G."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import ROW, Axis
from ..call import Gradients, PairCall, mask
from ..h_blocks import HBlocks, dot_gradients, fp16_gain
from ..norms import tangential
from . import words
from .config import Config, choose, grid, precision
from .forward import add_slice
from .maths import along, score_gradient, shifted, weights
from .operands import KernelOperands, strides
from .tile import item, operands, products, scores

__all__ = ["pair_stats_backward"]


@triton.jit
def own(vector, HAS: tl.constexpr, place, valid, AXIS: tl.constexpr):
    """A channel's vector along its own axis; 0 if there is none."""
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
    """H of a tile whose rows i are along axis R. Sums along axis 0 of the tile are added to
    ``state``, sums along axis 1 to the slices ``by_col``."""
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
    """One channel's part of G; its vectors are along its own axis."""
    w = weights(P, words.channel(P, c, "group"), s, allowed, rows, cols, i, in_i, j, in_j, R)
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
    """Adds ``value`` to the sums of this kind and channel; returns the new ``state``."""
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
    """Adds a sum over this tile: to ``state`` if it is along axis 0 of the tile, otherwise to the
    slices."""
    if OWN == 0:  # one sum per row, over the columns
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
def h_block_kernel(
    h, x, y, scale, a, b, beta, gamma, rows, cols, stats, by_row, by_col, gain,
    m, n, i0, i1, j0, j1, across, down, ld, h_stride,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """H of rows [i0, i1) and columns [j0, j1), and the sums over these pairs that SUMS lists:
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
        o: KernelOperands,
        outputs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: frozenset[str],
        config: Config,
    ) -> None:
        self.o, self.grads, self.needs, self.config = o, grads, needs, config
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
        self.blocks = HBlocks(o.x, o.y, o.symmetric, config.block_n)
        self.m, self.n = self.blocks.m, self.blocks.n
        self.p, self.q = grid(self.blocks.rows, self.n, config, o.x.device)
        self.by_row = tuple(self._slices(s, 0, (len(o.x), self.q, self.m)) for s in self.sums)
        self.by_col = tuple(self._slices(s, 1, (len(o.x), self.p, self.n)) for s in self.sums)

    def _slices(self, what: words.SumWords, axis: int, shape: tuple[int, ...]) -> Tensor:
        """Zeros for partial sums. If the problem is not symmetric, only along the axis of the
        sum."""
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

    def run(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """dx and dy in ``dtype``, in a symmetric problem only dx. Other sums are written to the
        slices."""
        o = self.o
        gain = fp16_gain(self.grads, o.x.dtype)
        one = torch.ones((), dtype=torch.float32, device=o.x.device)

        def write(h: Tensor, i: slice, j: slice) -> None:
            self._launch(h, one if gain is None else gain, i, j)

        def finish(sums: Tensor, side: str, part: slice) -> Tensor:
            x, norms = (o.x, o.x_norm) if side == "x" else (o.y, o.y_norm)
            grad = sums if gain is None else sums / gain
            if norms is not None:  # the scores include them
                grad = tangential(x[:, part].float(), grad, norms[:, part, None])
            return grad.to(dtype)

        return self.blocks.gradients(self.needs, write, finish)

    def _launch(self, h: Tensor, gain: Tensor, i: slice, j: slice) -> None:
        o, config = self.o, self.config
        batch, _, d = o.x.shape
        h_block_kernel[(self.p, self.q, batch)](
            h, o.x, o.y, o.scale, o.a, o.b, o.beta, o.gamma, o.rows, o.cols,
            tuple(self.stats), self.by_row, self.by_col, gain,
            self.m, self.n, i.start, i.stop, j.start, j.stop, self.p, self.q,
            h.stride(1), h.stride(0),
            D=d, HAS=o.has, P=o.words, LIVE=self.live, SUMS=words.Words(self.sums),
            ROW_STRIDES=strides(o.rows), COL_STRIDES=strides(o.cols), SYMMETRIC=o.symmetric,
            PRECISION=precision(o), **config.options(d),
        )  # fmt: skip

    def total(self, k: int) -> Tensor:
        """The total of sum number k, (B, M) or (B, N)."""
        if self.o.symmetric:
            return self.by_row[k].sum(1) + self.by_col[k].sum(1)
        return (self.by_col if self.sums[k].axis else self.by_row)[k].sum(1)


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~..call.NAMES`), and those of all shifts."""
    o = KernelOperands.of(call)
    outputs, grads = [*map(call.add_batch, outputs)], [*map(call.add_batch, grads)]

    def of(config: Config) -> Pass:
        return Pass(o, outputs, grads, needs, config)

    job = of(choose(o, "backward", lambda config: of(config).run(call.x.dtype)))
    dx, dy = job.run(call.x.dtype)
    totals: dict[tuple, Tensor] = {what: job.total(k) for k, what in enumerate(job.sums)}
    found = {
        name: totals["bias", axis, -1]
        for axis, name in enumerate(("row_bias", "col_bias"))
        if name in needs
    }
    dots = (totals.get(("row dot", 0, -1)), totals.get(("col dot", 1, -1)))
    a = o.a if o.has[0] else None
    found |= dot_gradients(call, needs, *dots, a, (o.x_norm, o.y_norm))
    shifts: dict[tuple[Axis, str], Tensor] = {}
    for (what, _, k), value in totals.items():
        if what == "shift":
            channel: Any = o.channels[k]
            key = (channel.axis, channel.shift)
            shifts[key] = shifts[key] + value if key in shifts else value
    rows, cols = call.at_shifts(lambda axis, name: shifts[axis, name])
    return Gradients(x=dx, y=dy, **found, rows=rows, cols=cols).map(call.drop_batch)
