"""A block of pairs: its scores, and what the channels need of each pair."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ...channel import COL, EXPECT, LSE, ROW, SUM, Axis, Channel, Term, Test
from ..call import PairCall
from ..norms import unit as unit_vectors
from .maths import NEG_INF

__all__ = [
    "PER_ROW",
    "Block",
    "block_elements",
    "blocks",
    "dim_of",
    "passes",
    "rounded",
    "times",
    "unit",
]

#: gradients with one value per row; all others except the scale's have one per column
PER_ROW = ("x", "row_scale", "row_bias", f"{ROW} shift ")


class Block:
    """Some rows and columns of a rounded call of unit vectors."""

    def __init__(self, call: PairCall, rows: slice, cols: slice):
        self.call, self.rows, self.cols = call, rows, cols
        self.x, self.y = call.x[:, rows], call.columns[:, cols]
        self.dot = self.x @ self.y.mT
        self.s = self._scores()

    def span(self, axis: Axis) -> slice:
        return self.rows if axis == ROW else self.cols

    def part(self, name: str, whole: Tensor) -> Tensor:
        """The block's part of the gradient called ``name``."""
        if name == "scale":
            return whole
        return whole[:, self.rows if name.startswith(PER_ROW) else self.cols]

    def _scores(self) -> Tensor:
        """s = scale a b <x, y> + beta + gamma, in fp32 or fp64 after the product."""
        operands, s = self.call.operands, self.dot
        for factor in (self.left(), self.right()):
            if factor is not None:
                s = s * factor
        for axis, bias in ((ROW, operands.row_bias), (COL, operands.col_bias)):
            if bias is not None:
                s = s + self.along(axis, bias)
        return s

    def along(self, axis: Axis, vector: Tensor) -> Tensor:
        """The block's part of a vector of ``axis``, shaped to broadcast against the scores."""
        part = vector[:, self.span(axis)]
        return part.unsqueeze(2 if axis == ROW else 1)

    def left(self) -> Tensor | None:
        """``scale a_i``; None for 1."""
        scale, a = self.call.operands.scale, self.call.operands.row_scale
        return times(scale, None if a is None else self.along(ROW, a))

    def right(self) -> Tensor | None:
        """``b_j``; None for 1."""
        b = self.call.operands.col_scale
        return None if b is None else self.along(COL, b)

    def positions(self, axis: Axis) -> Tensor:
        span = self.span(axis)
        here = torch.arange(span.start, span.stop, device=self.s.device)
        return here[None, :, None] if axis == ROW else here[None, None, :]

    def ids(self, name: str) -> tuple[Tensor, Tensor]:
        """The row and column ids in int64, whatever their dtype: narrow ids would wrap, and ids of
        two dtypes would be compared in a dtype that may not hold both."""
        row, col = self.operands(name)
        return row.to(torch.int64), col.to(torch.int64)

    def operands(self, name: str) -> tuple[Tensor, Tensor]:
        """The row and column ids or labels; positions if INDEX has no operand."""
        vectors = {axis: self.call.operand(axis, name) for axis in (ROW, COL)}
        row, col = (
            self.positions(axis) if vector is None else self.along(axis, vector)
            for axis, vector in vectors.items()
        )
        return row, col

    def allowed(self, channel: Channel) -> Tensor | None:
        """Which pairs pass the channel's tests, (B or 1, m, N); None means all."""
        mask = None
        if self.call.y is None:
            mask = self.positions(ROW) != self.positions(COL)
        for test in channel.pairs:
            passed = passes(test, *self.ids(test.name))
            mask = passed if mask is None else mask & passed
        return mask

    def log_weight(self, channel: Channel) -> Tensor | None:
        """w without the tests; None means 0 everywhere."""
        total = None
        for term in channel.weight:
            value = self._term(term)
            total = value if total is None else total + value
        return total

    def _term(self, term: Term) -> Tensor:
        call, name = self.call, term.names[0]
        dtype = call.stat_dtype
        if term.kind in ("row", "col"):
            axis = ROW if term.kind == "row" else COL
            return self.along(axis, call.named(axis, name).to(dtype))
        if term.kind == "not_above":
            return _up_to(self.along(ROW, call.named(ROW, name).to(dtype)), self.s.detach())
        if term.kind == "distance":
            a, b = (v.to(dtype) for v in self.operands(name))
            return term.value * torch.log1p((a - b).abs())
        if term.kind == "differing":
            count = [(a != b).to(dtype) for a, b in map(self.ids, term.names)]
            return torch.log(torch.stack(torch.broadcast_tensors(*count)).sum(0))
        m = call.named(ROW, name)[:, self.rows].to(dtype)
        n = call.named(COL, name)[:, self.cols].to(dtype)
        t = m @ n.mT
        if term.kind == "at_most":
            return _up_to(0.0, t)
        return torch.log(term.value + t) if term.kind == "log_form" else t

    def logits(self, channel: LSE | EXPECT) -> Tensor:
        """theta s + w, and -inf for pairs that are not allowed."""
        z = self.s if channel.theta == 1.0 else channel.theta * self.s
        if isinstance(channel, LSE) and channel.relax is not None:
            offset = channel.relax if channel.theta > 0 else 1.0 - channel.relax
            z = channel.theta * self.pace(channel) * (self.s - offset)
        if channel.theta == 0.0:
            z = torch.zeros_like(self.s)
        weight, mask = self.log_weight(channel), self.allowed(channel)
        if weight is not None:
            z = torch.where(weight == NEG_INF, NEG_INF, z + weight)
        return z if mask is None else z.masked_fill(~mask, NEG_INF)

    def pace(self, channel: LSE) -> Tensor:
        """``[s + m]_+``, or ``[1 + m - s]_+`` for a negative theta; a constant for autograd."""
        assert channel.relax is not None
        s = self.s.detach()
        return torch.relu((s if channel.theta > 0 else 1.0 - s) + channel.relax)

    def argument(self, channel: SUM) -> Tensor:
        """u = sign (s - shift)."""
        u = self.s
        if channel.shift is not None:
            u = u - self.along(channel.axis, self.call.named(channel.axis, channel.shift))
        return u if channel.sign == 1.0 else channel.sign * u

    def weighted(self, channel: Channel, values: Tensor) -> Tensor:
        """e^w values; 0 for pairs that are not allowed, whatever their value is."""
        weight, mask = self.log_weight(channel), self.allowed(channel)
        if weight is not None:
            kept = weight != NEG_INF
            mask = kept if mask is None else mask & kept
            values = values * torch.where(kept, weight, 0.0).exp()
        return values if mask is None else torch.where(mask, values, 0.0)


