"""What losses with one positive per row share: rows against rows of another side, or two views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ... import ops
from ...channel import COL, INDEX, LSE, ROW, SUM, Channel, differs, same
from ...memory import EmbeddingQueue
from ...ops.check import plain
from .blocks import BATCH, ID, Block, Ids
from .negatives import NEGATIVES, Negatives
from .pair_loss import Memory, PairLoss, covering
from .scores import Scores, at_least_one

__all__ = [
    "BY_COL",
    "BY_ROW",
    "INSTANCE",
    "SOFTMAX",
    "CrossLoss",
    "PositiveLoss",
    "TwoViewLoss",
    "reference_pairs",
    "smooth_cross_entropy",
]

#: id under which both views of an instance are the same
INSTANCE = "instance"

#: log-sum-exp over a row's negatives, and over a column's, where pairs are aligned
BY_ROW, BY_COL = (LSE(pairs=(differs(INDEX),), axis=axis) for axis in (ROW, COL))

#: the cross entropy of the positive's score, from the log-sum-exp of a row's negatives and it
SOFTMAX = (ops.Part(0, 1, softplus=True),)

_INPUTS: Mapping[str, str] = {
    **{"x": "N D", "y": "N D", **NEGATIVES},
    **{"row_weight": "N float", "log_q": "N float"},
}


class PositiveLoss(PairLoss):
    """One positive per row; ``channels`` cover negatives only."""

    #: the positive's score: a sum of one term, out of the same pass
    positive: ClassVar[Channel]

    #: whether the channels' values, in ``parts``, are per negative: the sums over a row's negatives
    #: divided by their number
    per_negative: ClassVar[bool] = False

    def parts(self) -> Sequence[ops.Part]:
        """The loss of a row as terms of the channels' values and, last, of the positive's score;
        empty where only ``combine`` tells it."""
        return ()

    def combine(self, *values: Any) -> Tensor:
        """One loss per row, from the channels' values, the positives' scores and the
        :class:`Scores`."""
        *own, positive, scores = values
        if self.per_negative:
            # a tensor is divided: torch before 2.13 makes a quotient of numbers constant
            count = self.divisor(scores)
            own = [value / count for value in own]
        return ops.row_losses(self.parts(), (*own, positive))

    @staticmethod
    def divisor(scores: Scores) -> Any:
        """The number of each row's negatives, at least 1."""
        return at_least_one(scores.negatives(scores.count - 1))

    def with_positive(self, scores: Scores, extra: list[Tensor], positive: Tensor) -> list[Tensor]:
        """The values for statistics. By ids a row does not meet its positive, whose id it has; the
        log-sum-exp covers it nevertheless."""
        return extra if scores.apart is None else covering(extra, positive)

    def evaluate(
        self,
        scores: Scores,
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> Any:
        if self.in_one_pass(scores):
            return self._at_once(scores, rows, cols)
        channels = self._channels if scores.apart is None else self._channels_by_ids
        if BATCH in scores.blocks:
            (*own, positive), extra = self.measure(scores, (*channels, self.positive), rows, cols)
            extra = self.with_positive(scores, extra, positive)
            losses = scores.weighted(self.combine(*own, positive, scores))
            return self.finish(losses, extra, positive)
        own, extra = self.measure(scores, channels, rows, cols)
        positive = scores.aligned()
        extra = covering(extra, positive)
        losses = scores.weighted(self.combine(*own, positive, scores))
        return self.finish(losses, extra, positive, aligned=scores)

    def in_one_pass(self, scores: Scores) -> bool:
        """Whether the losses of all rows have one gradient and are terms of the batch's scores
        alone, so that one pass may find both."""
        if torch.compiler.is_compiling():
            return False
        alone = scores.spread is None and scores.apart is None and scores.blocks == (BATCH,)
        parts = self.parts() if alone and self.reduction != "none" else ()
        sums = range(len(self._channels) if self.per_negative else 0)
        # of a difference, or a softplus, not the weight but the value is divided
        whole = any(p.minus in sums or (p.softplus and p.plus in sums) for p in parts)
        return bool(parts) and not whole

    def _at_once(
        self,
        scores: Scores,
        rows: Ids | None,
        cols: Ids | None,
        positive: Tensor | None = None,
    ) -> Any:
        """The loss in one pass, which finds the positives' scores too, unless they are given."""
        own = (*self._channels, self.positive) if positive is None else self._channels
        channels = (*own, *self._extra) if self.return_stats else own
        parts = self.parts()
        if self.per_negative:
            count = self.divisor(scores)
            sums = range(len(self._channels))
            parts = [p._replace(weight=p.weight / count) if p.plus in sums else p for p in parts]
        loss, values = scores.loss(parts, channels, rows, cols, reduction=self.reduction)
        loss = self.scaled(loss)
        if not self.return_stats:
            return loss
        hardest, lse = values[-2:]
        best = None if positive is None else scores.surpassing(positive)
        positive = values[-3] if positive is None else positive
        return loss, self.statistics((hardest.value, lse), positive, best, None)


class CrossLoss(PositiveLoss):
    """Rows of x against rows of y, (N, D) each; row i's positive is column i. ``memory`` is a queue
    of rows like those of y, which are further negatives of the rows of x; where columns have
    negatives, too, it is a pair, and the second queue is of rows like those of x."""

    inputs = _INPUTS
    negatives = (differs(INDEX),)
    positive = SUM("id", pairs=(same(INDEX),))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        memory: Memory = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(negatives, negatives_mask, negatives_offsets, negatives_ids)
        blocks = self.given(x, further, ids) + self.stored(memory, ids, ("x", x), of_batch=True)
        scores = self.against(x, y, blocks, logit_scale, logit_bias)
        scores.row_weight = row_weight
        return self.aligned(scores, ids)

    def against(
        self,
        x: Tensor,
        y: Tensor,
        blocks: tuple[Block, ...],
        logit_scale: Tensor | float | None,
        logit_bias: Tensor | float | None,
    ) -> Scores:
        """The scores with the rows of y, where they are negatives, and further blocks."""
        if self.in_batch_negatives:
            blocks = (BATCH, *blocks)
        return self.scores(x, y, logit_scale, logit_bias, blocks=blocks)

    def aligned(self, scores: Scores, ids: Tensor | None) -> Any:
        """The loss, where row i's positive is column i."""
        scores.apart = ids
        own = None if ids is None else {ID: ids}
        return self.evaluate(scores, own, own)


class TwoViewLoss(PositiveLoss):
    """Two views x and y, (N, D) each, of the same instances: 2N anchors, each against the other
    2N - 1 rows; its positive is the other view of its instance."""

    inputs = _INPUTS
    negatives = (differs(INSTANCE),)
    positive = SUM("id", pairs=(same(INSTANCE),))

    def forward(
        self,
        x: Tensor,
        y: Tensor,
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
        scores = self.both_views(x, y, further, ids, memory, logit_scale, logit_bias)
        scores.row_weight = None if row_weight is None else row_weight.repeat(2)
        return self.of_instances(scores, ids)

    def both_views(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Negatives,
        ids: Tensor | None,
        memory: EmbeddingQueue | None,
        logit_scale: Tensor | float | None,
        logit_bias: Tensor | float | None,
    ) -> Scores:
        """The scores of both views with each other, and with further columns."""
        given = self.given(x, negatives, ids, copies=2)
        stored = self.stored(memory, ids, ("x", x), copies=2, of_batch=True)
        blocks, z = (BATCH, *given, *stored), torch.cat([x, y])
        return self.scores(z, None, logit_scale, logit_bias, copies=2, blocks=blocks)

    def of_instances(self, scores: Scores, ids: Tensor | None) -> Any:
        """The loss, where both views of an instance are each other's positive."""
        rows = {INSTANCE: scores.distinct(_instances(scores.x))}
        if ids is not None:
            scores.apart = rows[ID] = ids.repeat(2)
        return self.evaluate(scores, rows)


def _instances(x: Tensor) -> Tensor:
    """The numbers of the instances of two views' rows."""
    n = x.shape[0] // 2
    if x.device.type == "cpu" and plain(x) and n <= 4096:
        return _numbers(n)
    return torch.arange(2 * n, device=x.device) % max(n, 1)


@lru_cache(maxsize=16)
def _numbers(n: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(2 * n, device="cpu") % max(n, 1)


def reference_pairs(
    x: Tensor, y: Tensor, negatives: Tensor | None, mask: Tensor | None, in_batch: bool
) -> tuple[Tensor, Tensor]:
    """For references: the products (N, N + K) of each row with the batch's columns and its further
    negatives, and which are its negatives."""
    products = x @ y.mT
    there = ~torch.eye(len(x), dtype=torch.bool, device=x.device) & in_batch
    if negatives is not None:
        own = negatives.expand(len(x), *negatives.shape[-2:])
        products = torch.cat([products, torch.einsum("nd,nkd->nk", x, own)], 1)
        given = torch.ones_like(own[..., 0], dtype=torch.bool)
        there = torch.cat([there, given if mask is None else given & mask], 1)
    return products, there


def smooth_cross_entropy(logits: Tensor, label_smoothing: float) -> Tensor:
    """For references: the cross entropies of rows whose positive is their first column, over those
    that are there, which are not -inf."""
    log_p = logits - logits.logsumexp(1, keepdim=True)
    there = log_p > -torch.inf
    mean = torch.where(there, log_p, 0.0).sum(1) / there.sum(1)
    return -(1 - label_smoothing) * log_p[:, 0] - label_smoothing * mean
