"""Queries against a corpus, some of whose columns are relevant to each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..channel import INDEX, SUM, Test, differs, same
from ..ops.check import check_range

__all__ = ["ENTRIES", "RELEVANT", "LabelSearch", "Search", "search_for"]

#: the shapes of what says which columns are relevant, for ``takes``
RELEVANT = {
    "queries": "N D",
    "corpus": "M D",
    "positives": "N int | N P int",
    "labels": "N int",
    "corpus_labels": "M int",
}
#: entries, a score and an index each, of a block of queries with their best columns
ENTRIES = 1 << 22
#: how many thresholds one pass over the pairs counts at
THRESHOLDS = 8
_LABEL = "label"


class Search:
    """What the metrics share, whichever way relevant columns are said.

    Args:
        queries, corpus, normalize, backend: as of the metrics.
        count: (N,), how many relevant columns each query has.
    """

    def __init__(
        self, queries: Tensor, corpus: Tensor | None, normalize: bool, backend: str | None
    ) -> None:
        self.queries, self.corpus = queries, queries if corpus is None else corpus
        #: without row i for query i
        self.apart: tuple[Test, ...] = (differs(INDEX),) if corpus is None else ()
        self.options: dict[str, Any] = {"cosine": normalize, "backend": backend}
        self.dtype, self.widest = ops.stat_dtype(queries), ops.widest(queries)
        self.count = self.counted()

    def counted(self) -> Tensor:
        """How many relevant columns each query has, (N,)."""
        raise NotImplementedError

    def among(self, rows: Tensor, index: Tensor) -> Tensor:
        """Which of these columns (n, k), of these rows, are relevant; -1 may be either."""
        raise NotImplementedError

    def relevant_scores(self, rows: Tensor, most: int) -> Tensor:
        """The scores of the relevant columns of these rows, which have at most so many, (n, most),
        best first, padded with -inf."""
        raise NotImplementedError

    def relevant_sums(self, psi: str, shifts: Mapping[str, Tensor]) -> list[Tensor]:
        """Sums of ``psi(s_ij - shift_i)`` over the relevant columns, (N,) for each shift."""
        raise NotImplementedError

    # ---- blocks of queries that have a relevant column --------------------------------------

    def blocks(self, width: int) -> Iterator[Tensor]:
        """Rows, so many that ``width`` columns of each fit."""
        rows = (self.count > 0).nonzero().squeeze(1)
        return iter(rows.split(max(1, ENTRIES // width)) if len(rows) else ())

    def ranked_blocks(self) -> Iterator[tuple[Tensor, int]]:
        """Rows with similar numbers of relevant columns, and the largest number of them."""
        rows = self.count.argsort(stable=True)
        rows = rows[self.count[rows] > 0]
        end = len(rows)
        while end:
            most = int(self.count[rows[end - 1]])
            start = max(0, end - max(1, ENTRIES // most))
            yield rows[start:end], most
            end = start

    # ---- the first k columns, and all ranks -------------------------------------------------

    def nearest(self, rows: Tensor, k: int, pairs: tuple[Test, ...] = ()) -> ops.TopK:
        """The best columns of these rows, at most as many as there are."""
        pairs, k = (*self.apart, *pairs), max(1, min(k, len(self.corpus)))
        given = {**self.named(pairs, rows), **self.options}
        return ops.pair_topk(self.queries[rows], self.corpus, k, pairs=pairs, **given)

    def hits(self, rows: Tensor, k: int) -> Tensor:
        """Which of the best columns of these rows are relevant, (n, at most k)."""
        index = self.nearest(rows, k).indices
        return self.among(rows, index) & (index >= 0)

    def counts(self, rows: Tensor, most: int, first: int) -> tuple[Tensor, Tensor]:
        """How many relevant columns, and how many of all, score at least as high as the first,
        second, ... relevant one, (n, first) each. ``most``: no row has more relevant ones."""
        scores = self.relevant_scores(rows, most)
        least = scores[:, :first] - self._slack(rows)
        least = torch.where(least == -torch.inf, 0.0, least)  # of padding
        own = torch.searchsorted(-scores, -least, right=True).to(scores.dtype)
        parts = []
        for part in least.split(THRESHOLDS, 1):
            shifts = {f"t{r}": column.contiguous() for r, column in enumerate(part.unbind(1))}
            parts += self.sums("step", shifts, rows)
        return own, torch.maximum(torch.stack(parts, 1), own)

    def _slack(self, rows: Tensor) -> Tensor:
        """What another order of the same products may make of the scores of these rows."""
        slack = torch.full((), ops.rounding(self.queries), dtype=self.dtype, device=rows.device)
        if not self.options["cosine"]:
            longest = self.corpus.to(self.dtype).norm(dim=1).max()
            own = self.queries[rows].to(self.dtype).norm(dim=1, keepdim=True)
            slack = slack * longest * own
        return slack.clamp_min(torch.finfo(self.dtype).tiny)

    # ---- sums over pairs --------------------------------------------------------------------

    def sums(
        self,
        psi: str,
        shifts: Mapping[str, Tensor],
        rows: Tensor | None = None,
        pairs: tuple[Test, ...] = (),
    ) -> list[Tensor]:
        """Sums of ``psi(s_ij - shift_i)`` over the columns that pass tests, of all rows or of
        these, a vector for each shift."""
        rows = torch.arange(len(self.queries), device=self.queries.device) if rows is None else rows
        pairs = (*self.apart, *pairs)
        channels = [SUM(psi, shift=name, pairs=pairs) for name in shifts]
        given = {**self.named(pairs, rows), **self.options}
        given["rows"].update(shifts)
        return ops.pair_stats(self.queries[rows], self.corpus, channels, **given)

    def totals(self, psi: str, shifts: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Sums of ``psi(s_ij - shift)`` over the relevant pairs and over all others, (S,) each."""
        if not shifts:
            return (torch.zeros(0, device=self.count.device),) * 2
        own, every = [], []
        for start in range(0, len(shifts), THRESHOLDS):
            given = {
                f"t{k}": torch.full_like(self.count, value, dtype=self.dtype)
                for k, value in enumerate(shifts[start : start + THRESHOLDS])
            }
            own += self.relevant_sums(psi, given)
            every += self.sums(psi, given)
        sums = [torch.stack(v).sum(1, dtype=self.widest) for v in (own, every)]
        return sums[0], sums[1] - sums[0]

    def pairs(self) -> tuple[int, int]:
        """How many pairs are relevant, and how many are not."""
        own = int(self.count.sum())
        return own, len(self.queries) * (len(self.corpus) - len(self.apart)) - own

    def named(self, pairs: Sequence[Test], rows: Tensor) -> dict[str, dict[str, Tensor]]:
        """The operands of tests, of these rows."""
        found = {test.name: self.ids(test.name, rows) for test in pairs}
        return {
            "rows": {name: own for name, (own, _) in found.items()},
            "cols": {name: of_columns for name, (_, of_columns) in found.items()},
        }

    def ids(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What a test of this name compares: of these rows, and of the columns."""
        return rows, torch.arange(len(self.corpus), device=rows.device)

    # ---- results ----------------------------------------------------------------------------

    def values(self, *width: int) -> Tensor:
        """A place for a value, or several, of every query: NaN so far."""
        shape, device = (len(self.queries), *width), self.queries.device
        return torch.full(shape, torch.nan, dtype=self.dtype, device=device)

    def reduced(self, values: Tensor, reduction: str) -> Tensor:
        """Their means over the queries that have a relevant column, unless all are wanted."""
        if reduction == "none":
            return values
        return values[self.count > 0].to(self.widest).mean(0).to(self.dtype)


class LabelSearch(Search):
    """Columns with the query's label are relevant."""

    def __init__(
        self,
        queries: Tensor,
        corpus: Tensor | None,
        labels: Tensor,
        corpus_labels: Tensor | None,
        normalize: bool,
        backend: str | None,
    ) -> None:
        if (corpus is None) != (corpus_labels is None):
            got, wanted = ("None", "labels") if corpus_labels is None else ("labels", "None")
            other = "one" if corpus_labels is None else "no corpus"
            raise ValueError(f"corpus_labels: got {got} with {other}, expected {wanted}")
        self.labels = labels.long()
        self.corpus_labels = self.labels if corpus_labels is None else corpus_labels.long()
        super().__init__(queries, corpus, normalize, backend)

    def counted(self) -> Tensor:
        ordered = self.corpus_labels.sort().values
        first, last = (torch.searchsorted(ordered, self.labels, right=r) for r in (False, True))
        return last - first - len(self.apart)

    def among(self, rows: Tensor, index: Tensor) -> Tensor:
        return self.corpus_labels[index.clamp_min(0)] == self.labels[rows, None]

    def relevant_scores(self, rows: Tensor, most: int) -> Tensor:
        return self.nearest(rows, most, (same(_LABEL),)).values

    def relevant_sums(self, psi: str, shifts: Mapping[str, Tensor]) -> list[Tensor]:
        return self.sums(psi, shifts, pairs=(same(_LABEL),))

    def ids(self, name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
        if name == _LABEL:
            return self.labels[rows], self.corpus_labels
        return super().ids(name, rows)


class _IndexSearch(Search):
    """Listed columns are relevant."""

    def __init__(
        self,
        queries: Tensor,
        corpus: Tensor | None,
        positives: Tensor,
        normalize: bool,
        backend: str | None,
    ) -> None:
        most = len(queries if corpus is None else corpus) - 1
        check_range("positives", positives, -1, most, "columns of the corpus")
        index = (positives if positives.ndim > 1 else positives.unsqueeze(1)).long()
        if corpus is None:  # no query is a positive of its own
            own = torch.arange(len(index), device=index.device)
            index = index.masked_fill(index == own[:, None], -1)
        #: (N, P) with P >= 1: ascending, each once, after as many -1
        self.positives = _distinct(torch.nn.functional.pad(index, (1, 0), value=-1))
        super().__init__(queries, corpus, normalize, backend)

    def counted(self) -> Tensor:
        return (self.positives >= 0).sum(1)

    def among(self, rows: Tensor, index: Tensor) -> Tensor:
        positives = self.positives[rows]
        place = torch.searchsorted(positives, index).clamp_max(positives.shape[1] - 1)
        return positives.gather(1, place) == index

    def relevant_scores(self, rows: Tensor, most: int) -> Tensor:
        scores = self._scores(self.queries[rows], self.positives[rows, -most:])
        return scores.sort(1, descending=True).values

    def relevant_sums(self, psi: str, shifts: Mapping[str, Tensor]) -> list[Tensor]:
        channels = [SUM(psi, shift=name) for name in shifts]
        return ops.row_stats(self._scores(self.queries, self.positives), channels, shifts)

    def _scores(self, queries: Tensor, positives: Tensor) -> Tensor:
        return ops.gather_scores(queries, self.corpus, positives, **self.options)


def _distinct(index: Tensor) -> Tensor:
    """Each row ascending, and -1 for what is in it twice."""
    index = index.sort(1).values
    again = index[:, 1:] == index[:, :-1]
    return torch.cat([index[:, :1], index[:, 1:].masked_fill(again, -1)], 1).sort(1).values


def search_for(
    queries: Tensor,
    corpus: Tensor | None,
    positives: Tensor | None,
    labels: Tensor | None,
    corpus_labels: Tensor | None,
    normalize: bool,
    backend: str | None,
) -> Search:
    """The search of a metric's arguments."""
    if labels is not None:
        if positives is not None:
            raise ValueError("positives: got some with labels, expected one of the two")
        return LabelSearch(queries, corpus, labels, corpus_labels, normalize, backend)
    if corpus_labels is not None:
        raise ValueError("corpus_labels: got some without labels, expected both")
    if positives is None:
        if corpus is None:
            raise ValueError("corpus: got None, expected one, or labels or positives")
        if len(corpus) < len(queries):
            expected = f"at least {len(queries)}: row i is relevant to query i"
            raise ValueError(f"corpus: got {len(corpus)} rows, expected {expected}")
        positives = torch.arange(len(queries), device=queries.device)
    return _IndexSearch(queries, corpus, positives, normalize, backend)
