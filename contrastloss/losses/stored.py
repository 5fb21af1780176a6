"""The columns of an :class:`~contrastloss.memory.EmbeddingQueue`: which of them count for a row,
and how their statistics join those of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..channel import Channel, Test, differs
from ..memory import EmbeddingQueue
from .scores import Scores

__all__ = ["beside", "over_queue", "stored"]

SLOT, ID = "slot", "instance id"


def stored(*channels: Channel) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
    """Row channels over the columns of a queue: without empty slots; and also without columns of
    the row's own instance. A loss has them made once, since a compiled forward cannot."""
    filled, others = (differs(SLOT),), (differs(SLOT), differs(ID))

    def narrowed(tests: tuple[Test, ...]) -> tuple[Channel, ...]:
        return tuple(replace(channel, pairs=(*channel.pairs, *tests)) for channel in channels)

    return narrowed(filled), narrowed(others)


def over_queue(
    scores: Scores,
    channels: tuple[tuple[Channel, ...], tuple[Channel, ...]],
    queue: EmbeddingQueue,
    *,
    count: int | None = None,
    ids: Tensor | None = None,
    labels: Mapping[str, Tensor] | None = None,
) -> list[Any]:
    """The rows of ``scores`` against what a queue holds.

    Args:
        channels: what :func:`stored` made.
        count: of how many of them, the first ones; None: of all.
        ids: (N,), the rows' instances, to leave out their own stored columns; or None.
        labels: the rows' labels, (N,), under the name by which channels call them.
    """
    held = queue.snapshot()
    rows = {SLOT: torch.full((1,), -1, device=held.steps.device), **(labels or {})}
    cols = {SLOT: held.steps}
    for name in labels or {}:
        assert held.labels is not None
        cols[name] = held.labels
    if ids is not None:
        assert held.ids is not None
        rows[ID], cols[ID] = ids, held.ids
    asked = channels[ids is not None][:count]
    return scores.stats(asked, rows, cols, columns=held.embeddings)


def beside(channels: Sequence[Channel], batch: Sequence[Any], queue: Sequence[Any]) -> list[Any]:
    """What ``channels`` are over both the columns of a batch and those of a queue. The positions
    that ``MAX`` finds are those within either."""
    parts = zip(channels, batch, queue, strict=True)
    return [ops.merge(channel, values) for channel, *values in parts]
