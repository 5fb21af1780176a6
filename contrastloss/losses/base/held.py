"""The scores of some rows at a time, in memory: for losses that need those of a row in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ... import ops
from ...channel import Test
from ...ops.segments import padded
from .blocks import BATCH, Block, Ids, Own, Ragged
from .merging import tests_left
from .scores import Scores, wide

__all__ = ["over_rows"]

#: scores that are held at once
_HELD = 1 << 18

#: scores of rows with all columns, (R, K), and masks of them, to results for these rows
Function = Callable[..., Sequence[Tensor]]


def over_rows(
    scores: Scores, rows: Ids, pairs: Sequence[tuple[Test, ...]], function: Function
) -> list[Tensor]:
    """What a function makes of the scores of rows, (R, K) for the K columns of all blocks in this
    process, and of one mask (R, K) for each list of tests, of the pairs that pass it. It gets some
    rows at a time, and the same again in the backward pass: memory is O(N). Torch computes these
    scores for every backend."""
    ops.check_backend(scores.backend)
    x, n = _embeddings(scores, scores.x), scores.x.shape[0]
    sides = [_SIDES.get(type(b), _Shared)(b, scores, rows, pairs) for b in scores.blocks]

    def of(part: slice) -> Sequence[Tensor]:
        with ops.without_autocast(x.device):
            found = [side.of(part, x) for side in sides]
            if len(found) > 1:
                found = [[torch.cat(values, 1) for values in zip(*found, strict=True)]]
            return function(*found[0])

    height = max(1, _HELD // max(1, sum(side.width for side in sides)))
    parts = [slice(a, min(a + height, n)) for a in range(0, max(n, 1), height)]
    results = [checkpoint(of, part, use_reentrant=False) for part in parts]
    return [torch.cat(values) for values in zip(*results, strict=True)]


def _embeddings(scores: Scores, x: Tensor) -> Tensor:
    """Embeddings whose products are the scores, but for scale and bias. They are rounded as those
    of other operators; what the rounding of fp32 adds has no gradient."""
    x = wide(x)
    if scores.compute_dtype != x.dtype:
        x = x + (x.to(scores.compute_dtype).to(x.dtype) - x).detach()
    return ops.unit(x) if scores.normalize else x


class _Shared:
    """The columns of a block that all rows share."""

    def __init__(
        self, block: Block, scores: Scores, rows: Ids, pairs: Sequence[tuple[Test, ...]]
    ) -> None:
        self.scores, self.batch = scores, block is BATCH
        if self.batch:
            columns, self.bias = scores.x, scores.col_bias
            self.rows, self.cols = rows, rows
        else:
            columns, self.bias = block.columns, block.log_weight
            self.rows, self.cols = {**rows, **block.rows}, block.ids
        self.tests = [*pairs] if self.batch else _tests(block, pairs)
        self.columns = _embeddings(scores, columns)
        self.width = columns.shape[0]

    def of(self, part: slice, x: Tensor) -> list[Tensor]:
        scores = self.scores
        s = x[part].mm(self.columns.mT)
        for factor in (scores.scale, scores.row_scale):
            one = factor is None or (isinstance(factor, float) and factor == 1.0)
            s = s if one else s * _along(factor, part)
        for bias in (_along(scores.offset, part), self.bias):
            s = s if bias is None else s + bias
        return [s, *(self.mask(tests, part, s) for tests in self.tests)]

    def mask(self, tests: tuple[Test, ...] | None, part: slice, s: Tensor) -> Tensor:
        if tests is None:
            return torch.zeros_like(s, dtype=torch.bool)
        rows = {name: v if v.shape[0] == 1 else v[part] for name, v in self.rows.items()}
        mask = ops.passing(tests, rows, self.cols, s)
        if self.batch:
            mask.diagonal(part.start).fill_(False)
        return mask


class _Own:
    """The columns of a block of which each row has its own; all of their scores are held."""

    def __init__(
        self, block: Own, scores: Scores, rows: Ids, pairs: Sequence[tuple[Test, ...]]
    ) -> None:
        self.scores, self.tests = block.scores(scores), _tests(block, pairs)
        self.width = block.columns.shape[1]

    def of(self, part: slice, x: Tensor) -> list[Tensor]:
        return _marked(self.scores[part], self.tests)


class _Ragged:
    """The same of a block whose rows have different numbers of columns."""

    def __init__(
        self, block: Ragged, scores: Scores, rows: Ids, pairs: Sequence[tuple[Test, ...]]
    ) -> None:
        self.scores, self.tests = block.scores(scores), _tests(block, pairs)
        self.owner, self.width = block.owner, block.columns.shape[0]

    def of(self, part: slice, x: Tensor) -> list[Tensor]:
        bounds = self.owner.new_tensor([part.start, part.stop])
        own = slice(*torch.searchsorted(self.owner, bounds).tolist())
        owner = self.owner[own] - part.start
        return _marked(padded(self.scores[own], owner, part.stop - part.start), self.tests)


def _tests(block: Block, pairs: Sequence[tuple[Test, ...]]) -> list[tuple[Test, ...] | None]:
    return [tests_left(p, frozenset(block.ids), block.passing, block.tests) for p in pairs]


def _marked(s: Tensor, tests: Sequence[tuple[Test, ...] | None]) -> list[Tensor]:
    """Scores of columns that have no ids, -inf where there is no column, and their masks."""
    there = s != -torch.inf
    return [s, *(torch.zeros_like(there) if test is None else there for test in tests)]


def _along(value: Any, part: slice) -> Any:
    """A number, or those of some rows as a column."""
    return value[part, None] if isinstance(value, Tensor) and value.ndim else value


_SIDES: dict[type[Block], Any] = {Own: _Own, Ragged: _Ragged}
