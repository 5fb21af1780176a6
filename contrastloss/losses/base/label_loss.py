"""What losses of labelled rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...channel import MAX, SUM, Channel, Test, differs, same
from ...memory import EmbeddingQueue
from .blocks import BATCH, ID, Block, Turned
from .loss import nan_rows
from .negatives import NEGATIVES, Negatives
from .pair_loss import PairLoss
from .scores import Scores

__all__ = ["LABEL", "TAKEN", "LabelLoss", "counted_of", "largest_class", "not_ignored"]

LABEL, TAKEN = "label", "taken"
_POSITIVES = (same(LABEL),)
_STATISTICS = (MAX(pairs=_POSITIVES), SUM("id", pairs=_POSITIVES), SUM("one", pairs=_POSITIVES))


def not_ignored(labels: Tensor, ignore_index: int | None) -> Tensor | None:
    """Which labels are not ignored; None: all. Torch would wrap the ignored number to a narrow
    dtype, in which it may be a class."""
    if ignore_index is None:
        return None
    return (labels if labels.is_floating_point() else labels.long()) != ignore_index


class LabelLoss(PairLoss):
    """Rows of z against each other: those of the same label are positives, all others negatives.

    z is (N, D), or (N, V, D) for V views of each instance, which share its label. ``memory`` is an
    EmbeddingQueue made with ``labels=True``, whose columns join those of the batch as further
    positives and negatives.

    Args:
        ignore_index: rows with this label take no part; None: there is no such label. They have
            loss 0 and are not counted, and no row meets them, nor stored embeddings with this
            label.
    """

    _: KW_ONLY
    ignore_index: int | None = -100

    inputs: ClassVar[Mapping[str, str]] = {
        **{"z": "N D | N V D", "labels": "N int", **NEGATIVES},
        **{"row_weight": "N float", "log_q": "N float"},
    }
    negatives = (differs(LABEL),)
    PREPARED = frozenset({"ignore_index"})

    def prepare(self) -> None:
        super().prepare()
        if self.ignore_index is not None:
            self._channels = tuple([_of_taken(channel) for channel in self._channels])
            hardest, everything = self._extra
            self._extra = _of_taken(hardest), _of_taken(everything)
        self._channels_by_ids = tuple([self.by_ids(channel) for channel in self._channels])
        self._extra_by_ids = self.by_ids(self._extra[0]), self.by_ids(self._extra[1])

    def by_ids(self, channel: Channel) -> Channel:
        return channel.adapted((*channel.pairs, differs(ID)), channel.axis)

    def given(self, *args: Any, **kwargs: Any) -> tuple[Block, ...]:
        blocks = super().given(*args, **kwargs)
        for block in blocks:
            block.passing = frozenset({TAKEN})
        return blocks

    def taken(self, labels: Tensor) -> Tensor | None:
        """Which labels are not ignored; None: all."""
        return not_ignored(labels, self.ignore_index)

    def ids(self, labels: Tensor) -> dict[str, Tensor]:
        """What channels compare of rows with these labels."""
        taken = self.taken(labels)
        return {LABEL: labels} if taken is None else {LABEL: labels, TAKEN: taken}

    def tests(self, scores: Scores, pairs: tuple[Test, ...]) -> tuple[Test, ...]:
        """Tests of pairs, with those of ignored labels and of equal ids."""
        if self.ignore_index is not None and pairs != _POSITIVES:
            pairs = (*pairs, same(TAKEN))
        return pairs if scores.apart is None else (*pairs, differs(ID))

    def stored(self, *args: Any, **kwargs: Any) -> tuple[Block, ...]:
        blocks = super().stored(*args, **kwargs)
        for block in blocks:
            stored = block.block if isinstance(block, Turned) else block
            stored.ids = {**stored.ids, **self.ids(stored.ids[LABEL])}
        return blocks

    def combine(self, *values: Any) -> tuple[Tensor, Tensor | None]:
        """The losses, and which rows count or how many terms they sum, from the channels' values
        and the :class:`Scores`; None: every row counts."""
        raise NotImplementedError

    def evaluate(
        self, scores: Scores, rows: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Sequence[Any]]:
        """What ``combine`` returns, and the values for ``return_stats``."""
        channels = self._channels if scores.apart is None else self._channels_by_ids
        found, values = self.label_statistics(scores, channels, rows)
        return *self.combine(*found, scores), values

    def label_statistics(
        self,
        scores: Scores,
        channels: Sequence[Channel],
        rows: Mapping[str, Tensor],
        cols: Mapping[str, Tensor] | None = None,
    ) -> tuple[list[Any], Sequence[Any]]:
        """The values of the channels and those for ``return_stats``, of one pass."""
        more: tuple[Channel, ...] = _STATISTICS if self.return_stats else ()
        if scores.apart is not None:
            more = tuple([self.by_ids(channel) for channel in more])
        found, extra = self.measure(scores, (*channels, *more), rows, cols)
        return found[: len(channels)], (*extra, *found[len(channels) :])

    def labelled(
        self,
        losses: Tensor,
        counted: Tensor | None,
        values: Sequence[Any],
        nan: Tensor | None = None,
        taken: Tensor | None = None,
    ) -> Any:
        """The reduced loss, with its statistics where they were asked for, from the values that
        :meth:`label_statistics` returned for them; of rows that are ``taken``."""
        loss = self.reduce(losses, counted, nan)
        if not self.return_stats:
            return loss
        hardest, lse, best, total, count = values
        some = count > 0 if taken is None else (count > 0) & taken
        mean = torch.where(some, total / count.clamp_min(1), 0.0)
        return loss, self.statistics((hardest, lse), mean, best.value, some)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(negatives, negatives_mask, negatives_offsets, negatives_ids)
        scores = self.among(z, further, ids, memory, logit_scale, logit_bias)
        return self.by_labels(scores, z, labels, ids, row_weight)

    def among(
        self,
        z: Tensor,
        negatives: Negatives,
        ids: Tensor | None,
        memory: EmbeddingQueue | None,
        logit_scale: Tensor | float | None,
        logit_bias: Tensor | float | None,
    ) -> Scores:
        """The scores of all views with each other, and with further columns."""
        views = 1 if z.ndim == 2 else z.shape[1]
        given = self.given(z, negatives, ids, views=views)
        stored = self.stored(memory, ids, ("z", z), labels=LABEL, views=views, of_batch=True)
        blocks = (BATCH, *given, *stored)
        return self.scores(z.flatten(0, -2), None, logit_scale, logit_bias, blocks=blocks)

    def by_labels(
        self,
        scores: Scores,
        z: Tensor,
        labels: Tensor,
        ids: Tensor | None,
        row_weight: Tensor | None,
    ) -> Any:
        """The loss of views z, (N, D) or (N, V, D), with these labels."""
        views = 1 if z.ndim == 2 else z.shape[1]
        rows = self.ids(labels if views == 1 else labels.repeat_interleave(views))
        scores.taken = rows.get(TAKEN)
        if ids is not None and views == 1:  # an instance's own views are positives
            scores.apart = rows[ID] = ids
        losses, counted, values = self.evaluate(scores, rows)
        losses = losses.reshape(z.shape[:-1])
        if row_weight is not None:
            weight = row_weight.to(losses.dtype)
            losses = losses * (weight if z.ndim == 2 else weight[:, None])
        counted = counted_of(counted, rows.get(TAKEN))
        counted = counted if counted is None else counted.reshape(z.shape[:-1])
        return self.labelled(losses, counted, values, nan_rows(z), rows.get(TAKEN))


def counted_of(counted: Tensor | None, taken: Tensor | None) -> Tensor | None:
    """Which rows count, or how many terms they sum: 0 of those that are not taken."""
    if counted is None or taken is None:
        return taken if counted is None else counted
    return torch.where(taken, counted, torch.zeros_like(counted))


def _of_taken(channel: Channel) -> Channel:
    """The channel of columns that are taken, for a row that is. A row that is has another label
    than those that are not."""
    if _POSITIVES[0] in channel.pairs:
        return channel
    return channel.adapted((*channel.pairs, same(TAKEN)), channel.axis)


def largest_class(labels: Tensor) -> int:
    """How many rows the largest class has; this synchronises a GPU."""
    sizes = torch.unique(labels, return_counts=True)[1]
    return int(sizes.max()) if len(sizes) else 0
