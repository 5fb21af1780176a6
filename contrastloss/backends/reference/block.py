"""A block of rows: its scores, and what the channels ask of each pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ...channel import COL, EXPECT, LSE, ROW, SUM, Axis, Channel, Term, Test
from ..call import PairCall
from .maths import NEG_INF, inverse_norm

#: scores of one block of rows; a handful of temporaries of this size live at a time
BLOCK_ELEMENTS = 1 << 21


class Block:
    """Rows ``start .. stop`` of a rounded call of unit vectors."""

    def __init__(self, call: PairCall, start: int, stop: int):
        self.call, self.rows = call, slice(start, stop)
        self.x, self.y = call.x[:, self.rows], call.columns
        self.dot = self.x @ self.y.mT
        self.s = self._scores()

    def _scores(self) -> Tensor:
        """s = scale a b <x, y> + beta + gamma, in fp32 or fp64 after the product."""
        call, s = self.call, self.dot
        left = times(call.scale, self.row(call.row_scale))
        if left is not None:
            s = s * left
        if call.col_scale is not None:
            s = s * call.col_scale[:, None, :]
        if call.row_bias is not None:
            s = s + self.row(call.row_bias)
        if call.col_bias is not None:
            s = s + call.col_bias[:, None, :]
        return s

    def row(self, vector: Tensor | None) -> Tensor | None:
        """The block's part of a row vector, (B, m, 1)."""
        return None if vector is None else vector[:, self.rows, None]

    def along(self, axis: Axis, vector: Tensor) -> Tensor:
        """A vector of ``axis``, shaped to stand beside the scores."""
        return vector[:, self.rows, None] if axis == ROW else vector[:, None, :]

    def positions(self, axis: Axis) -> Tensor:
        device = self.s.device
        if axis == COL:
            return torch.arange(self.s.shape[2], device=device)[None, None, :]
        return torch.arange(self.rows.start, self.rows.stop, device=device)[None, :, None]

    def operands(self, name: str) -> tuple[Tensor, Tensor]:
        found = []
        for axis in (ROW, COL):
            vector = self.call.operand(axis, name)
            found.append(self.positions(axis) if vector is None else self.along(axis, vector))
        return found[0], found[1]

    def allowed(self, channel: Channel) -> Tensor | None:
        """Which pairs pass the channel's tests, (B or 1, m, N); None means all of them."""
        mask = None
        if self.call.y is None:
            mask = self.positions(ROW) != self.positions(COL)
        for test in channel.pairs:
            passed = _passes(test, *self.operands(test.name))
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
        if term.kind == "row":
            return self.along(ROW, call.operand(ROW, name).to(dtype))
        if term.kind == "col":
            return self.along(COL, call.operand(COL, name).to(dtype))
        if term.kind == "distance":
            a, b = (v.to(dtype) for v in self.operands(name))
            return term.value * torch.log1p((a - b).abs())
        if term.kind == "differing":
            count = sum((a != b).to(dtype) for a, b in map(self.operands, term.names))
            return torch.log(count)
        m, n = call.operand(ROW, name)[:, self.rows].to(dtype), call.operand(COL, name).to(dtype)
        t = m @ n.mT
        return torch.log(term.value + t) if term.kind == "log_form" else t

    def logits(self, channel: LSE | EXPECT) -> Tensor:
        """theta s + w, -inf where the pair is not allowed."""
        z = self.s if channel.theta == 1.0 else channel.theta * self.s
        if channel.theta == 0.0:
            z = torch.zeros_like(self.s)
        weight, mask = self.log_weight(channel), self.allowed(channel)
        if weight is not None:
            z = torch.where(weight == NEG_INF, NEG_INF, z + weight)
        return z if mask is None else z.masked_fill(~mask, NEG_INF)

    def argument(self, channel: SUM) -> Tensor:
        """u = sign (s - shift)."""
        u = self.s
        if channel.shift is not None:
            u = u - self.along(channel.axis, self.call.operand(channel.axis, channel.shift))
        return u if channel.sign == 1.0 else channel.sign * u

    def weighted(self, channel: Channel, values: Tensor) -> Tensor:
        """e^w values, 0 where the pair is not allowed whatever the value is."""
        weight, mask = self.log_weight(channel), self.allowed(channel)
        if weight is not None:
            kept = weight != NEG_INF
            mask = kept if mask is None else mask & kept
            values = values * torch.where(kept, weight, 0.0).exp()
        return values if mask is None else torch.where(mask, values, 0.0)


def _passes(test: Test, a: Tensor, b: Tensor) -> Tensor:
    if test.op == "eq":
        return a == b
    if test.op == "ne":
        return a != b
    if test.op == "lt":
        return a < b
    return (a - b).abs() <= test.width


def times(scale: Tensor | None, vector: Tensor | None) -> Tensor | None:
    if scale is None or vector is None:
        return vector if scale is None else scale
    return scale * vector


def rounded(call: PairCall) -> PairCall:
    """The call with x and y rounded to the compute dtype and held in the statistics' dtype, so
    that their products are exact and the sums are fp32 or fp64."""

    def operand(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return tensor.to(call.compute_dtype).to(call.stat_dtype)

    return replace(call, x=operand(call.x), y=operand(call.y))


def unit(call: PairCall) -> PairCall:
    """A rounded call in which x and y are the unit vectors that ``cosine`` speaks of."""
    if not call.cosine:
        return call

    def operand(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor * inverse_norm(tensor).unsqueeze(-1)

    return replace(call, x=operand(call.x), y=operand(call.y))


def blocks(call: PairCall) -> Iterator[tuple[int, int]]:
    m, n = call.length(ROW), call.length(COL)
    step = max(1, BLOCK_ELEMENTS // max(1, n * call.batch))
    return ((start, min(start + step, m)) for start in range(0, m, step))


def dim_of(axis: Axis) -> int:
    return 2 if axis == ROW else 1
