"""Statistics. Program instance (p, q) of (across, down) visits every ``across``-th block of rows
and every ``down``-th block of columns. It writes partial statistics of rows to slice q and of
columns to slice p, and a second kernel merges the slices. No two instances write to the same place,
so results do not depend on timing.

An instance takes one block of columns after the other, the last one first, and visits their rows.
The sums of the columns stay in registers meanwhile; those of the rows are added to the slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import COL, ROW
from ..call import PairCall
from ..h_blocks import ELEMENTS, add_product, parts
from . import words
from .config import Config, ceil_div, choose, grid, precision
from .maths import pairs_of
from .operands import KernelOperands, strides
from .slices import MERGED, STATE, VALUES, add_to, load_state, merge_kernel, store_state
from .states import LEAST_SUM, empty, fresh, joined, merged, settled, states
from .tile import interior, listed, of_item, products, scores

__all__ = ["pair_stats_forward"]


@triton.jit
def measured(
    P: tl.constexpr, HAS: tl.constexpr, QUICK: tl.constexpr, dot, scale, vectors, rows, cols,
    allowed, at, inside,
):  # fmt: skip
    """The states of all views of a tile, step by step, and the least sum that may lack terms. QUICK
    if all pairs are in the problem and rows and columns may have one exponential."""
    found = ()
    least = tl.full((), 1.0, tl.float32)
    for t in tl.static_range(words.steps(P)):
        s = scores(dot, scale, vectors, HAS, at, inside, words.orientation(P, t))
        for k in tl.static_range(words.views(P, t)):
            first, second, low = view_states(P, t, k, QUICK, s, rows, cols, allowed, at, inside)
            found = found + ((first, second),)  # type: ignore[assignment]
            least = tl.minimum(least, low)
    return found, least


@triton.jit
def view_states(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, QUICK: tl.constexpr, s, rows, cols,
    allowed, at, inside,
):  # fmt: skip
    if words.dead(P, STEP, K, QUICK):
        return (), (), 1.0
    else:
        some, w, u = pairs_of(P, STEP, K, QUICK, s, rows, cols, allowed, at, inside)
        return states(P, STEP, K, QUICK, s, some, w, u, at)


@triton.jit
def old_states(P: tl.constexpr, by_row, place, valid):
    """The states along axis 0 of a tile that this instance has, view after view."""
    found = ()
    for t in tl.static_range(words.steps(P)):
        for k in tl.static_range(words.views(P, t)):
            if words.view(P, t, k, "first") >= 0:
                found = found + (  # type: ignore[assignment]
                    load_state(
                        by_row[words.view(P, t, k, "first")], words.view(P, t, k, "kind"), place,
                        valid,
                    ),
                )  # fmt: skip
            else:
                found = found + ((),)  # type: ignore[assignment]
    return found


@triton.jit
def fresh_partials(P: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Empty partials of the views that have columns and sums."""
    found = ()
    for t in tl.static_range(words.steps(P)):
        for k in tl.static_range(words.views(P, t)):
            if words.partial(P, t, k):
                found = found + (fresh(words.view(P, t, k, "kind"), M, N),)  # type: ignore[assignment]
            else:
                found = found + ((),)  # type: ignore[assignment]
    return found


@triton.jit
def taken(
    P: tl.constexpr, QUICK: tl.constexpr, partials, found, old, by_row, by_col, place0, valid0,
    place1, valid1,
):  # fmt: skip
    """Merges the states of a tile along its axis 0 with the ``old`` ones into the slices, and
    those along axis 1 into ``partials`` if QUICK, else into the slices, too."""
    new = ()
    for t in tl.static_range(words.steps(P)):
        for k in tl.static_range(words.views(P, t)):
            new = new + (  # type: ignore[assignment]
                take_view(
                    P, t, k, QUICK, partials[words.number(P, t, k)], found[words.number(P, t, k)],
                    old[words.number(P, t, k)], by_row, by_col, place0, valid0, place1, valid1,
                ),
            )  # fmt: skip
    return new


@triton.jit
def take_view(
    P: tl.constexpr, STEP: tl.constexpr, K: tl.constexpr, QUICK: tl.constexpr, partial, found, old,
    by_row, by_col, place0, valid0, place1, valid1,
):  # fmt: skip
    KIND: tl.constexpr = words.view(P, STEP, K, "kind")
    FIRST: tl.constexpr = words.view(P, STEP, K, "first")
    SECOND: tl.constexpr = words.view(P, STEP, K, "second")
    if words.dead(P, STEP, K, QUICK):
        if FIRST >= 0:
            store_state(by_row[FIRST], old, place0, valid0)
        return partial
    else:
        if FIRST >= 0:
            store_state(by_row[FIRST], merged(KIND, old, found[0]), place0, valid0)
        if SECOND < 0:
            return partial
        elif QUICK and words.partial(P, STEP, K):
            return joined(KIND, partial, found[1])
        else:
            add_to(by_col[SECOND], KIND, found[1], place1, valid1)
            return partial


