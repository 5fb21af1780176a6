"""Which rows of x and y are positives, where row i of y is not that of row i of x."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...channel import COL, ROW, Axis, Channel, same
from ...inputs import admitted
from ...ops.check import check_range, is_number
from ...ops.segments import segment_stats
from ...options import shape
from .blocks import Ids
from .checks import check_ascending
from .scores import Scores

__all__ = ["MATCH", "MATCHING", "Listed", "Positives"]

#: the id that positives have in common
MATCH = "match"
MATCHING = (same(MATCH),)


@dataclass(frozen=True)
class Listed:
    """Pairs of row ``rows[p]`` and column ``cols[p]``, and their scores."""

    rows: Tensor
    cols: Tensor
    scores: Tensor

    def once(self) -> Listed:
        """Each pair once, whose other occurrences are missing."""
        key = self.rows << 32 | self.cols
        key, order = key.sort(stable=True)
        again = torch.zeros_like(key, dtype=torch.bool)
        again[1:] = key[1:] == key[:-1]
        missing = torch.empty_like(again).scatter(0, order, again)
        return replace(self, scores=torch.where(missing, -torch.inf, self.scores))

    def stats(self, channels: Sequence[Channel], sizes: tuple[int, int]) -> list[Any]:
        """What channels of positives return for so many rows and columns."""
        found: dict[Axis, list[Any]] = {}
        for axis, owner, n in ((ROW, self.rows, sizes[0]), (COL, self.cols, sizes[1])):
            asked = [c.adapted((), ROW) for c in channels if c.axis == axis]
            order = owner.argsort(stable=True)
            found[axis] = segment_stats(self.scores[order], owner[order], n, asked)
        return [found[channel.axis].pop(0) for channel in channels]


class Positives(NamedTuple):
    """The arguments of ``forward`` that say the positives."""

    #: (M,), a place in y or -1; (P, 2), pairs of places in x and y; or offsets, (M + 1,), and
    #: places in y: those of row i from offset i to before offset i + 1
    places: Tensor | tuple[Tensor, Tensor] | None = None
    x_ids: Tensor | None = None
    y_ids: Tensor | None = None

    @property
    def aligned(self) -> bool:
        """Whether row i's positive is column i."""
        return self.places is None and self.x_ids is None

    def checked(self, x: Tensor, y: Tensor, ids: Tensor | None) -> Positives:
        """They fit together and to the rows of x and y. Places are then (M,), or rows and columns
        of pairs. It is known before the ranks of a group meet."""
        if self.aligned and self.y_ids is None and x.shape == y.shape:
            return self
        for one, value, other in (("x", self.x_ids, self.y_ids), ("y", self.y_ids, self.x_ids)):
            if value is not None and other is None:
                missing = "y" if one == "x" else "x"
                raise ValueError(f"{one}_ids: got a value, expected None without {missing}_ids")
        if self.places is not None and self.x_ids is not None:
            raise ValueError("positives: got a value, expected None with x_ids and y_ids")
        if ids is not None and not self.aligned:
            name = "positives" if self.x_ids is None else "x_ids and y_ids"
            raise ValueError(f"ids: got a value, expected None with {name}")
        if self.aligned and x.shape != y.shape:
            raise ValueError(f"y: got shape {shape(y)}, expected x's {shape(x)} without positives")
        return self if self.places is None else self._replace(places=_fitting(self.places, x, y))

    def match(self, scores: Scores) -> tuple[Ids, Ids] | Listed:
        """Ids of rows and of columns, which positives of all ranks have in common; or a list."""
        y = scores.y
        assert y is not None
        if self.x_ids is not None and self.y_ids is not None:
            return {MATCH: self.x_ids}, {MATCH: self.y_ids}
        if isinstance(self.places, tuple):
            return _listed(scores, *self.places)
        assert self.places is not None
        columns = torch.arange(y.shape[0], device=y.device)
        return {MATCH: scores.distinct(self.places)}, {MATCH: scores.distinct(columns)}


def _listed(scores: Scores, rows: Tensor, cols: Tensor) -> Listed:
    """The pairs with their scores; what is out of range, which a CPU refuses, is missing."""
    assert scores.y is not None
    m, n = scores.x.shape[0], scores.y.shape[0]
    there = (rows >= 0) & (rows < m) & (cols >= 0) & (cols < n)
    rows, cols = torch.where(there, rows, 0), torch.where(there, cols, 0)
    return Listed(rows, cols, torch.where(there, scores.listed(rows, cols), -torch.inf))


def _fitting(places: Any, x: Tensor, y: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(places, tuple) and not all(map(is_number, places)):
        return _of_offsets(places, x, y)
    places = _integers(places, "M int | P 2 int", x).long()
    if places.ndim == 1:
        check_range("positives", places, -1, y.shape[0] - 1, "rows of y, or -1")
        return places
    rows, cols = places.unbind(1)
    check_range("positives", rows, 0, x.shape[0] - 1, "rows of x")
    check_range("positives", cols, 0, y.shape[0] - 1, "rows of y")
    return rows, cols


def _integers(value: Any, spec: str, x: Tensor) -> Tensor:
    found, _ = admitted({"x": "M D", "positives": spec}, (), ("x", "positives"), (x, value), {})
    return found[1]


def _of_offsets(places: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if len(places) != 2:
        raise ValueError(f"positives: got {len(places)} tensors, expected offsets and columns")
    offsets, cols = [_integers(value, "P int", x).long() for value in places]
    m, count = x.shape[0], cols.shape[0]
    if offsets.shape[0] != m + 1:
        raise ValueError(f"positives: got {offsets.shape[0]} offsets, expected {m + 1}")
    check_range("positives", cols, 0, y.shape[0] - 1, "rows of y")
    check_ascending("positives", offsets, count)
    place = torch.arange(count, device=cols.device)
    rows = torch.searchsorted(offsets, place, right=True) - 1
    return rows.clamp(0, max(m - 1, 0)), cols
