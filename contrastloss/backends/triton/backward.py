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
from ..call import Gradients, PairCall
from ..h_blocks import HBlocks, add_product, dot_gradients, fp16_gain
from . import words
from .config import Config, choose, grid, precision
from .maths import NOTHING, along, pairs_of
from .operands import KernelOperands, described, strides
from .rows import finished
from .shares import prepared
from .slopes import view_gradient
from .tile import interior, item, listed, of_item, products, scores

__all__ = ["pair_stats_backward"]


@triton.jit
def own(
    vectors, CHANNEL: tl.constexpr, KIND: tl.constexpr, at, inside, LIVE: tl.constexpr,
    SHARED: tl.constexpr,
):  # fmt: skip
    """The vectors of a channel that its gradient needs, along its own axis: see slopes.py. Nothing
    without a channel."""
    if CHANNEL < 0:
        return ()
    else:
        v = vectors[CHANNEL]
        zero = tl.zeros(at.shape, tl.float32)
        mean, lse, place, grad, grad_lse, shared = zero, zero, at, zero, zero, zero
        if KIND == "EXPECT":
            mean = tl.load(v[0] + at, mask=inside, other=0)
        if KIND == "MAX":
            place = tl.load(v[2] + at, mask=inside, other=-1)
        if not (KIND == "LSE" and SHARED) and words.live(LIVE, CHANNEL, 0):
            grad = tl.load(v[3] + at, mask=inside, other=0)
        if words.live(LIVE, CHANNEL, 1):
            grad_lse = tl.load(v[4] + at, mask=inside, other=0)
        if KIND == "LSE" or KIND == "EXPECT":
            if SHARED:
                shared = tl.load(v[5] + at, mask=inside, other=0)
            else:
                lse = tl.load(v[1] + at, mask=inside, other=NOTHING)
        return (mean, lse, place, grad, grad_lse, shared)


@triton.jit
def gradient(
    P: tl.constexpr, STEP: tl.constexpr, QUICK: tl.constexpr, LIVE: tl.constexpr,
    SUMS: tl.constexpr, HAS: tl.constexpr, dot, scale, vectors, rows, cols, stats, tops, state,
    by_col, slot, allowed, at, inside,
):  # fmt: skip
    """H of a tile in one step. Sums along axis 0 of the tile are added to ``state``, sums along
    axis 1 to the slices ``by_col``."""
    R: tl.constexpr = words.orientation(P, STEP)
    s = scores(dot, scale, vectors, HAS, at, inside, R)
    total = tl.zeros(dot.shape, tl.float32)
    for k in tl.static_range(words.views(P, STEP)):
        if words.counts(P, STEP, k, LIVE, QUICK):
            part = view_part(
                P, STEP, k, QUICK, LIVE, s, rows, cols, stats, tops, allowed, at, inside
            )  # fmt: skip
            total += part
            state = sum_up(
                SUMS, "shift", words.single(P, STEP, k), -part, state, by_col, slot, at, inside, R
            )  # fmt: skip
    state = sum_up(SUMS, "bias", -1, total, state, by_col, slot, at, inside, R)
    by_col_scale = total
    by_row_scale = total
    if HAS[0]:
        a = tl.load(vectors[0] + at[R], mask=inside[R], other=0)
        by_col_scale *= along(a, R)
        scale *= along(a, R)
    if HAS[1]:
        b = tl.load(vectors[1] + at[1 - R], mask=inside[1 - R], other=0)
        by_row_scale *= along(b, 1 - R)
    state = sum_up(SUMS, "row dot", -1, by_row_scale * dot, state, by_col, slot, at, inside, R)
    state = sum_up(SUMS, "col dot", -1, by_col_scale * dot, state, by_col, slot, at, inside, R)
    return by_row_scale * scale, state


