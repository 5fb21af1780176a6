"""The columns that the rows of a loss meet, as blocks: the batch, a queue, given embeddings.

A rule on ids says which pairs of a row and a column are positive, negative or left out; it is the
same for every block. A name that a block has no ids for matches no row: ``differs`` holds for all
of its columns, ``same`` for none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ... import ops
from ...channel import COL, ROW, SUM, Axis, Channel, Test, differs, same
from ...memory import EmbeddingQueue
from ...ops.segments import segment_stats, segment_topk
from .merging import chosen, seen, tests_left

if TYPE_CHECKING:
    from .scores import Scores

__all__ = [
    "BATCH",
    "Block",
    "Given",
    "Ids",
    "Own",
    "Ragged",
    "Stored",
    "Turned",
    "nothing",
]


def nothing(rows: Tensor, k: int, dtype: torch.dtype) -> ops.TopK:
    """The best of no columns, for each row of a vector like this."""
    index = torch.full((*rows.shape, k), -1, device=rows.device)
    return ops.TopK(torch.full_like(index, -torch.inf, dtype=dtype), index)


SLOT, ID, THERE = "slot", "instance id", "is there"

Ids = Mapping[str, Tensor]
_COUNT = SUM("one")


class Block:
    """Columns, (K, D), that all rows share.

    Args:
        columns: their embeddings. They get a gradient unless they are detached.
        ids: what channels compare, (K,) each, by name.
        log_weight: added to the columns' scores, (K,); None for 0. -inf takes a column out.
        tests: tests that a pair has to pass in addition to those of a channel.
        rows: the rows' side of these tests, by name.
    """

    #: met in fp32, so that the gradients of several passes are added up in it
    WIDENED: ClassVar[bool] = False
    #: with a group, those of all ranks together; else they are the same on every rank
    everywhere: bool = False
    #: made by the loss: they are in its formula, but not in the statistics of ``return_stats``
    SYNTHETIC: ClassVar[bool] = False

    def __init__(
        self,
        columns: Tensor,
        ids: Ids | None = None,
        log_weight: Tensor | None = None,
        tests: tuple[Test, ...] = (),
        rows: Ids | None = None,
    ) -> None:
        self.columns, self.log_weight, self.tests = columns, log_weight, tests
        self.ids: Ids = ids or {}
        self.rows: Ids = rows or {}
        #: this block with the columns that a guide leaves out of it; None: there is no guide
        self.unguided: Block | None = None
        #: names of ``same`` tests that all of these columns pass, and of weights that are 0
        self.passing: frozenset[str] = frozenset()

    def size(self, scores: Scores) -> int:
        return self.columns.shape[-2]

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        """How many of the columns each row, or each of the batch's columns, meets."""
        if axis == COL:
            return 0
        if self.tests or (self.everywhere and scores.spread is not None):
            (count,) = self.stats(scores, (_COUNT,), {}, None)
            return count
        return self.size(scores)

    def filled(self, name: str) -> Tensor:
        """What the columns have under a name."""
        return self.ids[name]

    def part(self, rows: slice) -> Block:
        """The block as some of the rows meet it."""
        other = copy(self)
        other.rows = {name: v if v.shape[0] == 1 else v[rows] for name, v in self.rows.items()}
        return other

    def stats(
        self, scores: Scores, channels: Sequence[Channel], rows: Ids, cols: Ids | None
    ) -> list[Any]:
        """The values of the channels over these columns; None where no pair passes."""
        names = frozenset(self.ids)
        kept = [seen(channel, names, self.passing, self.tests) for channel in channels]
        asked = [channel for channel in kept if channel is not None]
        found = iter(self._stats(scores, asked, {**rows, **self.rows}) if asked else ())
        return [None if channel is None else next(found) for channel in kept]

    def _stats(self, scores: Scores, channels: Sequence[Channel], rows: Ids) -> list[Any]:
        return scores.against(
            self.columns,
            channels,
            rows,
            self.ids,
            self.log_weight,
            widened=self.WIDENED,
            everywhere=self.everywhere,
        )

    def topk(
        self, scores: Scores, k: int, pairs: Sequence[Test], rows: Ids, cols: Ids | None, **how: Any
    ) -> ops.TopK:
        """The k best of these columns for every row."""
        tests = tests_left(tuple(pairs), frozenset(self.ids), self.passing, self.tests)
        if tests is None:
            return nothing(scores.x[..., 0], k, scores.stat_dtype)
        return self._topk(scores, k, tests, {**rows, **self.rows}, **how)

    def _topk(
        self, scores: Scores, k: int, tests: tuple[Test, ...], rows: Ids, **how: Any
    ) -> ops.TopK:
        names = {test.name for test in tests}
        how |= {"pairs": tests, "rows": chosen(rows, names)}
        return scores.topk_against(
            self.columns, k, cols=chosen(self.ids, names), col_bias=self.log_weight, **how
        )


