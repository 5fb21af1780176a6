"""What losses with one positive per row share: rows against rows of another side, or two views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...channel import COL, INDEX, LSE, ROW, SUM, Channel, differs, same
from ...memory import EmbeddingQueue
from .blocks import BATCH
from .pair_loss import Memory, PairLoss
from .scores import Scores

__all__ = ["BY_COL", "BY_ROW", "INSTANCE", "CrossLoss", "PositiveLoss", "TwoViewLoss"]

#: id under which both views of an instance are the same
INSTANCE = "instance"

#: log-sum-exp over a row's negatives, and over a column's, where pairs are aligned
BY_ROW, BY_COL = (LSE(pairs=(differs(INDEX),), axis=axis) for axis in (ROW, COL))


_PAIR: Mapping[str, str] = {"x": "N D", "y": "N D"}


class PositiveLoss(PairLoss):
    """One positive per row; ``channels`` cover negatives only."""

    #: the positive's score: a sum of one term, out of the same pass
    positive: ClassVar[Channel]

    def combine(self, *values: Any) -> Tensor:
        """One loss per row, from the channels' values, the positives' scores and the
        :class:`Scores`."""
        raise NotImplementedError

    def evaluate(
        self,
        scores: Scores,
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> Any:
        (*own, positive), extra = self.measure(scores, (*self._channels, self.positive), rows, cols)
        return self.finish(self.combine(*own, positive, scores), extra, positive)


class CrossLoss(PositiveLoss):
    """Rows of x against rows of y, (N, D) each; row i's positive is column i. ``memory`` is a queue
    of rows like those of y, which are further negatives of the rows of x; where columns have
    negatives, too, it is a pair, and the second queue is of rows like those of x."""

    inputs = _PAIR
    negatives = (differs(INDEX),)
    positive = SUM("id", pairs=(same(INDEX),))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        memory: Memory = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        blocks = (BATCH, *self.stored(memory, ids, ("x", x)))
        scores = self.scores(x, y, logit_scale, logit_bias, blocks=blocks)
        return self.evaluate(scores)


class TwoViewLoss(PositiveLoss):
    """Two views x and y, (N, D) each, of the same instances: 2N anchors, each against the other
    2N - 1 rows; its positive is the other view of its instance."""

    inputs = _PAIR
    negatives = (differs(INSTANCE),)
    positive = SUM("id", pairs=(same(INSTANCE),))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        blocks = (BATCH, *self.stored(memory, ids, ("x", x), copies=2))
        z = torch.cat([x, y])
        scores = self.scores(z, None, logit_scale, logit_bias, copies=2, blocks=blocks)
        n = x.shape[0]
        instance = torch.arange(2 * n, device=x.device) % max(n, 1)
        rows = {INSTANCE: scores.distinct(instance)}
        return self.evaluate(scores, rows)
