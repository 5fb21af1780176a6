"""Statistics of several column blocks, or shards, from the statistics of each block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import gumbel, position_keys
from ..channel import EXPECT, LSE, MAX, SUM, Channel
from ..options import Count, Seed, validated
from .results import Expectation, Maximum, TopK

__all__ = ["merge", "merge_topk"]


def merge(channel: Channel, parts: Sequence[Any], offsets: Sequence[int] | None = None) -> Any:
    """Merge the results of ``channel`` for disjoint blocks of the axis that it reduces.

    ``LSE`` takes the log-sum-exp, ``SUM`` adds, ``EXPECT`` averages weighted by the softmax mass of
    each block, and ``MAX`` takes the largest value and, among equal ones, the smallest index. The
    order of the blocks does not matter. A plain ``logaddexp`` has NaN gradients where every block
    is empty; here they are zero.

    Args:
        channel: the channel that returned every part.
        parts: the results, one per block, of equal shapes.
        offsets: the position of each block's first element, added to the indices of ``MAX``.

    Raises:
        ValueError: ``parts`` is empty, or ``offsets`` has another length.
    """
    if not isinstance(channel, Channel):
        raise TypeError(f"channel: got {type(channel).__name__}, expected a channel")
    _check_parts(parts, offsets, RESULTS.get(type(channel), Tensor))
    if isinstance(channel, LSE):
        return log_sum_exp(torch.stack(list(parts)))
    if isinstance(channel, SUM):
        return torch.stack(list(parts)).sum(0)
    if isinstance(channel, MAX):
        return _maximum(parts, offsets or [0] * len(parts))
    lse = torch.stack([part.lse for part in parts])
    mass = _softmax(lse)
    value = (mass * torch.stack([part.value for part in parts])).sum(0)
    return Expectation(value, log_sum_exp(lse))


#: what a channel returns in place of a tensor
RESULTS: dict[type, type] = {MAX: Maximum, EXPECT: Expectation}


@validated
def merge_topk(
    parts: Sequence[TopK],
    offsets: Sequence[int] | None = None,
    *,
    k: Count | None = None,
    largest: bool = True,
    sample: float | None = None,
    seed: Seed | None = None,
    rows: Tensor | None = None,
) -> TopK:
    """Merge the top-k results of column blocks, or shards, into the k best of all columns: what
    :func:`~contrastloss.ops.pair_topk` returns for all columns at once.

    Args:
        parts: the results of ``pair_topk``, one per block, in any order, with equal leading shapes.
        offsets: the position of each block's first column, added to the indices.
        k: how many; by default as many as the first part has.
        largest: the value used for the parts.
        sample, seed: the values used for the parts. The parts must have been drawn with positions
            among all columns, ``cols={INDEX: offset + arange}``.
        rows: the row positions used for the parts, if they are not 0, 1, 2, ....

    Raises:
        ValueError: ``parts`` is empty, or ``offsets`` has another length.
    """
    _check_parts(parts, offsets, TopK)
    k = parts[0].values.shape[-1] if k is None else k
    shifts = offsets or [0] * len(parts)
    index = torch.cat(
        [torch.where(p.indices < 0, -1, p.indices + o) for p, o in zip(parts, shifts, strict=True)],
        -1,
    )
    values = torch.cat([part.values for part in parts], -1)
    keys = values.detach() if largest else -values.detach()
    if sample is not None:
        if seed is None:
            raise ValueError("seed: got None, expected that of the parts")
        if rows is None:
            rows = torch.arange(index.shape[-2], device=index.device)
        noise = gumbel(position_keys(rows, seed, 0).unsqueeze(-2), position_keys(index, seed, 1))
        keys = sample * keys + noise
    keys = torch.where(index < 0, -torch.inf, keys)
    # best first and, among equals, the smaller column first
    order = index.argsort(dim=-1, stable=True)
    order = order.gather(-1, keys.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    order = order[..., :k]
    values, index = values.gather(-1, order), index.gather(-1, order)
    missing = k - index.shape[-1]
    if missing > 0:
        values = torch.nn.functional.pad(values, (0, missing), value=-torch.inf)
        index = torch.nn.functional.pad(index, (0, missing), value=-1)
    return TopK(torch.where(index < 0, -torch.inf, values), index)


def _check_parts(parts: Any, offsets: Any, kind: type) -> None:
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, kind) for part in parts):
        raise TypeError(f"parts: got {parts!r:.60}, expected a list of {kind.__name__}")
    if not parts:
        raise ValueError("parts: got an empty sequence, expected at least one block")
    if offsets is None:
        return
    if not isinstance(offsets, (list, tuple)):
        raise TypeError(f"offsets: got {type(offsets).__name__}, expected a list of integers")
    for offset in offsets:
        if isinstance(offset, bool) or not isinstance(offset, (int, torch.SymInt)):
            raise TypeError(f"offsets: got {type(offset).__name__}, expected integers")
    if len(offsets) != len(parts):
        raise ValueError(f"offsets: got {len(offsets)}, expected {len(parts)}, one per part")


def log_sum_exp(values: Tensor) -> Tensor:
    """``log sum_b exp(values[b])``: -inf with zero gradient where every block is -inf."""
    top = values.detach().amax(0)
    shift = torch.where(top == -torch.inf, 0.0, top)
    total = torch.exp(values - shift).sum(0)
    empty = total == 0
    return torch.where(empty, -torch.inf, torch.log(torch.where(empty, 1.0, total)) + shift)


def _softmax(values: Tensor) -> Tensor:
    """Softmax over blocks, 0 where every block is empty."""
    top = values.detach().amax(0)
    e = torch.exp(values - torch.where(top == -torch.inf, 0.0, top))
    total = e.sum(0)
    return e / torch.where(total == 0, 1.0, total)


def _maximum(parts: Sequence[Maximum], offsets: Sequence[int]) -> Maximum:
    values = torch.stack([part.value for part in parts])
    index = torch.stack(
        [torch.where(p.index < 0, -1, p.index + o) for p, o in zip(parts, offsets, strict=True)]
    )
    best = values.detach().amax(0)
    hit = ((values == best) & (index >= 0)) | values.isnan()
    nowhere = torch.iinfo(index.dtype).max
    first = torch.where(hit, index, nowhere)
    block = first.argmin(0, keepdim=True)
    empty = first.amin(0) == nowhere
    value, index = values.gather(0, block)[0], index.gather(0, block)[0]
    return Maximum(torch.where(empty, -torch.inf, value), torch.where(empty, -1, index))