@triton.jit
def view_part(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, QUICK: tl.constexpr, LIVE: tl.constexpr,
    s, rows, cols, stats, tops, allowed, at, inside,
):  # fmt: skip
    """G of a view of a tile."""
    KIND: tl.constexpr = words.view(P, STEP, K, "kind")
    FIRST: tl.constexpr = words.alive(P, STEP, K, LIVE, "first")
    SECOND: tl.constexpr = words.alive(P, STEP, K, LIVE, "second")
    some, w, u = pairs_of(P, STEP, K, QUICK, s, rows, cols, allowed, at, inside)
    SHARED: tl.constexpr = QUICK and FIRST >= 0 and SECOND >= 0
    first = own(stats, FIRST, KIND, at[0], inside[0], LIVE, SHARED)
    second = own(stats, SECOND, KIND, at[1], inside[1], LIVE, SHARED)
    top = tl.load(tops + words.single(P, STEP, K))
    part = view_gradient(
        P, STEP, K, SHARED, FIRST >= 0, SECOND >= 0, s, some, w, u, top, first, second, at
    )  # fmt: skip
    if QUICK:
        return part
    else:
        return tl.where(allowed, part, 0.0)


@triton.jit
def sum_up(
    SUMS: tl.constexpr, WHAT: tl.constexpr, CHANNEL: tl.constexpr, value, state, by_col, slot, at,
    inside, R: tl.constexpr,
):  # fmt: skip
    """Adds ``value`` to the sums of this kind and channel; returns the new ``state``."""
    new = ()
    for k in tl.static_range(words.sums(SUMS)):
        if words.summed(SUMS, k, "what") == WHAT and words.summed(SUMS, k, "channel") == CHANNEL:
            new = new + (  # type: ignore[assignment]
                added(
                    R if words.summed(SUMS, k, "axis") == 0 else 1 - R, value, state[k], by_col[k],
                    slot, at, inside,
                ),
            )  # fmt: skip
        else:
            new = new + (state[k],)  # type: ignore[assignment]
    return new


@triton.jit
def added(AXIS: tl.constexpr, value, state, slices, slot, at, inside):
    """Adds a sum over this tile, of each position along AXIS: to ``state`` for axis 0, otherwise to
    the slices."""
    total = tl.sum(value, 1 - AXIS)
    if AXIS == 0:
        return state + total
    else:
        place = slices + slot + at[1]
        tl.store(place, tl.load(place, mask=inside[1], other=0) + total, mask=inside[1])
        return state


@triton.jit
def tile_h(
    P: tl.constexpr, QUICK: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr,
    HAS: tl.constexpr, dot, scale, vectors, rows, cols, stats, tops, state, by_col, slot, allowed,
    at, inside,
):  # fmt: skip
    """H of a tile in all steps, and the sums."""
    h = tl.zeros(dot.shape, tl.float32)
    for t in tl.static_range(words.steps(P)):
        value, state = gradient(
            P, t, QUICK, LIVE, SUMS, HAS, dot, scale, vectors, rows, cols, stats, tops, state,
            by_col, slot, allowed, at, inside,
        )  # fmt: skip
        h += value
    return h, state


@triton.jit
def visited(
    P: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr, HAS: tl.constexpr,
    SYMMETRIC: tl.constexpr, quick, dot, scale, vectors, rows, cols, stats, tops, state, by_col,
    slot, at, inside,
):  # fmt: skip
    """H of a tile and the sums: the ``quick`` way if all pairs count and one exponential serves a
    row and a column, else the general way."""
    M: tl.constexpr = dot.shape[0]
    N: tl.constexpr = dot.shape[1]
    if quick:
        every = (tl.full((M,), True, tl.int1), tl.full((N,), True, tl.int1))
        value, state = tile_h(
            P, True, LIVE, SUMS, HAS, dot, scale, vectors, rows, cols, stats, tops, state, by_col,
            slot, tl.full((M, N), True, tl.int1), at, every,
        )  # fmt: skip
    else:
        allowed = inside[0][:, None] & inside[1][None, :]
        if SYMMETRIC:
            allowed &= at[0][:, None] < at[1][None, :]
        value, state = tile_h(
            P, False, LIVE, SUMS, HAS, dot, scale, vectors, rows, cols, stats, tops, state, by_col,
            slot, allowed, at, inside,
        )  # fmt: skip
    if words.sums(SUMS) > 0:
        tl.debug_barrier()  # makes the slices visible to all threads of this instance
    return value, state


