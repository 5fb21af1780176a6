"""The best columns of every row. A kernel writes a panel of candidates, some rows times some
columns, and torch selects the best of each of its rows, together with those of earlier panels.

A candidate is one int64: its key above the complement of its column, so a larger number is better,
and among equal keys the smaller column is. No two candidates of a row are equal, so the best and
their order are unique, whatever the timing and the size of panels."""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...channel import MAX
from ..call import PairCall
from ..h_blocks import parts
from ..topk import Selection
from . import words
from .config import ceil_div, choose, precision
from .maths import NOTHING, along, included
from .noise import gumbel
from .operands import KernelOperands, strides
from .tile import of_item, products, scores

__all__ = ["pair_topk"]

#: candidates of a panel, 8 bytes each; more only if a single row has more
CANDIDATES = 1 << 24
#: columns of a panel, unless more are asked for
COLUMNS = 1 << 14
#: columns of a tile with noise, which needs many registers
NOISY = 64
#: entries of an ignore list that an instance reads at a time
LISTED = 256
#: no candidate; less than any candidate
NONE = tl.constexpr(-(1 << 63))
#: what turns the bits of a negative number, as an integer, into the order of numbers
FLIP = tl.constexpr(0x7FFFFFFF)


@triton.jit
def packed(key, j, some):
    """The candidates of a tile with columns j."""
    bits = tl.where(key == 0, 0.0, key).to(tl.int32, bitcast=True)  # without -0
    ordered = bits ^ ((bits >> 31) & FLIP)
    low = (~along(j, 1)).to(tl.uint32, bitcast=True)
    return tl.where(some, (ordered.to(tl.int64) << 32) | low.to(tl.int64), NONE)


@triton.jit
def bounded(some, s, LOWER: tl.constexpr, UPPER: tl.constexpr, lower, upper, i, inside):
    """Of ``some``, the pairs whose scores are within the closed bounds of their rows."""
    if LOWER:
        some &= s >= tl.load(lower + i, mask=inside, other=0)[:, None]
    if UPPER:
        some &= s <= tl.load(upper + i, mask=inside, other=0)[:, None]
    return some


@triton.jit
def noise_keys(keys, at, inside, AXIS: tl.constexpr):
    """The two keys at these positions, shaped to broadcast over a tile."""
    place = keys + at + at  # 2 at may need 33 bits
    first = tl.load(place, mask=inside, other=0).to(tl.uint32, bitcast=True)
    second = tl.load(place + 1, mask=inside, other=0).to(tl.uint32, bitcast=True)
    return along(first, AXIS), along(second, AXIS)


