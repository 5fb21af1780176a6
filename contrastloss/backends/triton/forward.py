"""Statistics. Program instance (p, q) of (across, down) visits every ``across``-th block of rows
and every ``down``-th block of columns. It writes partial statistics of rows to slice q and of
columns to slice p, and a second kernel merges the slices. No two instances write to the same place,
so results do not depend on timing."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import COL, ROW
from ..call import PairCall
from . import words
from .config import Config, choose, grid, precision
from .maths import empty, merged, reduced, shifted, weights
from .operands import KernelOperands, strides
from .tile import operands, products, scores

__all__ = ["pair_stats_forward"]

#: the values of an empty state, and the dtypes of the final values
STATE = {
    "LSE": (-torch.inf, 0.0),
    "SUM": (0.0,),
    "EXPECT": (-torch.inf, 0.0, 0.0),
    "MAX": (-torch.inf, -1),
}
VALUES = {
    "LSE": (torch.float32,),
    "SUM": (torch.float32,),
    "EXPECT": (torch.float32, torch.float32),
    "MAX": (torch.float32, torch.int64),
}


@triton.jit
def load_state(slices, KIND: tl.constexpr, at, valid):
    if KIND == "SUM":
        return (tl.load(slices[0] + at, mask=valid, other=0),)
    elif KIND == "EXPECT":
        return (
            tl.load(slices[0] + at, mask=valid, other=0),
            tl.load(slices[1] + at, mask=valid, other=0),
            tl.load(slices[2] + at, mask=valid, other=0),
        )
    else:
        return (
            tl.load(slices[0] + at, mask=valid, other=0),
            tl.load(slices[1] + at, mask=valid, other=0),
        )


@triton.jit
def store_state(slices, state, at, valid):
    for k in tl.static_range(len(state)):
        tl.store(slices[k] + at, state[k], mask=valid)


@triton.jit
def add_slice(slices, KIND: tl.constexpr, found, at, valid):
    """Merges into this instance's own slice. The barrier makes the slice visible to all of its
    threads."""
    store_state(slices, merged(KIND, load_state(slices, KIND, at, valid), found), at, valid)
    tl.debug_barrier()


@triton.jit
def visit(
    P: tl.constexpr, state, by_col, slot, s, allowed, rows, cols, i, in_i, j, in_j, R: tl.constexpr
):  # fmt: skip
    """All channels of a tile whose rows i are along axis R."""
    new = ()
    for c in tl.static_range(words.channels(P)):
        new = new + (  # type: ignore[assignment]
            visit_one(
                P, c, state[c], by_col[c], slot, s, allowed, rows, cols, i, in_i, j, in_j, R
            ),
        )  # fmt: skip
    return new


@triton.jit
def visit_one(
    P: tl.constexpr, c: tl.constexpr, state, slices, slot, s, allowed, rows, cols,
    i, in_i, j, in_j, R: tl.constexpr,
):  # fmt: skip
    """Merges results along axis 0 of the tile into ``state``, along axis 1 into this instance's
    slice."""
    KIND: tl.constexpr = words.channel(P, c, "kind")
    w = weights(P, words.channel(P, c, "group"), s, allowed, rows, cols, i, in_i, j, in_j, R)
    u = shifted(P, c, s, rows, cols, i, in_i, j, in_j, R)
    if words.channel(P, c, "axis") == 0:
        found = reduced(P, c, s, w, u, j, 1 - R)
        if R == 0:
            return merged(KIND, state, found)
        else:
            add_slice(slices, KIND, found, slot + i, in_i)
            return state
    else:
        found = reduced(P, c, s, w, u, i, R)
        if R == 0:
            add_slice(slices, KIND, found, slot + j, in_j)
            return state
        else:
            return merged(KIND, state, found)


@triton.jit
def forward_kernel(
    x, y, scale, a, b, beta, gamma, rows, cols, by_row, by_col,
    m, n, across, down,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr,
    ROW_STRIDES: tl.constexpr, COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``by_row``, ``by_col``: the slices of each channel's state along rows and along columns. A
    symmetric problem has both for every channel, because a tile above the diagonal is evaluated
    twice, direct and transposed."""
    p, q, z = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    x, y, a, b, beta, gamma, rows, cols = operands(
        x, y, a, b, beta, gamma, rows, cols, z, m, n, D, ROW_STRIDES, COL_STRIDES
    )
    scale = tl.load(scale)
    slot = (z * across + p) * n
    for block in range(p, tl.cdiv(m, BLOCK_M), across):
        i = block * BLOCK_M + tl.arange(0, BLOCK_M)
        in_i = i < m
        state = ()
        for c in tl.static_range(words.channels(P)):
            state = state + (empty(words.channel(P, c, "kind"), BLOCK_M),)  # type: ignore[assignment]
        first = q
        if SYMMETRIC:  # blocks of columns left of the diagonal are covered by transposed tiles
            first = q + tl.cdiv(tl.maximum(block * BLOCK_M // BLOCK_N - q, 0), down) * down
        for column in range(first, tl.cdiv(n, BLOCK_N), down):
            j = column * BLOCK_N + tl.arange(0, BLOCK_N)
            in_j = j < n
            dot = products(
                x, y, block * BLOCK_M, m, column * BLOCK_N, n, BLOCK_M, BLOCK_N, D, BLOCK_D,
                PRECISION,
            )  # fmt: skip
            allowed = in_i[:, None] & in_j[None, :]
            if SYMMETRIC:
                allowed = allowed & (i[:, None] < j[None, :])
            s = scores(dot, scale, a, b, beta, gamma, HAS, i, in_i, j, in_j, 0)
            state = visit(
                P, state, by_col, slot, s, allowed, rows, cols, i, in_i, j, in_j, 0
            )  # fmt: skip
            if SYMMETRIC:
                s = scores(dot, scale, a, b, beta, gamma, HAS, j, in_j, i, in_i, 1)
                state = visit(
                    P, state, by_col, slot, s, allowed, rows, cols, j, in_j, i, in_i, 1
                )  # fmt: skip
        for c in tl.static_range(words.channels(P)):
            if SYMMETRIC or words.channel(P, c, "axis") == 0:
                store_state(by_row[c], state[c], (z * down + q) * m + i, in_i)


@triton.jit
def merge_kernel(
    slices, more, out, n, S, T, KIND: tl.constexpr, MORE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The values of one channel from S slices of its state and, with MORE, T additional slices."""
    z = tl.program_id(1).to(tl.int64)
    i = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    valid = i < n
    state = empty(KIND, BLOCK)
    for k in range(S):
        state = merged(KIND, state, load_state(slices, KIND, (z * S + k) * n + i, valid))
    if MORE:
        for k in range(T):
            state = merged(KIND, state, load_state(more, KIND, (z * T + k) * n + i, valid))
    at = z * n + i
    if KIND == "SUM":
        tl.store(out[0] + at, state[0], mask=valid)
    elif KIND == "MAX":
        tl.store(out[0] + at, state[0], mask=valid)
        tl.store(out[1] + at, state[1], mask=valid)
    else:
        some = state[1] != 0
        total = tl.where(some, state[1], 1.0)
        lse = tl.where(some, state[0] + tl.log(total), float("-inf"))
        if KIND == "LSE":
            tl.store(out[0] + at, lse, mask=valid)
        else:
            tl.store(out[0] + at, tl.where(some, state[2] / total, 0.0), mask=valid)
            tl.store(out[1] + at, lse, mask=valid)


def slices_of(kind: str, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Slices filled with the empty state."""
    return tuple(
        torch.full(
            shape, v, dtype=torch.int32 if isinstance(v, int) else torch.float32, device=device
        )
        for v in STATE[kind]
    )


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each, or (M,) or (N,)."""
    o = KernelOperands.of(call)
    found = run(o, choose(o, "forward", lambda config: run(o, config)))
    return [call.drop_batch(value) for value in found]


def run(o: KernelOperands, config: Config) -> list[Tensor]:
    batch, m, d = o.x.shape
    n = o.y.shape[1]
    device = o.x.device
    p, q = grid(m, n, config, device)
    by_row: list[Any] = []
    by_col: list[Any] = []
    for c in o.channels:
        row = o.symmetric or c.axis == ROW
        col = o.symmetric or c.axis == COL
        by_row.append(slices_of(c.kind, (batch, q, m), device) if row else (o.x,))
        by_col.append(slices_of(c.kind, (batch, p, n), device) if col else (o.x,))
    if batch and m and n:
        forward_kernel[(p, q, batch)](
            o.x, o.y, o.scale, o.a, o.b, o.beta, o.gamma, o.rows, o.cols,
            tuple(by_row), tuple(by_col), m, n, p, q,
            D=d, HAS=o.has, P=o.words,
            ROW_STRIDES=strides(o.rows), COL_STRIDES=strides(o.cols), SYMMETRIC=o.symmetric,
            PRECISION=precision(o), **config.options(d),
        )  # fmt: skip
    results: list[Tensor] = []
    for c, row, col in zip(o.channels, by_row, by_col, strict=True):
        length = m if c.axis == ROW else n
        out = tuple(torch.empty(batch, length, dtype=t, device=device) for t in VALUES[c.kind])
        own, other = (row, col) if c.axis == ROW or o.symmetric else (col, row)
        if batch and length:
            merge_kernel[(triton.cdiv(length, 256), batch)](
                own, other, out, length, own[0].shape[1], other[0].shape[1],
                KIND=c.kind, MORE=o.symmetric, BLOCK=256,
            )  # fmt: skip
        results += out
    return results