@triton.jit
def store_h(h, value, z, stride, ld, i, j, rows, cols, HOW: tl.constexpr):
    """Writes a tile of H at row i and column j of batch item z. Offsets within a tile are int32."""
    M: tl.constexpr = value.shape[0]
    N: tl.constexpr = value.shape[1]
    if HOW == "tma":
        h.store([z, i, j], value.to(h.dtype).reshape(1, M, N))
    else:
        r, c = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
        corner = h + z.to(tl.int64) * stride + (i + tl.zeros((), tl.int64)) * ld + j
        inside = (i + r < rows) & (j + c < cols)
        tl.store(corner + r * ld + c, value.to(h.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=["m", "n", "i0", "i1", "j0", "j1", "across", "down", "ld16", "h_stride"]
)
def h_block_kernel(
    h, x, y, v, stats, tops, by_row, by_col, gain,
    m, n, i0, i1, j0, j1, across, down, ld16, h_stride,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr, LIVE: tl.constexpr, SUMS: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr,
    GAIN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """H of rows [i0, i1) and columns [j0, j1), and the sums over these pairs that SUMS lists:
    (what, axis, channel). Rows of h, and of the panel of products that x is for a library's, are
    16 ``ld16`` numbers apart."""
    p, q = tl.program_id(0) % across, tl.program_id(0) // across % down
    z = tl.program_id(0) // (across * down)
    wide = z.to(tl.int64)
    vectors, rows, cols = of_item(v, wide, m, n, ROW_STRIDES, COL_STRIDES)
    own_stats = ()
    for c in tl.static_range(words.channels(P)):
        own_stats = own_stats + (  # type: ignore[assignment]
            item(stats[c], (1, 1, 1, 1, 1, 1), wide, m if words.channel(P, c, "axis") == 0 else n),
        )
    scale = tl.load(v.scale)
    near = tl.load(tops + words.channels(P)) > 0
    slot = (wide * across + p) * n
    for block in range(p, tl.cdiv(i1 - i0, BLOCK_M), across):
        top = i0 + block * BLOCK_M
        i = top + tl.arange(0, BLOCK_M)
        state = ()
        for _ in tl.static_range(words.sums(SUMS)):
            state = state + (tl.zeros((BLOCK_M,), tl.float32),)  # type: ignore[assignment]
        for column in range(q, tl.cdiv(j1 - j0, BLOCK_N), down):
            left = j0 + column * BLOCK_N
            j = left + tl.arange(0, BLOCK_N)
            at, inside = (i, j), (i < i1, j < j1)
            value = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            # in a symmetric problem, pairs on and below the diagonal have no part
            if left + BLOCK_N > top + 1 if SYMMETRIC else True:
                whole = interior(P, SYMMETRIC, top, i1, left, j1, BLOCK_M, BLOCK_N)
                dot = value
                if words.idle(P) and whole:
                    pass
                elif HOW == "library":
                    dot = listed(
                        x, z, h_stride, ld16 * 16, top - i0, left - j0, i1 - i0, j1 - j0, BLOCK_M,
                        BLOCK_N,
                    )  # fmt: skip
                else:
                    dot = products(
                        x, y, z, m, n, top, i1, left, j1, HOW, BLOCK_M, BLOCK_N, D, BLOCK_D,
                        PRECISION,
                    )  # fmt: skip
                value, state = visited(
                    P, LIVE, SUMS, HAS, SYMMETRIC, whole & near, dot, scale, vectors, rows, cols,
                    own_stats, tops, state, by_col, slot, at, inside,
                )  # fmt: skip
            if GAIN:
                value *= tl.load(gain)
            store_h(h, value, z, h_stride, ld16 * 16, top - i0, left - j0, i1 - i0, j1 - j0, HOW)
        for k in tl.static_range(words.sums(SUMS)):
            if SYMMETRIC or words.summed(SUMS, k, "axis") == 0:
                place = by_row[k] + (wide * down + q) * m + i
                old = tl.load(place, mask=i < i1, other=0)
                tl.store(place, old + state[k], mask=i < i1)


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
        self.stats, self.tops, self.live = prepared(o, outputs, grads)
        self.sums = self._sums()
        self.blocks = HBlocks(o.x, o.y, o.symmetric, config.block_n, 4 if config.library else 1)
        self.m, self.n = self.blocks.m, self.blocks.n
        self.p, self.q = grid(self.blocks.rows, self.n, config, o.x.device)
        self.by_row = tuple(self._slices(s, 0, (len(o.x), self.q, self.m)) for s in self.sums)
        self.by_col = tuple(self._slices(s, 1, (len(o.x), self.p, self.n)) for s in self.sums)

    def _slices(self, what: words.SumWords, axis: int, shape: tuple[int, ...]) -> Tensor:
        """Zeros for partial sums, along the axis of the sum. A symmetric problem has both, unless
        a tile stands for both directions."""
        if what.axis == axis or (self.o.symmetric and not self.o.mirrored):
            return torch.zeros(shape, dtype=torch.float32, device=self.o.x.device)
        return self.o.vectors.scale

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

    def run(self, dtype: torch.dtype, width: int) -> tuple[Tensor | None, Tensor | None]:
        """dx and dy in ``dtype``, in a symmetric problem only dx. Other sums are written to the
        slices."""
        o = self.o
        gain = fp16_gain(self.grads, o.x.dtype)

        panel = self.blocks.buffer(torch.float32) if self.config.library else None

        def write(h: Tensor, i: slice, j: slice) -> None:
            loaded = o.loaded(self.config)
            if panel is not None:
                part = panel[:, : h.shape[1], : h.shape[2]]
                add_product(part, o.x[:, i], o.y[:, j].mT, fresh=True)
                loaded = part, part
            self._launch(h, loaded, gain, i, j)

        def finish(sums: Tensor, side: str, part: slice) -> Tensor:
            x, norms = (o.x, o.x_norm) if side == "x" else (o.y, o.y_norm)
            norms = None if norms is None else norms[:, part]
            return finished(sums, x[:, part], norms, gain, width, dtype)

        return self.blocks.gradients(self.needs, write, finish)

    def _launch(
        self, h: Tensor, loaded: tuple[Any, Any], gain: Tensor | None, i: slice, j: slice
    ) -> None:
        o, config = self.o, self.config
        batch, _, d = o.x.shape
        h_block_kernel[(self.p * self.q * batch,)](
            described(h, config.block_m, config.block_n) if config.how == "tma" else h,
            *loaded, o.vectors, self.stats, self.tops, self.by_row, self.by_col,
            o.x if gain is None else gain,
            self.m, self.n, i.start, i.stop, j.start, j.stop, self.p, self.q,
            h.stride(1) // 16, h.stride(0),
            D=d, HAS=o.has, P=o.words, LIVE=self.live, SUMS=words.Words(self.sums),
            ROW_STRIDES=strides(o.vectors.rows), COL_STRIDES=strides(o.vectors.cols),
            SYMMETRIC=o.symmetric, GAIN=gain is not None, PRECISION=precision(o),
            **config.options(d),
        )  # fmt: skip

    def total(self, k: int) -> Tensor:
        """The total of sum number k, (B, M) or (B, N)."""
        if self.o.symmetric and not self.o.mirrored:
            return self.by_row[k].sum(1) + self.by_col[k].sum(1)
        return (self.by_col if self.sums[k].axis else self.by_row)[k].sum(1)


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~..call.NAMES`), and those of all shifts."""
    # the gradients of vectors of rows or columns are separate for either direction
    o = KernelOperands.of(call, mirror=needs <= {"x", "y", "scale"})
    outputs, grads = [*map(call.add_batch, outputs)], [*map(call.add_batch, grads)]
    job = Pass(o, outputs, grads, needs, choose(o))
    dx, dy = job.run(call.x.dtype, call.x.shape[-1])
    totals: dict[tuple, Tensor] = {what: job.total(k) for k, what in enumerate(job.sums)}
    found = {
        name: totals["bias", axis, -1]
        for axis, name in enumerate(("row_bias", "col_bias"))
        if name in needs
    }
    dots = (totals.get(("row dot", 0, -1)), totals.get(("col dot", 1, -1)))
    a = o.vectors.a if o.has[0] else None
    found |= dot_gradients(call, needs, *dots, a, (o.x_norm, o.y_norm))
    shifts: dict[tuple[Axis, str], Tensor] = {}
    for (what, _, k), value in totals.items():
        if what == "shift":
            channel: Any = o.channels[k]
            key = (channel.axis, channel.shift)
            shifts[key] = shifts[key] + value if key in shifts else value
    rows, cols = call.at_shifts(lambda axis, name: shifts[axis, name])
    return Gradients(x=dx, y=dy, **found, rows=rows, cols=cols).map(call.drop_batch)
