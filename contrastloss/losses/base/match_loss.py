"""What InfoNCE, CLIP and SigLIP share: rows of x against rows of y, as data comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...channel import COL, LSE, MAX, ROW, SUM, Axis, Channel, differs
from ...ops.merge import merge
from ...options import shape
from .blocks import BATCH, Block, Ids
from .loss import nan_rows
from .negatives import NEGATIVES, Negatives
from .pair_loss import Memory
from .positive_loss import CrossLoss
from .positives import MATCH, MATCHING, Listed, Positives
from .scores import Scores, at_least_one, correction

__all__ = ["Asked", "Found", "MatchLoss", "SoftmaxLoss"]

#: channels by name and axis
Asked = dict[tuple[str, Axis], Channel]
Found = dict[tuple[str, Axis], Any]

_AXES: tuple[Axis, ...] = (ROW, COL)
_NAMES = ("lse", "sum", "count")
#: of positives
_INSIDE: Asked = {
    ("best", ROW): MAX(pairs=MATCHING),
    **{("lse", axis): LSE(pairs=MATCHING, axis=axis) for axis in _AXES},
    **{("sum", axis): SUM("id", pairs=MATCHING, axis=axis) for axis in _AXES},
    **{("count", axis): SUM("one", pairs=MATCHING, axis=axis) for axis in _AXES},
}
#: of all columns, or rows; but positives are no negatives
_OUTSIDE: Asked = {
    ("hardest", ROW): MAX(pairs=(differs(MATCH),)),
    **{("lse", axis): LSE(axis=axis) for axis in _AXES},
    **{("sum", axis): SUM("id", axis=axis) for axis in _AXES},
    **{("count", axis): SUM("one", axis=axis) for axis in _AXES},
}


class MatchLoss(CrossLoss):
    """Rows of x, (M, D), against rows of y, (N, D). Row i's positive is column i, where a call does
    not say the positives."""

    #: what has losses: rows, or columns, too
    axes: ClassVar[tuple[Axis, ...]] = (ROW,)
    PREPARED = frozenset({"return_stats"})

    inputs: ClassVar[Mapping[str, str]] = {
        **{"x": "M D", "y": "N D"},
        **{name: spec.replace("N", "M") for name, spec in NEGATIVES.items()},
        **{"x_ids": "M int", "y_ids": "N int", "row_weight": "M float"},
        **{"log_q": "N float", "x_log_q": "M float", "x_negatives": "L D | N L D"},
    }

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        positives: Any = None,
        x_ids: Tensor | None = None,
        y_ids: Tensor | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        memory: Memory = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(
            negatives, negatives_mask, negatives_offsets, negatives_ids, negatives_log_q
        )
        if self.without:
            self.refuse({"log_q": log_q, "negatives_log_q": negatives_log_q})
        said = Positives(positives, x_ids, y_ids).checked(x, y, ids)
        self.fits(x, y)
        blocks = self.around(x, y, further, said, ids, memory)
        scores = self.against(x, y, blocks, logit_scale, logit_bias)
        scores.row_weight, scores.col_bias = row_weight, correction(log_q, x)
        return self.aligned(scores, ids) if said.aligned else self.matched(scores, said)

    def refuse(self, given: Mapping[str, Tensor | None]) -> None:
        """Arguments that the formula does not allow."""
        for name, value in given.items():
            if value is not None and name in self.without:
                reason = self.without[name]
                raise ValueError(f"{name}: got a value, expected None: {reason}")

    def fits(self, x: Tensor, y: Tensor) -> None:
        """Whether a temperature of each row is one of each column, where columns have losses."""
        tau = self.temperature
        if len(self.axes) > 1 and isinstance(tau, Tensor) and tau.ndim and len(x) != len(y):
            expected = f"() with {len(x)} rows of x and {len(y)} of y"
            raise ValueError(f"temperature: got shape {shape(tau)}, expected {expected}")

    def around(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Negatives,
        positives: Positives,
        ids: Tensor | None,
        memory: Memory,
    ) -> tuple[Block, ...]:
        """The blocks beside the batch. Given and stored columns of a row's own id, or x_id, are
        left out."""
        if positives.x_ids is None:
            return self.given(x, negatives, ids) + self.stored(
                memory, ids, ("x", x), of_batch=True, of_cols=("y", y)
            )
        blocks = self.given(x, negatives, positives.x_ids)
        return blocks + self.stored(
            memory, positives.x_ids, ("x", x), of_cols=("y", y), col_ids=positives.y_ids
        )

    def asked(self) -> tuple[Asked, Asked]:
        """The channels of :meth:`matched`, of positives and of all columns."""
        return {}, {}

    def prepare(self) -> None:
        super().prepare()
        inside, outside = self.asked()
        if self.return_stats:
            names = ["best", "sum", "count"] if self.in_batch_negatives else [*_NAMES, "best"]
            inside |= {(name, ROW): _INSIDE[name, ROW] for name in names}
            outside |= {(name, ROW): _OUTSIDE[name, ROW] for name in ("hardest", "lse")}
        self._inside, self._outside = inside, outside

    def matched(self, scores: Scores, positives: Positives) -> Any:
        """The loss, where a call says the positives."""
        raise NotImplementedError

    def values(self, scores: Scores, match: tuple[Ids, Ids] | Listed) -> tuple[Found, Found]:
        """What the channels return of positives, and of all columns. Where those of the batch are
        no negatives, the sums of all columns are those of positives and of the other blocks."""
        inside, outside = tuple(self._inside.values()), tuple(self._outside.values())
        if isinstance(match, Listed):
            if self.return_stats:
                raise ValueError(
                    "positives: got a list of pairs with return_stats=True, expected one for each "
                    "row, or x_ids and y_ids: a list does not tell which negative is the hardest"
                )
            assert scores.y is not None
            of = match.stats(inside, (scores.x.shape[0], scores.y.shape[0]))
            over = scores.stats([channel.adapted((), channel.axis) for channel in outside])
        elif self.in_batch_negatives:
            both = scores.stats((*inside, *outside), *match)
            of, over = both[: len(inside)], both[len(inside) :]
        else:
            of = scores.but(blocks=(BATCH,)).stats(inside, *match)
            over = scores.stats(outside)
        found = dict(zip(self._inside, of, strict=True))
        every = dict(zip(self._outside, over, strict=True))
        if not self.in_batch_negatives:
            for key, channel in self._outside.items():
                if key in found:
                    every[key] = merge(channel, [found[key], every[key]])
        return found, every

    def with_statistics(
        self, loss: Any, inside: Found, outside: Found, counted: Tensor | None
    ) -> Any:
        """The loss, and its statistics if they were asked for."""
        if not self.return_stats:
            return loss
        extra = outside["hardest", ROW].value, outside["lse", ROW]
        mean = inside["sum", ROW] / at_least_one(inside["count", ROW])
        return loss, self.statistics(extra, mean, inside["best", ROW].value, counted)


class SoftmaxLoss(MatchLoss):
    """Cross entropies of rows and, of both axes, of columns."""

    PREPARED = MatchLoss.PREPARED | {"label_smoothing", "variant"}

    label_smoothing: float
    variant: str

    def asked(self) -> tuple[Asked, Asked]:
        every = _NAMES if self.label_smoothing else ("lse",)
        positive = "sum" if self.variant == "out" else "lse"
        inside = (positive, "count", *(() if self.in_batch_negatives else every))
        return (
            {(name, axis): _INSIDE[name, axis] for axis in self.axes for name in inside},
            {(name, axis): _OUTSIDE[name, axis] for axis in self.axes for name in every},
        )

    def sums(self, psi: str) -> tuple[Channel, ...]:
        """For label smoothing: of the negatives of each axis, where row i's positive is column
        i."""
        if not self.label_smoothing:
            return ()
        return tuple([SUM(psi, pairs=self.negatives, axis=axis) for axis in self.axes])

    def prepare(self) -> None:
        super().prepare()
        counts = [self.by_ids(channel) for channel in self.sums("one")]
        self._channels_by_ids = (*self._channels_by_ids, *counts)

    def smoothed(
        self, losses: Sequence[Tensor], sums: Sequence[Tensor], positive: Tensor, scores: Scores
    ) -> list[Tensor]:
        """The cross entropies of each axis with smoothed labels, from those without. ``sums``: of
        the negatives' scores and, with ids, their numbers, which are known without."""
        counts: Sequence[Any]
        totals, counts = sums[: len(losses)], sums[len(losses) :]
        if not counts:
            counts = [scores.negatives(scores.count - 1, axis) for axis in self.axes]
        return [
            loss + self.label_smoothing * (positive - (total + positive) / (count + 1))
            for loss, total, count in zip(losses, totals, counts, strict=True)
        ]

    def matched(self, scores: Scores, positives: Positives) -> Any:
        match = positives.match(scores)
        inside, outside = self.values(scores, match)
        assert scores.y is not None
        reduced, counted = [], []
        for axis, z in zip(self.axes, (scores.x, scores.y), strict=False):
            some = inside["count", axis] > 0
            losses = torch.where(some, self._of(axis, inside, outside), 0.0)
            counted.append(some)
            losses = scores.weighted(losses) if axis == ROW else losses
            reduced.append(self.reduce(losses, some, nan_rows(z)))
        loss: Any = reduced[0]
        if len(reduced) > 1:
            loss = tuple(reduced) if self.reduction == "none" else 0.5 * (reduced[0] + reduced[1])
        return self.with_statistics(loss, inside, outside, counted[0])

    def _of(self, axis: Axis, inside: Found, outside: Found) -> Tensor:
        """The losses of rows, or of columns, that have positives."""
        if self.variant == "out":
            score = inside["sum", axis] / at_least_one(inside["count", axis])
        else:
            score = torch.where(inside["count", axis] > 0, inside["lse", axis], 0.0)
        if self.label_smoothing:
            mean = outside["sum", axis] / at_least_one(outside["count", axis])
            score = torch.lerp(score, mean, self.label_smoothing)
        return outside["lse", axis] - score
