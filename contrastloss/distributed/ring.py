"""The ring strategy: column blocks pass from rank to rank. A rank holds two blocks at a time,
whatever the number of ranks.

In step k, rank r computes with the columns of rank r - k and sends them on to rank r + 1. The
accumulators of a block (statistics in the forward pass, gradients in the backward pass) follow it
from rank to rank; the part computed by the block's own rank stays there. So blocks and accumulators
each make W - 1 hops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..backends import NAMES, Gradients, Operands, PairCall, mask
from ..channel import COL, MAX, ROW, Axis, Channel
from ..ops import merge
from ..ops.pair_stats import backward, forward
from ..ops.results import named
from ..ops.second import without_second
from ..program import Program
from .peers import OVER_RANKS, Layout, Peers

__all__ = ["RingStats"]

#: the operands that move with a column block, together with the named vectors of columns
_MOVING = ("y", "col_scale", "col_bias")


def _split(operands: Operands) -> tuple[list[Tensor], list[Tensor]]:
    """The operands that stay, and those that move; of gradients likewise."""
    *tensors, rows, cols = operands
    pairs = list(zip(NAMES, tensors, strict=True))
    stay = [*(v for name, v in pairs if name not in _MOVING), *rows]
    move = [*(v for name, v in pairs if name in _MOVING), *cols]
    return [v for v in stay if v is not None], [v for v in move if v is not None]


def _joined(like: Operands, stay: Sequence[Tensor], move: Sequence[Tensor]) -> Operands:
    """The operands that :func:`_split` gave; None in the same places as in ``like``."""
    own, block = iter(stay), iter(move)
    *tensors, rows, cols = like
    found = [
        v if v is None else next(block if name in _MOVING else own)
        for name, v in zip(NAMES, tensors, strict=True)
    ]
    rows = tuple([v if v is None else next(own) for v in rows])
    cols = tuple([v if v is None else next(block) for v in cols])
    return Operands._make((*found, rows, cols))


@dataclass(frozen=True)
class Ring:
    """What all steps of one call share; the call is without operands."""

    peers: Peers
    layout: Layout
    call: PairCall

    @property
    def program(self) -> Program:
        return self.call.program

    def step(self, call: PairCall, block: Sequence[Tensor]) -> PairCall:
        """The call of one step: this rank's rows and the columns of ``block``."""
        own, _ = _split(call.operands)
        operands = _joined(call.operands, own, block)
        return PairCall(operands._replace(y=operands.y.to(call.stat_dtype)), *call[1:])

    def outputs(self, axis: Axis) -> list[int]:
        """Positions of the values along ``axis`` among all values of the channels."""
        every = [channel for channel in self.program.channels for _ in channel.returns]
        return [k for k, channel in enumerate(every) if channel.axis == axis]

    def channels(self, axis: Axis) -> list[Channel]:
        return [channel for channel in self.program.channels if channel.axis == axis]

    # ---- moving ---------------------------------------------------------------------------------

    def owner(self, step: int) -> int:
        return (self.peers.rank - step) % self.peers.world

    @property
    def next(self) -> int:
        return (self.peers.rank + 1) % self.peers.world

    @property
    def previous(self) -> int:
        return (self.peers.rank - 1) % self.peers.world

    def move(self, values: Sequence[Tensor], step: int) -> Moving:
        """Send on tensors of the block of ``step``, and receive those of the next step's block."""
        n = self.layout.cols[self.owner(step + 1)]
        into = [v.new_empty(n, *v.shape[1:]) for v in values]
        group, tag = self.peers.group, self.layout.tag
        sent = [
            dist.P2POp(dist.isend, v.contiguous(), group=group, tag=tag, group_peer=self.next)
            for v in values
            if v.numel()
        ]
        received = [
            dist.P2POp(dist.irecv, v, group=group, tag=tag, group_peer=self.previous)
            for v in into
            if v.numel()
        ]
        with self.peers.expecting(self.previous):
            works = dist.batch_isend_irecv(sent + received) if sent or received else []
        whose = [self.next] * len(sent) + [self.previous] * len(received)
        # NCCL returns one work for all operations
        return Moving(self, into, [*zip(whose, works, strict=False)], [op.tensor for op in sent])


@dataclass
class Moving:
    ring: Ring
    into: list[Tensor]
    works: list[tuple[int, Any]]  # each with the rank that it waits for
    kept: list[Tensor]  # kept alive until they are sent

    def arrived(self) -> list[Tensor]:
        for rank, work in self.works:
            with self.ring.peers.expecting(rank):
                work.wait()
        self.works, self.kept = [], []
        return self.into


def _global(channels: Sequence[Channel], values: list[Tensor], offset: int) -> list[Any]:
    """Channel values as results; positions of maxima are converted to positions over all ranks."""
    found, rest = [], iter(values)
    for channel in channels:
        parts = [next(rest) for _ in channel.returns]
        if isinstance(channel, MAX):
            parts[1] = torch.where(parts[1] < 0, -1, parts[1] + offset)
        found.append(named(channel, parts))
    return found


def _local(index: Tensor, first: int, n: int) -> Tensor:
    """Positions over all ranks as positions within one block; -1 outside the block."""
    inside = (index >= first) & (index < first + n)
    return torch.where(inside, index - first, -1)


def _flat(results: Sequence[Any]) -> list[Tensor]:
    return [v for r in results for v in ([r] if isinstance(r, Tensor) else r)]


def _merged(channels: Sequence[Channel], old: list[Any] | None, new: list[Any]) -> list[Any]:
    if old is None:
        return new
    return [merge(c, [a, b]) for c, a, b in zip(channels, old, new, strict=True)]


