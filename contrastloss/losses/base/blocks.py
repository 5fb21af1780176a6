"""The columns that the rows of a loss meet, as blocks: the batch, a queue, given embeddings.

A rule on ids says which pairs of a row and a column are positive, negative or left out; it is the
same for every block. A name that a block has no ids for matches no row: ``differs`` holds for all
of its columns, ``same`` for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...channel import COL, EXPECT, LSE, MAX, ROW, SUM, Axis, Channel, Test, differs
from ...memory import EmbeddingQueue
from ...ops.segments import segment_stats, segment_topk

if TYPE_CHECKING:
    from .scores import Scores

__all__ = [
    "BATCH",
    "Block",
    "Crossed",
    "Given",
    "Ids",
    "Own",
    "Place",
    "Ragged",
    "Stored",
    "merged",
]

SLOT, ID = "slot", "instance id"

Ids = Mapping[str, Tensor]
_COUNT = SUM("one")


class Place(NamedTuple):
    """What ``MAX`` returns over several blocks: the value, the number of the block in which it
    stands, and the column in it; -1 for none."""

    value: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    block: Tensor


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
    EVERYWHERE: ClassVar[bool] = False
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

    def size(self, scores: Scores) -> int:
        return self.columns.shape[-2]

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        """How many of the columns each row meets."""
        if self.tests or (self.EVERYWHERE and scores.spread is not None):
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
        kept = [_seen(channel, frozenset(self.ids), self.tests) for channel in channels]
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
            everywhere=self.EVERYWHERE,
        )

    def topk(
        self, scores: Scores, k: int, pairs: Sequence[Test], rows: Ids, cols: Ids | None, **how: Any
    ) -> ops.TopK:
        """The k best of these columns for every row."""
        tests = _tests(tuple(pairs), frozenset(self.ids), self.tests)
        if tests is None:
            shape = (*scores.x.shape[:-1], k)
            index = torch.full(shape, -1, device=scores.x.device)
            return ops.TopK(torch.full_like(index, -torch.inf, dtype=scores.stat_dtype), index)
        names = {test.name for test in tests}
        how |= {"pairs": tests, "rows": _chosen({**rows, **self.rows}, names)}
        return scores.topk_against(
            self.columns, k, cols=_chosen(self.ids, names), col_bias=self.log_weight, **how
        )


class _Batch(Block):
    """The columns of the batch, of this process or of all ranks of a group."""

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
        how |= {"pairs": pairs, "rows": _chosen(rows, names)}
        return scores.topk_against(
            scores.y, k, cols=None if cols is None else _chosen(cols, names), **how
        )


BATCH = _Batch()


class Given(Block):
    """Columns that were given with a call and that all rows share; of a group, those of all ranks
    together."""

    EVERYWHERE = True


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


class Crossed(Block):
    """What both sides of a batch meet: rows the columns of one block, columns those of another."""

    def __init__(self, rows: Block, cols: Block) -> None:
        super().__init__(rows.columns)
        self.sides: dict[Axis, Block] = {ROW: rows, COL: cols}

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        return self.sides[axis].count(scores if axis == ROW else scores.transposed())

    def stats(
        self, scores: Scores, channels: Sequence[Channel], rows: Ids, cols: Ids | None
    ) -> list[Any]:
        turned = [c.adapted(c.pairs, ROW) if c.axis == COL else c for c in channels]
        found = {
            ROW: self.sides[ROW].stats(scores, turned, rows, cols),
            COL: self.sides[COL].stats(scores.transposed(), turned, cols or {}, rows),
        }
        return [found[channel.axis][k] for k, channel in enumerate(channels)]


class Own(Block):
    """Columns (N, K, D) of which each row has its own.

    Args:
        columns: row i's are ``columns[i]``.
        mask: (N, K), False where a row has no column; None: all are there.
        log_weight: added to the scores, (N, K) or (K,); None for 0.
    """

    def __init__(
        self, columns: Tensor, mask: Tensor | None = None, log_weight: Tensor | None = None
    ) -> None:
        super().__init__(columns, log_weight=log_weight)
        self.mask = mask

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        return self.size(scores) if self.mask is None else self.mask.sum(1)

    def scores(self, scores: Scores) -> Tensor:
        """(N, K), -inf where there is no column."""
        n, k = self.columns.shape[:2]
        index = torch.arange(n * k, device=self.columns.device).view(n, k)
        if self.mask is not None:
            index = torch.where(self.mask, index, -1)
        found = scores.gather(index, self.columns.flatten(0, 1))
        return found if self.log_weight is None else found + self.log_weight

    def _stats(self, scores: Scores, channels: Sequence[Channel], rows: Ids) -> list[Any]:
        return ops.row_stats(self.scores(scores), channels, rows)

    def topk(
        self, scores: Scores, k: int, pairs: Sequence[Test], rows: Ids, cols: Ids | None, **how: Any
    ) -> ops.TopK:
        found = self.scores(scores)
        index = torch.arange(found.shape[1], device=found.device).expand_as(found)
        index = torch.where(found == -torch.inf, -1, index)
        return ops.merge_topk([ops.TopK(found, index)], k=k, **how)


class Ragged(Block):
    """Columns of which each row has its own, of different numbers.

    Args:
        columns: (M, D), those of row 0, then those of row 1, and so on.
        offsets: (N + 1,), int64: row i's are ``columns[offsets[i]:offsets[i + 1]]``.
        log_weight: added to the scores, (M,); None for 0.
    """

    def __init__(self, columns: Tensor, offsets: Tensor, log_weight: Tensor | None = None) -> None:
        super().__init__(columns, log_weight=log_weight)
        place = torch.arange(columns.shape[0], device=columns.device)
        self.counts = offsets.diff()
        #: the row of each column
        self.owner = torch.searchsorted(offsets, place, right=True) - 1

    def count(self, scores: Scores, axis: Axis = ROW) -> int | Tensor:
        return self.counts

    def scores(self, scores: Scores) -> Tensor:
        """(M,): columns take the part of rows, of one column each."""
        found = scores.of_pairs(self.columns, self.owner)
        return found if self.log_weight is None else found + self.log_weight

    def _stats(self, scores: Scores, channels: Sequence[Channel], rows: Ids) -> list[Any]:
        n = scores.x.shape[-2]
        return segment_stats(self.scores(scores), self.owner, n, channels, rows)

    def topk(
        self, scores: Scores, k: int, pairs: Sequence[Test], rows: Ids, cols: Ids | None, **how: Any
    ) -> ops.TopK:
        return segment_topk(self.scores(scores), self.owner, scores.x.shape[-2], k, **how)


# ---- channels over blocks ------------------------------------------------------------------------


def _tests(
    pairs: tuple[Test, ...], names: frozenset[str], tests: tuple[Test, ...]
) -> tuple[Test, ...] | None:
    """The tests that are left for columns that have ids of these names; None: no pair passes."""
    kept = []
    for test in pairs:
        if test.name in names:
            kept.append(test)
        elif test.op == "eq":
            return None
        elif test.op != "ne":
            raise ValueError(f"pairs: got {test.op!r} of {test.name!r}, which this block has not")
    return (*kept, *tests)


def _seen(channel: Channel, names: frozenset[str], tests: tuple[Test, ...]) -> Channel | None:
    """The channel as columns with ids of these names see it; None: no pair passes."""
    return (_adapted if torch.compiler.is_compiling() else _cached)(channel, names, tests)


def _adapted(channel: Channel, names: frozenset[str], tests: tuple[Test, ...]) -> Channel | None:
    if channel.axis != ROW:
        return None  # a column of the batch meets the batch's rows alone
    pairs = _tests(channel.pairs, names, tests)
    return None if pairs is None else channel.adapted(pairs, ROW)


_cached = lru_cache(maxsize=1024)(_adapted)


def _chosen(operands: Ids, names: Any) -> dict[str, Tensor]:
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
    channels: Sequence[Channel], parts: Sequence[Sequence[Any]], starts: Sequence[int], like: Tensor
) -> list[Any]:
    """The channels' values over all blocks from those over each of them."""
    results = []
    for channel, *values in zip(channels, *parts, strict=True):
        here = [k for k, value in enumerate(values) if value is not None]
        found = [values[k] for k in here] or [_nothing(channel, like)]
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