class _Batch(Block):
    """The columns of the batch, of this process or of all ranks of a group."""

    unguided = None

    def __init__(self) -> None:
        pass

    def size(self, scores: Scores) -> int:
        return scores.batch_columns

    def stats(
        self, scores: Scores, channels: Sequence[Channel], rows: Ids, cols: Ids | None
    ) -> list[Any]:
        return scores.batch_stats(channels, rows, cols)

    def topk(
        self, scores: Scores, k: int, pairs: Sequence[Test], rows: Ids, cols: Ids | None, **how: Any
    ) -> ops.TopK:
        names = {test.name for test in pairs}
        how |= {"pairs": pairs, "rows": chosen(rows, names)}
        cols = None if cols is None else chosen(cols, names)
        return scores.topk_against(scores.y, k, cols=cols, col_bias=scores.col_bias, **how)


BATCH = _Batch()


class Given(Block):
    """Columns that were given with a call and that all rows share.

    Args:
        columns: (K, D).
        mask: (K,), False for no column; None: all are there.
        log_weight: added to the scores, (K,); None for 0.
        everywhere: with a group, whether rows meet those of all ranks together; else they are the
            same on every rank.
    """

    def __init__(
        self,
        columns: Tensor,
        mask: Tensor | None = None,
        log_weight: Tensor | None = None,
        *,
        everywhere: bool = True,
    ) -> None:
        super().__init__(columns, log_weight=log_weight)
        self.everywhere = everywhere
        if mask is not None:
            self.ids, self.tests = {THERE: mask}, (same(THERE),)
            self.rows = {THERE: torch.ones(1, dtype=torch.bool, device=mask.device)}


class Stored(Block):
    """What a queue holds, the same on every rank and without gradient. Unfilled slots are no
    columns, nor are those of a row's own instance, where ``ids`` says which it is."""

    WIDENED = True

    def filled(self, name: str) -> Tensor:
        return self.ids[name][self.ids[SLOT] >= 0] if SLOT in self.ids else self.ids[name]

    def __init__(
        self,
        queue: EmbeddingQueue | Tensor,
        *,
        ids: Tensor | None = None,
        labels: str | None = None,
        columns: Ids | None = None,
    ) -> None:
        """
        Args:
            queue: an EmbeddingQueue, or a tensor (K, D), none of whose rows is unfilled.
            ids: (N,), the rows' instances; None to leave out none.
            labels: the name by which channels call the stored labels; None if they do not.
            columns: what channels compare of a tensor's rows, by name.
        """
        if isinstance(queue, Tensor):
            super().__init__(queue, columns)
            return
        held = queue.snapshot()
        assert held.steps is not None
        own, tests = {SLOT: held.steps}, [differs(SLOT)]
        rows = {SLOT: torch.full((1,), -1, device=held.steps.device)}
        if ids is not None:
            assert held.ids is not None
            own[ID], rows[ID] = held.ids, ids
            tests.append(differs(ID))
        if labels is not None:
            assert held.labels is not None
            own[labels] = held.labels
        super().__init__(held.embeddings, own, None, tuple(tests), rows)


class Turned(Block):
    """What the batch's columns meet beside its rows: the columns of a block, whose rows they are.
    The batch's rows do not meet them."""

    def __init__(self, block: Block) -> None:
        super().__init__(block.columns)
        self.block = block

    def size(self, scores: Scores) -> int:
        return 0

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        return 0 if axis == ROW else self.block.count(scores.transposed())

    def stats(
        self, scores: Scores, channels: Sequence[Channel], rows: Ids, cols: Ids | None
    ) -> list[Any]:
        turned = [c.adapted(c.pairs, ROW) for c in channels if c.axis == COL]
        found = iter(self.block.stats(scores.transposed(), turned, cols or {}, rows))
        return [next(found) if channel.axis == COL else None for channel in channels]


