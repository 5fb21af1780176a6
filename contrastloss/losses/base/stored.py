"""The columns of an :class:`~contrastloss.memory.EmbeddingQueue`: which of them count for a row,
and how their statistics join those of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...channel import Channel, Test, differs
from ...memory import EmbeddingQueue, Snapshot
from .scores import Scores

__all__ = ["PAIRS", "beside", "held_by", "over_stored", "selection", "stored"]

SLOT, ID = "slot", "instance id"
#: the pairs of a row and a stored column: all; without empty slots; and without the row's instance
PAIRS: tuple[tuple[Test, ...], ...] = ((), (differs(SLOT),), (differs(SLOT), differs(ID)))


def held_by(queue: EmbeddingQueue | Tensor) -> Snapshot:
    """What a queue holds; a tensor is one of which no slot is empty."""
    return Snapshot(queue, None, None, None) if isinstance(queue, Tensor) else queue.snapshot()


def stored(*channels: Channel) -> tuple[tuple[Channel, ...], ...]:
    """Row channels as :func:`over_stored` asks for them. A loss has them made once, since a
    compiled forward cannot."""
    return tuple(
        tuple(replace(channel, pairs=(*channel.pairs, *tests)) for channel in channels)
        for tests in PAIRS
    )


def selection(
    held: Snapshot, ids: Tensor | None = None, labels: Mapping[str, Tensor] | None = None
) -> tuple[int, dict[str, Tensor], dict[str, Tensor]]:
    """Which of the tests apply, and the operands of rows and columns that they and labels call."""
    rows, cols = dict(labels or {}), {}
    for name in rows:
        assert held.labels is not None
        cols[name] = held.labels
    if held.steps is None:
        return 0, rows, cols
    rows[SLOT], cols[SLOT] = torch.full((1,), -1, device=held.steps.device), held.steps
    if ids is None:
        return 1, rows, cols
    assert held.ids is not None
    rows[ID], cols[ID] = ids, held.ids
    return 2, rows, cols


def over_stored(
    scores: Scores,
    channels: Sequence[tuple[Channel, ...]],
    held: Snapshot,
    *,
    count: int | None = None,
    ids: Tensor | None = None,
    labels: Mapping[str, Tensor] | None = None,
) -> list[Any]:
    """The rows of ``scores`` against stored columns.

    Args:
        channels: what :func:`stored` made.
        count: of how many of them, the first ones; None: of all.
        ids: (N,), the rows' instances, to leave out their own stored columns; or None.
        labels: the rows' labels, (N,), under the name by which channels call them.
    """
    which, rows, cols = selection(held, ids, labels)
    return scores.stats(channels[which][:count], rows, cols, columns=held.embeddings)


def beside(channels: Sequence[Channel], batch: Sequence[Any], kept: Sequence[Any]) -> list[Any]:
    """What ``channels`` are over both the columns of a batch and stored ones. The positions that
    ``MAX`` finds are those within either."""
    parts = zip(channels, batch, kept, strict=True)
    return [ops.merge(channel, values) for channel, *values in parts]