@triton.jit(do_not_specialize=["m", "n", "z0", "i0", "i1", "j0", "j1", "head"])
def candidates_kernel(
    panel, x, y, v, lower, upper, row_keys, col_keys, beta, m, n, z0, i0, i1, j0, j1, head,
    D: tl.constexpr, HAS: tl.constexpr, P: tl.constexpr, ROW_STRIDES: tl.constexpr,
    COL_STRIDES: tl.constexpr, SYMMETRIC: tl.constexpr, LOWER: tl.constexpr, UPPER: tl.constexpr,
    SAMPLED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """The candidates of rows [i0, i1) and columns [j0, j1) of the items from z0 on, behind the
    ``head`` first numbers of every row of the panel. An instance has one tile."""
    down, across = tl.cdiv(i1 - i0, BLOCK_M), tl.cdiv(j1 - j0, BLOCK_N)
    tile, item = tl.program_id(0) % (down * across), tl.program_id(0) // (down * across)
    row, column = tile % down * BLOCK_M, tile // down * BLOCK_N  # in the panel
    z = z0 + item
    wide = z.to(tl.int64)
    vectors, rows, cols = of_item(v, wide, m, n, ROW_STRIDES, COL_STRIDES)
    i, j = i0 + row + tl.arange(0, BLOCK_M), j0 + column + tl.arange(0, BLOCK_N)
    at, inside = (i, j), (i < i1, j < j1)
    dot = products(
        x, y, z, m, n, i0 + row, i1, j0 + column, j1, HOW, BLOCK_M, BLOCK_N, D, BLOCK_D, PRECISION
    )  # fmt: skip
    s = scores(dot, tl.load(v.scale), vectors, HAS, at, inside, 0)
    there = inside[0][:, None] & inside[1][None, :]
    some = included(P, 0, False, there, rows, cols, at, inside, 0)
    if SYMMETRIC:
        some &= i[:, None] != j[None, :]
    some = bounded(some, s, LOWER, UPPER, lower + wide * m, upper + wide * m, i, inside[0])
    key = words.view(P, 0, 0, "sign") * s
    some &= key > NOTHING  # neither -inf nor NaN
    if SAMPLED:
        row_key, row_more = noise_keys(row_keys + wide * m * 2, i, inside[0], 0)
        col_key, col_more = noise_keys(col_keys + wide * n * 2, j, inside[1], 1)
        key = beta * s + gumbel(row_key, row_more, col_key, col_more)
        some &= key > NOTHING
    stride = head + (j1 - j0)
    corner = panel + (item.to(tl.int64) * (i1 - i0) + row) * stride + head + column
    place = tl.arange(0, BLOCK_M)[:, None] * stride + tl.arange(0, BLOCK_N)[None, :]
    tl.store(corner + place, packed(key, j, some), mask=there)


@triton.jit(do_not_specialize=["listed", "m", "z0", "i0", "rows", "j0", "j1", "head"])
def ignore_kernel(
    panel, offsets, columns, listed, m, z0, i0, rows, j0, j1, head, BLOCK: tl.constexpr
):
    """Takes the columns of a row's ignore list out of the panel. An instance has one row. Offsets
    that do not ascend lead nowhere but to other entries of the lists."""
    at = tl.program_id(0).to(tl.int64)
    row = (z0 + at // rows) * m + i0 + at % rows
    first = tl.maximum(tl.load(offsets + row), 0)
    last = tl.minimum(tl.load(offsets + row + 1), listed)
    line = panel + at * (head + (j1 - j0)) + head
    for start in range(first, last, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        column = tl.load(columns + entry, mask=entry < last, other=-1)
        tl.store(line + (column - j0), NONE, mask=(column >= j0) & (column < j1))


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """The k best of every row, (B, M, k): their scores, or keys if sampled, and their columns."""
    o = KernelOperands.of(call, mirror=False)
    batch, m, n = len(o.x), o.x.shape[1], o.y.shape[1]
    shape, k = (batch, m, selection.k), min(selection.k, n)
    keys = torch.full(shape, -torch.inf, dtype=torch.float32, device=o.x.device)
    index = torch.full(shape, -1, dtype=torch.int64, device=o.x.device)
    if keys.numel() and n:
        job = Panels(o, selection)
        width = min(n, max(COLUMNS, 4 * k))
        rows = min(m, max(1, CANDIDATES // (k + width)))
        items = max(1, CANDIDATES // (rows * (k + width)))
        for z in parts(0, batch, items):
            for i in parts(0, m, rows):
                keys[z, i, :k], index[z, i, :k] = unpacked(job.best(z, i, k, width))
    if selection.sample is None:
        (channel,) = o.channels
        assert isinstance(channel, MAX)
        keys = torch.where(index < 0, keys, channel.sign * keys)
    return call.drop_batch(keys), call.drop_batch(index)


def unpacked(best: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and columns of candidates; -inf and -1 for none."""
    ordered, some = (best >> 32).to(torch.int32), best != NONE.value
    keys = (ordered ^ ((ordered >> 31) & FLIP.value)).view(torch.float32)
    return torch.where(some, keys, -torch.inf), torch.where(some, ~best & 0xFFFFFFFF, -1)


class Panels:
    """The panels of a call."""

    def __init__(self, o: KernelOperands, selection: Selection) -> None:
        _, lower, upper, self.ignore, row_keys, col_keys, beta = selection.native()
        given = (lower, upper, row_keys, col_keys)
        self.o, self.beta = o, float(beta)
        self.vectors = [o.x if v is None else v for v in given]
        self.config = config = choose(o)
        if config.library:  # here it would be a panel more
            self.config = config = replace(config, how="pointers")
        if selection.sample is not None and config.block_n > NOISY:
            self.config = config = replace(config, block_n=NOISY)
        self.loaded = o.loaded(config)
        self.options = config.options(o.x.shape[-1]) | {
            "LOWER": lower is not None,
            "UPPER": upper is not None,
            "SAMPLED": selection.sample is not None,
            "enable_fp_fusion": False,  # the noise has one rounding per operation
        }

    def best(self, z: slice, i: slice, k: int, width: int) -> Tensor:
        """The k best candidates of rows i of items z, (items, rows, k); ``width``, at least k, is
        the number of columns of a panel."""
        found = None
        for j in parts(0, self.o.y.shape[1], width):
            found = self._merged(found, z, i, j, k)
        assert found is not None
        return found

    def _merged(self, best: Tensor | None, z: slice, i: slice, j: slice, k: int) -> Tensor:
        """The k best of ``best`` and of columns j."""
        head = 0 if best is None else k
        shape = z.stop - z.start, i.stop - i.start, head + j.stop - j.start
        panel = torch.empty(shape, dtype=torch.int64, device=self.o.x.device)
        if best is not None:
            panel[..., :k] = best
        self._write(panel, z, i, j, head)
        return panel.topk(k).values

    def _write(self, panel: Tensor, z: slice, i: slice, j: slice, head: int) -> None:
        o, (items, rows, _) = self.o, panel.shape
        m, n, d = o.x.shape[1], o.y.shape[1], o.x.shape[2]
        down = ceil_div(rows, self.config.block_m)
        across = ceil_div(j.stop - j.start, self.config.block_n)
        candidates_kernel[(items * down * across,)](
            panel, *self.loaded, o.vectors, *self.vectors, self.beta,
            m, n, z.start, i.start, i.stop, j.start, j.stop, head,
            D=d, HAS=o.has, P=o.words, ROW_STRIDES=strides(o.vectors.rows),
            COL_STRIDES=strides(o.vectors.cols), SYMMETRIC=o.symmetric, PRECISION=precision(o),
            **self.options,
        )  # fmt: skip
        if self.ignore:
            offsets, columns = (v.contiguous() for v in self.ignore)
            ignore_kernel[(items * rows,)](
                panel, offsets, columns, len(columns), m, z.start, i.start, rows,
                j.start, j.stop, head, BLOCK=LISTED,
            )  # fmt: skip
