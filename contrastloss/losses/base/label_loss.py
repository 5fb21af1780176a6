"""What losses of labelled rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...channel import MAX, SUM, Channel, differs, same
from ...memory import EmbeddingQueue
from .blocks import BATCH
from .loss import nan_rows
from .pair_loss import PairLoss
from .scores import Scores

__all__ = ["LABEL", "LabelLoss", "largest_class"]

LABEL = "label"
_POSITIVES = (same(LABEL),)
_STATISTICS = (MAX(pairs=_POSITIVES), SUM("id", pairs=_POSITIVES), SUM("one", pairs=_POSITIVES))


class LabelLoss(PairLoss):
    """Rows of z against each other: those of the same label are positives, all others negatives.

    z is (N, D), or (N, V, D) for V views of each instance, which share its label. ``memory`` is an
    EmbeddingQueue made with ``labels=True``, whose columns join those of the batch as further
    positives and negatives.
    """

    inputs: ClassVar[Mapping[str, str]] = {"z": "N D | N V D", "labels": "N int"}
    negatives = (differs(LABEL),)

    def combine(self, *values: Any) -> tuple[Tensor, Tensor | None]:
        """The losses, and which rows count or how many terms they sum, from the channels' values
        and the :class:`Scores`; None: every row counts."""
        raise NotImplementedError

    def evaluate(
        self, scores: Scores, rows: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Sequence[Any]]:
        """What ``combine`` returns, and the values for ``return_stats``."""
        channels = self._channels
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
        more = _STATISTICS if self.return_stats else ()
        found, extra = self.measure(scores, (*channels, *more), rows, cols)
        return found[: len(channels)], (*extra, *found[len(channels) :])

    def labelled(
        self,
        losses: Tensor,
        counted: Tensor | None,
        values: Sequence[Any],
        nan: Tensor | None = None,
    ) -> Any:
        """The reduced loss, with its statistics where they were asked for, from the values that
        :meth:`label_statistics` returned for them."""
        loss = self.reduce(losses, counted, nan)
        if not self.return_stats:
            return loss
        hardest, lse, best, total, count = values
        some = count > 0
        mean = torch.where(some, total / count.clamp_min(1), 0.0)
        return loss, self.statistics((hardest, lse), mean, best.value, some)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        views, flat = 1 if z.ndim == 2 else z.shape[1], z.flatten(0, -2)
        blocks = (BATCH, *self.stored(memory, ids, ("z", z), labels=LABEL, views=views))
        scores = self.scores(flat, None, logit_scale, logit_bias, blocks=blocks)
        rows = {LABEL: labels if views == 1 else labels.repeat_interleave(views)}
        losses, counted, values = self.evaluate(scores, rows)
        each = z.shape[:-1]
        counted = counted if counted is None else counted.reshape(each)
        return self.labelled(losses.reshape(each), counted, values, nan_rows(z))


def largest_class(labels: Tensor) -> int:
    """How many rows the largest class has; this synchronises a GPU."""
    sizes = torch.unique(labels, return_counts=True)[1]
    return int(sizes.max()) if len(sizes) else 0