class Own(Block):
    """Columns (N, K, D) of which each row has its own.

    Args:
        columns: row i's are ``columns[i]``.
        mask: (N, K), False where a row has no column; None: all are there.
        log_weight: added to the scores, (N, K); None for 0.
        copies, views: the rows of scores are the N so often, one copy after the other, and each so
            many times in a row.
    """

    def __init__(
        self,
        columns: Tensor,
        mask: Tensor | None = None,
        log_weight: Tensor | None = None,
        *,
        copies: int = 1,
        views: int = 1,
    ) -> None:
        super().__init__(columns, log_weight=log_weight)
        self.mask, self.copies, self.views = mask, copies, views
        #: columns with larger scores are left out, one for each row; None: there is no bound
        self.upper: Tensor | None = None

    def of_rows(self, value: Tensor) -> Tensor:
        """What each of the N has, for each row of scores."""
        value = value if self.views == 1 else value.repeat_interleave(self.views, 0)
        return value if self.copies == 1 else value.repeat(self.copies, *[1] * (value.ndim - 1))

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        if axis == COL:
            return 0
        return self.size(scores) if self.mask is None else self.of_rows(self.mask.sum(1))

    def scores(self, scores: Scores) -> Tensor:
        """(N, K), -inf where there is no column."""
        n, k = self.columns.shape[:2]
        index = torch.arange(n * k, device=self.columns.device).view(n, k)
        if self.mask is not None:
            index = torch.where(self.mask, index, -1)
        found = scores.gather(self.of_rows(index), self.columns.flatten(0, 1))
        if self.log_weight is not None:
            found = found + self.of_rows(self.log_weight)
        if self.upper is not None:
            found = torch.where(found > self.upper[:, None], -torch.inf, found)
        return found

    def _stats(self, scores: Scores, channels: Sequence[Channel], rows: Ids) -> list[Any]:
        return ops.row_stats(self.scores(scores), channels, rows)

    def _topk(
        self, scores: Scores, k: int, tests: tuple[Test, ...], rows: Ids, **how: Any
    ) -> ops.TopK:
        found = _within(self.scores(scores), how, lambda bound: bound.unsqueeze(-1))
        index = torch.arange(found.shape[1], device=found.device).expand_as(found)
        index = torch.where(found == -torch.inf, -1, index)
        return ops.merge_topk([ops.TopK(found, index)], k=k, **how)


class Ragged(Block):
    """Columns of which each row has its own, of different numbers.

    Args:
        columns: (M, D), those of row 0, then those of row 1, and so on.
        offsets: (N + 1,), int64: row i's are ``columns[offsets[i]:offsets[i + 1]]``.
        log_weight: added to the scores, (M,); None for 0.
        copies, views: as of :class:`Own`.
    """

    def __init__(
        self,
        columns: Tensor,
        offsets: Tensor,
        log_weight: Tensor | None = None,
        *,
        copies: int = 1,
        views: int = 1,
    ) -> None:
        super().__init__(columns, log_weight=log_weight)
        device, n = columns.device, offsets.shape[0] - 1
        place = torch.arange(columns.shape[0], device=device)
        own = torch.searchsorted(offsets, place, right=True) - 1
        own = own.clamp(0, max(n - 1, 0))  # a device does not check the offsets
        self.lengths = offsets.diff().repeat_interleave(views).repeat(copies)
        #: (M,), False for columns that are left out; None: all are there
        self.mask: Tensor | None = None
        #: as of :class:`Own`
        self.upper: Tensor | None = None
        #: (M, copies * views), the rows that meet a column
        numbers = torch.arange(copies, device=device)[:, None] * n * views
        numbers = (numbers + torch.arange(views, device=device)).flatten()
        self.met_by = own[:, None] * views + numbers
        #: row by row, the columns that it meets
        self.owner, self.order = self.met_by.flatten().sort(stable=True)

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        if axis == COL:
            return 0
        if self.mask is None:
            return self.lengths
        there = self.mask[:, None].expand_as(self.met_by).flatten()[self.order]
        return torch.zeros_like(self.lengths).index_add(0, self.owner, there.to(torch.int64))

    def scores(self, scores: Scores) -> Tensor:
        """Those of row 0, then those of row 1: columns take the part of rows of few columns."""
        met_by = self.met_by
        if self.mask is not None:
            met_by = torch.where(self.mask[:, None], met_by, -1)
        found = scores.of_pairs(self.columns, met_by)
        if self.log_weight is not None:
            found = found + self.log_weight[:, None]
        found = found.flatten()[self.order]
        if self.upper is not None:
            found = torch.where(found > self.upper[self.owner], -torch.inf, found)
        return found

    def _stats(self, scores: Scores, channels: Sequence[Channel], rows: Ids) -> list[Any]:
        n = scores.x.shape[-2]
        return segment_stats(self.scores(scores), self.owner, n, channels, rows)

    def _topk(
        self, scores: Scores, k: int, tests: tuple[Test, ...], rows: Ids, **how: Any
    ) -> ops.TopK:
        found = _within(self.scores(scores), how, lambda bound: bound[self.owner])
        return segment_topk(found, self.owner, scores.x.shape[-2], k, **how)


def _within(scores: Tensor, how: dict[str, Any], each: Callable[[Tensor], Tensor]) -> Tensor:
    """The scores, -inf outside of closed bounds, which are taken out of ``how``; ``each``: a bound
    of every score from one of every row."""
    for side, outside in (("lower", torch.lt), ("upper", torch.gt)):
        bound = how.pop(side, None)
        if bound is not None:
            bound = each(bound) if isinstance(bound, Tensor) and bound.ndim else bound
            scores = torch.where(outside(scores, bound), -torch.inf, scores)
    return scores