class RingStats(torch.autograd.Function):
    """``apply(ring, *operands)``, like :class:`contrastloss.ops.PairStats`: row values for this
    rank's rows over all columns, column values for this rank's columns over all rows."""

    @staticmethod
    def forward(ctx: Any, ring: Ring, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        results = dict(_forward(ring, ring.call.given(tensors)))
        outputs = [results[k] for k in sorted(results)]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[o for o in outputs if not o.is_floating_point()])
        ctx.save_for_backward(*tensors, *outputs)
        ctx.ring, ctx.n_outputs = ring, len(outputs)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, n = ctx.saved_tensors, ctx.n_outputs
        call = ctx.ring.call.given(saved[:-n])
        needs = mask(ctx.needs_input_grad[1 : 1 + len(NAMES)])
        with torch.no_grad():
            found = _Backward(ctx.ring, call, saved[-n:], grads, needs).run()
        return None, *without_second(OVER_RANKS, found.flat(), [*saved, *grads])


def _forward(ring: Ring, call: PairCall) -> Iterator:
    """Yield pairs (position of an output, its values)."""
    row_channels, col_channels = ring.channels(ROW), ring.channels(COL)
    own_row = ring.layout.offset(ROW, ring.peers.rank)
    _, block = _split(call.operands)
    rows: list[Any] | None = None
    home: list[Any] = []
    arriving = None  # statistics of this step's columns from the ranks before this one
    for step in range(ring.peers.world):
        moving = ring.move(block, step) if step + 1 < ring.peers.world else None
        found = forward(ring.step(call, block))
        first = ring.layout.offset(COL, ring.owner(step))
        by_row = [found[k] for k in ring.outputs(ROW)]
        rows = _merged(row_channels, rows, _global(row_channels, by_row, first))
        part = _global(col_channels, [found[k] for k in ring.outputs(COL)], own_row)
        if step == 0:
            home = part
        else:
            before = None if arriving is None else _global(col_channels, arriving.arrived(), 0)
            arriving = ring.move(_flat(_merged(col_channels, before, part)), step)
        if moving is not None:
            block = moving.arrived()
    if arriving is not None:
        home = _merged(col_channels, home, _global(col_channels, arriving.arrived(), 0))
    yield from zip(ring.outputs(ROW), _flat(rows or []), strict=True)
    yield from zip(ring.outputs(COL), _flat(home), strict=True)


class _Backward:
    """The backward round: columns travel with their statistics and the gradients of these. The
    gradients of the columns are summed on the way, in the statistics' dtype."""

    def __init__(
        self,
        ring: Ring,
        call: PairCall,
        outputs: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: int,
    ) -> None:
        self.ring, self.call, self.outputs, self.needs = ring, call, outputs, needs
        by_col = ring.outputs(COL)
        #: every column value gets a gradient, since all ranks have to send the same tensors
        self.grads = [
            torch.zeros_like(o) if g is None and k in by_col and o.is_floating_point() else g
            for k, (o, g) in enumerate(zip(outputs, grads, strict=True))
        ]
        self.by_col = by_col
        self.live = mask([g is not None for g in self.grads])

    def run(self) -> Gradients:
        ring = self.ring
        if ring.peers.direct(self.outputs[0].device):
            # find a missing rank here: in the ring, a neighbour that waits for it would be blamed
            ring.peers.everyone(torch.zeros(1, dtype=torch.uint8), ring.layout.tag)
        _, block = _split(self.call.operands)
        size = len(block)
        block += [self.outputs[k] for k in self.by_col]
        block += [g for k in self.by_col if (g := self.grads[k]) is not None]
        own: list[Tensor] = []
        home: list[Tensor] = []
        arriving: Moving | None = None
        for step in range(ring.peers.world):
            moving = ring.move(block, step) if step + 1 < ring.peers.world else None
            found = self._step(step, block[:size], block[size:])
            mine, theirs = _split(found)
            like = found.map(lambda gradient: True)
            del found  # it would keep a block until the next step is done
            own = _added(own, mine)
            if step == 0:
                home = theirs
            else:
                if arriving is not None:
                    theirs = _added(arriving.arrived(), theirs)
                arriving = ring.move(theirs, step)
            if moving is not None:
                block = moving.arrived()
        if arriving is not None:
            home = _added(home, arriving.arrived())
        return _joined(like, own, home).map(lambda g, t: g.to(t.dtype), self.call.operands)

    def _step(self, step: int, block: list[Tensor], rest: list[Tensor]) -> Gradients:
        """Gradients from the pairs of this rank's rows with the columns of one rank."""
        layout, rank, owner = self.ring.layout, self.ring.peers.rank, self.ring.owner(step)
        outputs, grads = list(self.outputs), list(self.grads)
        travelling = iter(rest)
        for k in self.by_col:
            outputs[k] = next(travelling)
        for k in self.by_col:
            if grads[k] is not None:
                grads[k] = next(travelling)
        for k, output in enumerate(outputs):
            if not output.is_floating_point():
                axis = ROW if k in self.by_col else COL
                at = rank if axis == ROW else owner
                outputs[k] = _local(output, layout.offset(axis, at), layout.sizes(axis)[at])
        present = [g for g in grads if g is not None]
        call = self.ring.step(self.call, block)
        return backward(call, outputs, present, self.live, self.needs)


def _added(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    """The sums, computed in place, since each tensor is as large as a block."""
    return [a.add_(b) for a, b in zip(old, new, strict=True)] if old else new
