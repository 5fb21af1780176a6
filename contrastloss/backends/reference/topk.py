"""The best columns of every row, one block of pairs at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ...channel import COL, MAX, ROW
from ..call import PairCall
from ..topk import Selection
from .block import Block, blocks, rounded, unit
from .maths import NEG_INF
from .noise import gumbel

__all__ = [
    "pair_topk",
]


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """See :func:`contrastloss.backends.reference.pair_topk`; the call has a batch dimension."""
    call = unit(rounded(call))
    shape = (call.batch, call.length(ROW), selection.k)
    keys = torch.full(shape, NEG_INF, dtype=call.stat_dtype, device=call.x.device)
    index = torch.full(shape, -1, dtype=torch.int64, device=call.x.device)
    for rows, cols in blocks(call):
        block = Block(call, rows, cols)
        new = _keys(block, selection)
        here = torch.where(new == NEG_INF, -1, block.positions(COL))
        seen, columns = torch.cat([keys[:, rows], new], 2), torch.cat([index[:, rows], here], 2)
        # stable: among equal keys the earlier one, which has the smaller column, stays in front
        best, order = seen.sort(dim=2, descending=True, stable=True)
        keys[:, rows] = best[..., : selection.k]
        index[:, rows] = columns.gather(2, order[..., : selection.k])
    if selection.sample is None:
        keys = torch.where(index < 0, NEG_INF, _sign(call) * keys)
    return keys, index


def _sign(call: PairCall) -> float:
    (channel,) = call.program.channels
    assert isinstance(channel, MAX)
    return channel.sign


def _keys(block: Block, selection: Selection) -> Tensor:
    """The keys by which the columns of a block are ordered; -inf: no candidate."""
    s, (channel,) = block.s, block.call.program.channels
    if selection.sample is None:
        keys = _sign(block.call) * s
    else:
        assert selection.row_keys is not None
        assert selection.col_keys is not None
        row, col = selection.row_keys[:, block.rows], selection.col_keys[:, block.cols]
        keys = selection.sample * s + gumbel(row[:, :, None], col[:, None]).to(s.dtype)
    # a negative factor would turn a score of -inf into the best key
    out = s.isnan() | keys.isnan() | (_sign(block.call) * s == NEG_INF)
    mask = block.allowed(channel)
    if mask is not None:
        out = out | ~mask
    if selection.lower is not None:
        out = out | ~(s >= block.along(ROW, selection.lower))  # also for a bound of NaN
    if selection.upper is not None:
        out = out | ~(s <= block.along(ROW, selection.upper))
    if selection.ignore is not None:
        out = out | _ignored(block, *selection.ignore)
    return torch.where(out, NEG_INF, keys)


def _ignored(block: Block, offsets: Tensor, columns: Tensor) -> Tensor:
    """The ignore lists of a block's rows, as a mask."""
    found = torch.zeros_like(block.s, dtype=torch.bool)
    rows = block.call.length(ROW)
    for item in range(found.shape[0]):
        ends = offsets[item * rows :][block.rows.start : block.rows.stop + 1]
        first, last = int(ends[0]), int(ends[-1])
        listed = columns[first:last] - block.cols.start
        owner = torch.searchsorted(ends, torch.arange(first, last, device=ends.device), right=True)
        inside = (listed >= 0) & (listed < found.shape[2])
        found[item].index_put_((owner[inside] - 1, listed[inside]), torch.ones_like(inside[inside]))
    return found