def _up_to(bound: Tensor | float, value: Tensor) -> Tensor:
    """The log-weight of values with an upper bound; NaN stays NaN."""
    return torch.where(value <= bound, 0.0, torch.where(value > bound, NEG_INF, value + bound))


def passes(test: Test, a: Tensor, b: Tensor) -> Tensor:
    if test.op == "eq":
        return a == b
    if test.op == "ne":
        return a != b
    if test.op == "lt":
        return a < b
    if test.width < 0:
        return torch.zeros_like(a == b)
    return (a <= _raised(b, test.width)) & (b <= _raised(a, test.width))


def _raised(ids: Tensor, width: int) -> Tensor:
    """``ids + width``, clamped to the largest int64. (The difference of two ids may not fit in
    int64.)"""
    return ids.clamp_max(torch.iinfo(torch.int64).max - width) + width


def times(scale: Tensor | None, vector: Tensor | None) -> Tensor | None:
    if scale is None or vector is None:
        return vector if scale is None else scale
    return scale * vector


def rounded(call: PairCall) -> PairCall:
    """The call with x and y rounded to the compute dtype and stored in the statistics' dtype, so
    that their products are exact and the sums are fp32 or fp64."""

    def operand(tensor: Tensor) -> Tensor:
        return tensor.to(call.compute_dtype).to(call.stat_dtype)

    return call.replace(x=operand(call.x), y=None if call.y is None else operand(call.y))


def unit(call: PairCall) -> PairCall:
    """A rounded call; with ``cosine``, x and y are replaced by their unit vectors."""
    if not call.cosine:
        return call

    y = None if call.y is None else unit_vectors(call.y)
    return call.replace(x=unit_vectors(call.x), y=y)


def block_elements(device: torch.device) -> int:
    """The number of scores per block; several temporaries of this size exist at a time. On a CPU
    they should fit in its cache; on a GPU they should be worth a kernel launch."""
    return 1 << 19 if device.type == "cpu" else 1 << 22


def blocks(call: PairCall) -> Iterator[tuple[slice, slice]]:
    """The rows and columns of every block, about twice as wide as high; none if there are no pairs.
    A row's blocks come from left to right, a column's blocks from top to bottom."""
    m, n = call.length(ROW), call.length(COL)
    if m == 0 or n == 0:
        return
    area = max(1, block_elements(call.x.device) // max(1, call.batch))
    height = min(m, max(1, math.isqrt(area // 2)))
    width = min(n, area // height)
    height = min(m, area // width)
    for i in range(0, m, height):
        for j in range(0, n, width):
            yield slice(i, min(i + height, m)), slice(j, min(j + width, n))


def dim_of(axis: Axis) -> int:
    return 2 if axis == ROW else 1