@triton.jit
def visited(
    P: tl.constexpr, HAS: tl.constexpr, SYMMETRIC: tl.constexpr, whole, partials, old, by_row,
    by_col, row_slot, col_slot, dot, scale, vectors, rows, cols, at, inside,
):  # fmt: skip
    """A tile: the quick way if it is ``whole`` and no term has vanished, else the general way.
    Returns the new partials."""
    general = whole == 0
    if whole:
        every = (tl.full((dot.shape[0],), True, tl.int1), tl.full((dot.shape[1],), True, tl.int1))
        found, least = measured(
            P, HAS, True, dot, scale, vectors, rows, cols,
            tl.full((dot.shape[0], dot.shape[1]), True, tl.int1), at, every,
        )  # fmt: skip
        general = least < LEAST_SUM
        if least >= LEAST_SUM:
            partials = taken(
                P, True, partials, found, old, by_row, by_col, row_slot + at[0], every[0],
                col_slot + at[1], every[1],
            )  # fmt: skip
    if general:
        allowed = inside[0][:, None] & inside[1][None, :]
        if SYMMETRIC:
            allowed &= at[0][:, None] < at[1][None, :]
        found, least = measured(
            P, HAS, False, dot, scale, vectors, rows, cols, allowed, at, inside
        )  # fmt: skip
        partials = taken(
            P, False, partials, found, old, by_row, by_col, row_slot + at[0], inside[0],
            col_slot + at[1], inside[1],
        )  # fmt: skip
    return partials


@triton.jit
def add_partials(P: tl.constexpr, partials, by_col, place, valid):
    """Merges the partials of a block of columns into the slices."""
    for t in tl.static_range(words.steps(P)):
        for k in tl.static_range(words.views(P, t)):
            if words.partial(P, t, k):
                add_partial(
                    words.view(P, t, k, "kind"), partials[words.number(P, t, k)],
                    by_col[words.view(P, t, k, "second")], place, valid,
                )  # fmt: skip


@triton.jit
def add_partial(KIND: tl.constexpr, partial, slices, place, valid):
    add_to(slices, KIND, settled(KIND, partial), place, valid)


@triton.jit
def clear(P: tl.constexpr, SYMMETRIC: tl.constexpr, AXIS: tl.constexpr, slices, place, valid):
    """Writes empty states to the slices of an axis of the problem."""
    for c in tl.static_range(words.channels(P)):
        if SYMMETRIC or words.channel(P, c, "axis") == AXIS:
            store_state(
                slices[c], empty(words.channel(P, c, "kind"), place.shape[0]), place, valid
            )  # fmt: skip


