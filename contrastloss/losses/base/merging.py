"""Channels over several blocks of columns: what each block sees of a channel, and one result of all
of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...channel import EXPECT, LSE, MAX, ROW, SUM, Axis, Channel, Test

__all__ = ["Place", "chosen", "merged", "seen", "tests_left"]


class Place(NamedTuple):
    """What ``MAX`` returns over several blocks: the value, the number of the block in which it
    stands, and the column in it; -1 for none."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    block: Tensor


def tests_left(
    pairs: tuple[Test, ...],
    names: frozenset[str],
    passing: frozenset[str],
    tests: tuple[Test, ...],
) -> tuple[Test, ...] | None:
    """The tests that are left for columns that have ids of these names; None: no pair passes."""
    kept = []
    for test in pairs:
        if test.name in names:
            kept.append(test)
        elif test.op == "eq" and test.name not in passing:
            return None
        elif test.op not in ("eq", "ne"):
            raise ValueError(f"pairs: got {test.op!r} of {test.name!r}, which this block has not")
    return (*kept, *[test for test in tests if test not in kept])


def seen(channel: Channel, *of_block: Any) -> Channel | None:
    """The channel as columns with ids of these names see it; None: no pair passes."""
    return (_adapted if torch.compiler.is_compiling() else _cached)(channel, *of_block)


def _adapted(
    channel: Channel,
    names: frozenset[str],
    passing: frozenset[str],
    tests: tuple[Test, ...],
) -> Channel | None:
    if channel.axis != ROW:
        return None  # a column of the batch meets the batch's rows alone
    pairs = tests_left(channel.pairs, names, passing, tests)
    if pairs is None:
        return None
    weight = tuple([term for term in channel.weight if not passing.issuperset(term.names)])
    if len(weight) == len(channel.weight):
        return channel.adapted(pairs, ROW)
    own = {field: getattr(channel, field) for field in channel.fields}
    return type(channel)(**own, pairs=pairs, weight=weight)


_cached = lru_cache(maxsize=1024)(_adapted)


def chosen(operands: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
    return {name: value for name, value in operands.items() if name in names}


def _nothing(channel: Channel, like: Tensor) -> Any:
    """What a channel returns of no pair, for each row of a vector like this."""
    none = torch.full_like(like, -torch.inf)
    if isinstance(channel, SUM):
        return torch.zeros_like(like)
    if isinstance(channel, LSE):
        return none
    if isinstance(channel, EXPECT):
        return ops.Expectation(torch.zeros_like(like), none)
    return ops.Maximum(none, torch.full_like(like, -1, dtype=torch.int64))


def merged(
    channels: Sequence[Channel],
    parts: Sequence[Sequence[Any]],
    starts: Sequence[int],
    likes: Mapping[Axis, Tensor],
) -> list[Any]:
    """The channels' values over all blocks from those over each of them. ``likes``: vectors like
    those of each axis."""
    results = []
    for channel, *values in zip(channels, *parts, strict=True):
        here = [k for k, value in enumerate(values) if value is not None]
        found = [values[k] for k in here] or [_nothing(channel, likes[channel.axis])]
        if isinstance(channel, MAX):
            offsets = [starts[k] for k in here] or [0]
            results.append(_place(ops.merge(channel, found, offsets), starts))
        else:
            results.append(found[0] if len(found) == 1 else ops.merge(channel, found))
    return results


def _place(found: Any, starts: Sequence[int]) -> Place:
    block = torch.full_like(found.index, -1)
    within = found.index
    for start in starts:
        block = block + (found.index >= start)
    for k, start in enumerate(starts[1:], 1):
        within = torch.where(block == k, found.index - start, within)
    return Place(found.value, within, block)