@triton.jit(do_not_specialize=["m", "n", "i0", "i1", "across", "down", "ld16", "stride"])
def forward_kernel(
    x, y, v, by_row, by_col, m, n, i0, i1, across, down, ld16, stride,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
    HOW: tl.constexpr,
):  # fmt: skip
    """The rows [i0, i1). ``by_row``, ``by_col``: the slices of each channel's state along rows and
    along columns. A symmetric problem has both for every channel, because a tile above the diagonal
    stands for the one on the other side, too. Of a library's products, x is a panel (B, i1 - i0,
    n), in a symmetric problem (B, i1 - i0, n - i0), whose rows are 16 ``ld16`` numbers apart."""
    p, q = tl.program_id(0) % across, tl.program_id(0) // across % down
    z = tl.program_id(0) // (across * down)
    wide = z.to(tl.int64)
    vectors, rows, cols = of_item(v, wide, m, n, ROW_STRIDES, COL_STRIDES)
    scale = tl.load(v.scale)
    row_slot, col_slot = (wide * down + q) * m, (wide * across + p) * n
    blocks, first = tl.cdiv(i1 - i0, BLOCK_M), i0 if SYMMETRIC else 0
    turns = tl.cdiv(tl.cdiv(n, BLOCK_N) - q, down)
    if SYMMETRIC:  # rows below the diagonal of the first block of columns are never visited
        below = tl.cdiv((q + (turns - 1) * down + 1) * BLOCK_N - i0, BLOCK_M)
        start = p + tl.cdiv(tl.maximum(below - p, 0), across) * across
        for block in range(start, blocks, across):
            i = i0 + block * BLOCK_M + tl.arange(0, BLOCK_M)
            clear(P, True, 0, by_row, row_slot + i, i < i1)
    for turn in range(0, turns):
        j0 = (q + (turns - 1 - turn) * down) * BLOCK_N
        j = j0 + tl.arange(0, BLOCK_N)
        in_j = j < n
        begins = tl.zeros((BLOCK_N,), tl.int32) + i0  # the slices are used for all rows
        clear(P, SYMMETRIC, 1, by_col, col_slot + j, in_j & (begins == 0))
        partials = fresh_partials(P, BLOCK_M, BLOCK_N)
        stop = blocks
        if SYMMETRIC:  # only tiles with pairs above the diagonal
            stop = tl.minimum(stop, tl.cdiv(tl.maximum(j0 + BLOCK_N - i0, 0), BLOCK_M))
        for block in range(p, stop, across):
            top = i0 + block * BLOCK_M
            i = top + tl.arange(0, BLOCK_M)
            at, inside = (i, j), (i < i1, in_j)
            done = tl.zeros((BLOCK_M,), tl.int32) + turn
            old = old_states(P, by_row, row_slot + i, inside[0] & (done > 0))
            whole = interior(P, SYMMETRIC, top, i1, j0, n, BLOCK_M, BLOCK_N)
            dot = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
            if words.idle(P) and whole:
                pass
            elif HOW == "library":
                dot = listed(
                    x, z, stride, ld16 * 16, top - i0, j0 - first, i1 - i0, n - first, BLOCK_M,
                    BLOCK_N,
                )  # fmt: skip
            else:
                dot = products(
                    x, y, z, m, n, top, i1, j0, n, HOW, BLOCK_M, BLOCK_N, D, BLOCK_D, PRECISION
                )  # fmt: skip
            partials = visited(
                P, HAS, SYMMETRIC, whole, partials, old, by_row, by_col, row_slot, col_slot, dot,
                scale, vectors, rows, cols, at, inside,
            )  # fmt: skip
            tl.debug_barrier()  # makes the slices visible to all threads of this instance
        add_partials(P, partials, by_col, col_slot + j, in_j)
        tl.debug_barrier()


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each, or (M,) or (N,)."""
    o = KernelOperands.of(call)
    return [call.drop_batch(value) for value in run(o, choose(o))]


def panel_rows(o: KernelOperands, config: Config) -> int:
    """How many rows a launch has: all, or those of a panel of a library's products."""
    batch, m, _ = o.x.shape
    if not config.library:
        return max(m, 1)
    rows = ELEMENTS // 4 // max(1, batch * o.y.shape[1])
    return max(rows // config.block_m, 1) * config.block_m


def loads(o: KernelOperands, config: Config, step: int) -> Iterator[tuple[slice, Any, Any]]:
    """Rows, and what their kernel loads as x and y."""
    if not config.library:
        yield slice(0, o.x.shape[1]), *o.loaded(config)
        return
    batch, m, n = len(o.x), o.x.shape[1], o.y.shape[1]
    shape = batch, min(step, m), ceil_div(n, 16) * 16
    panel = torch.empty(shape, dtype=torch.float32, device=o.x.device)
    for i in parts(0, m, step):
        first = i.start if o.symmetric else 0  # other columns have no pairs above the diagonal
        part = panel[:, : i.stop - i.start, : n - first]
        add_product(part, o.x[:, i], o.y[:, first:].mT, fresh=True)
        yield i, part, part


def run(o: KernelOperands, config: Config) -> list[Tensor]:
    batch, m, d = o.x.shape
    n = o.y.shape[1]
    step = panel_rows(o, config)
    p, q = grid(min(step, m), n, config, o.x.device)

    def made(dtypes: tuple[torch.dtype, ...], *shape: int) -> tuple[Tensor, ...]:
        return tuple([torch.empty(shape, dtype=dtype, device=o.x.device) for dtype in dtypes])

    by_row: list[Any] = []
    by_col: list[Any] = []
    out = []
    for c in o.channels:
        row = o.symmetric or c.axis == ROW
        col = o.symmetric or c.axis == COL
        by_row.append(made(STATE[c.kind], batch, q, m) if row else ())
        by_col.append(made(STATE[c.kind], batch, p, n) if col else ())
        out.append(made(VALUES[c.kind], batch, m if c.axis == ROW else n))
    slices = tuple(by_row), tuple(by_col)
    if batch and m and n:
        for i, x, y in loads(o, config, step):
            forward_kernel[(p * q * batch,)](
                x, y, o.vectors, *slices, m, n, i.start, i.stop, p, q,
                *((x.stride(1) // 16, x.stride(0)) if config.library else (0, 0)),
                D=d, HAS=o.has, P=o.words, ROW_STRIDES=strides(o.vectors.rows),
                COL_STRIDES=strides(o.vectors.cols), SYMMETRIC=o.symmetric,
                PRECISION=precision(o), **config.options(d),
            )  # fmt: skip
    else:
        p = q = 0  # no slices
    if batch and max(m, n):
        merge_kernel[(batch * ceil_div(max(m, n), MERGED),)](
            *slices, tuple(out), m, n, p, q, P=o.words, SYMMETRIC=o.symmetric, BLOCK=MERGED
        )
    return [value for values in out for value in values]
