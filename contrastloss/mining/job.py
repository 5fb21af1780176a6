"""Hard negatives from a corpus on disk: one pass over it, whose state is saved at times."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from .. import ops
from ..ops import TopK
from .corpus import csr, highest
from .files import Embeddings, ahead, open_embeddings
from .ids import ids_of, read_positives
from .result import write
from .rules import Rules, chosen

__all__ = ["mine_files"]

#: the blocks of a file from a row on, each with its first row's number
Blocks = Callable[[int], Iterator[tuple[int, Tensor]]]

#: bytes of a block of embeddings, and the most rows of one of queries, after which progress is told
BYTES, QUERIES = 256 << 20, 1 << 13
#: how many blocks of a file are held between passes, rather than read again
HELD = 2
#: seconds between two savings of the state
SECONDS = 60.0


def mine_files(
    queries: str | os.PathLike[str],
    corpus: str | os.PathLike[str],
    output: str | os.PathLike[str],
    k: int,
    *,
    positives: str | os.PathLike[str] | None = None,
    query_ids: str | os.PathLike[str] | None = None,
    corpus_ids: str | os.PathLike[str] | None = None,
    column: str | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], object] | None = None,
    **rules: Any,
) -> None:
    """:func:`hard_negatives` of embeddings on disk, of which blocks of 256 MB are in memory, or
    files of up to two such blocks. Exact, and resumed where it was interrupted.

    Args:
        queries, corpus: files with a matrix of embeddings: .npy, .safetensors (a tensor) or
            .parquet (a column of lists), of fp16, bf16, fp32 or fp64. The ids of a .parquet's
            column or of a .safetensors' tensor ``id`` or ``ids`` are kept; without any, ids are the
            numbers of rows.
        output: a .parquet file: for each query its id ``query``, the ids ``negatives``, their
            ``scores`` and, if they are given, the ids ``positives``. It appears when all is done.
            ``OUTPUT.state`` beside it holds what has been done until then.
        k: the largest number of negatives of a query.
        positives: a .parquet file of pairs of ids, its columns ``query`` and ``positive``, or a
            .npy file of rows of the corpus, (N,) or (N, P), padded with -1.
        query_ids, corpus_ids: .npy files of integers or strings, one id for each row.
        column: the name of the column or tensor that has the embeddings; None for the only one.
        device: where scores are computed.
        progress: is called with the number of pairs that are done, and of all.
        skip, absolute_margin, relative_margin, max_score, min_score, normalize: as of
            :func:`hard_negatives`.
        range_max: None, or look only at so many of the best columns, and as many more as a query
            has positives at most; bounds and ``skip`` leave fewer then. As ``range_max`` of
            sentence-transformers' ``mine_hard_negatives``.
        sampling: ``'top'`` for the best, or ``'random'`` for ``k`` of those up to ``range_max``.
        seed: of the random ones.

    Raises:
        ValueError: an option that is out of range; or a file of another dtype or shape, that is
            truncated, or that holds NaN or infinity: the message names the file and the row. No
            output is written then.
        ImportError: ``pip install 'contrastloss[mining]'``.
    """
    given = Rules(k, **rules)
    target = Path(output)
    if target.suffix != ".parquet":
        raise ValueError(f"output: got {target}, expected a name that ends in .parquet")
    if not target.parent.is_dir():
        raise ValueError(f"output: got {target}, expected a name in a folder that exists")
    _Job(
        given, Path(queries), Path(corpus), target,
        None if positives is None else Path(positives),
        [None if ids is None else Path(ids) for ids in (query_ids, corpus_ids)],
        column, torch.device(device),
    ).run(progress or (lambda done, total: None))  # fmt: skip


class _Job:
    def __init__(
        self,
        rules: Rules,
        queries: Path,
        corpus: Path,
        output: Path,
        positives: Path | None,
        ids: list[Path | None],
        column: str | None,
        device: torch.device,
    ) -> None:
        self.rules, self.output, self.device = rules, output, device
        self.queries, self.corpus = (open_embeddings(path, column) for path in (queries, corpus))
        some = self.queries.rows and self.corpus.rows  # no lists have no length
        if some and self.queries.dim != self.corpus.dim:
            got = f"embeddings of length {self.queries.dim}"
            raise ValueError(f"{queries}: got {got}, expected that of {corpus}, {self.corpus.dim}")
        self.ids = [ids_of(*both) for both in zip((self.queries, self.corpus), ids, strict=True)]
        self.dtype = torch.promote_types(self.queries.dtype, self.corpus.dtype)
        self.positives = None
        if positives is not None:
            self.positives = torch.from_numpy(read_positives(positives, *self.ids))
        elif rules.margins != (None, None):
            raise ValueError("positives: got None, expected a file with a margin")
        used = [queries, corpus, positives, *ids]
        self.identity = json.dumps([asdict(rules), column, *map(_stamp, used)])
        self.options: dict[str, Any] = {"cosine": rules.normalize}
        # with range_max, the best are found first, whatever they are, and bounds apply to them
        self.window = 0 if self.positives is None else self.positives.shape[1]
        self.count = rules.skip + rules.k
        if rules.range_max is not None:
            self.count = rules.range_max + self.window
        self.count = min(self.count, max(self.corpus.rows, 1))

    # ---- blocks ----------------------------------------------------------------------------------

    def blocks(self, of: Embeddings, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        size = max(BYTES // max(of.dim * of.dtype.itemsize, 1), 1)
        size = min(size, QUERIES) if of is self.queries else size
        for start, block in ahead(of.blocks(size, first)):
            yield start, block.to(self.device, self.dtype)

    def reader(self, of: Embeddings) -> Blocks:
        """The blocks from a row on, as often as they are asked for; held if they are few."""
        if of.rows * of.dim * self.dtype.itemsize > HELD * BYTES:
            return lambda first: self.blocks(of, first)
        held = list(self.blocks(of))
        return lambda first: (pair for pair in held if pair[0] >= first)

    # ---- the passes ------------------------------------------------------------------------------

    def run(self, progress: Callable[[int, int], object]) -> None:
        state = _State(self)
        try:
            queries, corpus = self.reader(self.queries), self.reader(self.corpus)
            bounds = self.bounds(queries, corpus)
            self.search(state, queries, corpus, bounds, progress)
            found = chosen(state.best(), self.rules, self.positives, bounds)
            write(self.output, found, self.positives, *self.ids)
        except KeyboardInterrupt:
            state.save()
            raise
        except ValueError:  # a file is not what it should be, and will be another
            state.remove()
            raise
        state.remove()

    def bounds(self, queries: Blocks, corpus: Blocks) -> Tensor | None:
        """The largest allowed score of each query's negatives."""
        rules, positives = self.rules, self.positives
        upper = None
        if positives is not None and rules.margins != (None, None):
            stat = ops.stat_dtype(torch.empty(0, dtype=self.dtype))
            scores = torch.full(positives.shape, -torch.inf, dtype=stat)
            lengths = None if rules.normalize else torch.zeros_like(scores)
            for first, block in corpus(0):
                for start, rows in queries(0):
                    self.measure(scores, lengths, first, block, start, rows)
            upper = torch.empty(len(scores), dtype=stat)
            for start, rows in queries(0):
                part = slice(start, start + len(rows))
                long = None if lengths is None else lengths[part].to(self.device)
                own = (scores[part].to(self.device), long, (positives[part] >= 0).to(self.device))
                upper[part] = highest(rows, *own, *rules.margins).cpu()
        if rules.max_score is None:
            return upper
        if upper is None:
            stat = ops.stat_dtype(torch.empty(0, dtype=self.dtype))
            return torch.full((self.queries.rows,), rules.max_score, dtype=stat)
        return upper.clamp_max(rules.max_score)

    def measure(
        self,
        scores: Tensor,
        lengths: Tensor | None,
        first: int,
        block: Tensor,
        start: int,
        rows: Tensor,
    ) -> None:
        """Fills in the scores of the positives in a block of the corpus, and their lengths."""
        assert self.positives is not None
        place = _within(self.positives[start : start + len(rows)], first, len(block))
        some = (place >= 0).any(1).nonzero()[:, 0]
        if not len(some):
            return
        own, found = place[some], some + start
        on = own.to(self.device)
        given = ops.gather_scores(rows[some.to(self.device)], block, on, **self.options).cpu()
        scores[found] = torch.where(own >= 0, given, scores[found])
        if lengths is not None:
            norms = block.to(given.dtype).norm(dim=1)[on.clamp_min(0)].cpu()
            lengths[found] = torch.where(own >= 0, norms, lengths[found])

    def search(
        self,
        state: _State,
        queries: Blocks,
        corpus: Blocks,
        bounds: Tensor | None,
        progress: Callable[[int, int], object],
    ) -> None:
        """Merges the best columns of every block of the corpus into the state."""
        total, begun = self.queries.rows * self.corpus.rows, False
        for first, block in corpus(state.corpus):
            if not begun:
                begun = True
                progress(first * self.queries.rows + state.queries * len(block), total)
            for start, rows in queries(0):
                if first == state.corpus and start < state.queries:
                    continue  # done before the interruption
                state.merge(start, first, self.best(first, block, start, rows, bounds))
                state.queries = start + len(rows)
                progress(first * self.queries.rows + state.queries * len(block), total)
                state.save_sometimes()
            state.corpus, state.queries = first + len(block), 0
        progress(total, total)

    def best(
        self, first: int, block: Tensor, start: int, rows: Tensor, bounds: Tensor | None
    ) -> TopK:
        part = slice(start, start + len(rows))
        options = dict(self.options)
        if self.rules.range_max is None:
            options["lower"] = self.rules.min_score
            options["upper"] = None if bounds is None else bounds[part].to(self.device)
            if self.positives is not None:
                own = _within(self.positives[part], first, len(block)).to(self.device)
                options["ignore"] = csr(own)
        return ops.pair_topk(rows, block, min(self.count, len(block)), **options)


def _within(index: Tensor, first: int, size: int) -> Tensor:
    """Rows of the corpus as rows of a block; -1 for those of others."""
    return torch.where((index >= first) & (index < first + size), index - first, -1)


def _stamp(path: Path | None) -> Any:
    """What tells a file from another one, or from itself when it was changed."""
    if path is None:
        return None
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


class _State:
    """The best columns of every query so far, and how far that is: all rows of the corpus before
    ``corpus`` and, for the queries before ``queries``, the block that begins there."""

    def __init__(self, job: _Job) -> None:
        import numpy as np

        self.path = job.output.with_name(job.output.name + ".state")
        self.identity, self.saved = job.identity, time.monotonic()
        shape = job.queries.rows, job.count
        stat = ops.stat_dtype(torch.empty(0, dtype=job.dtype))
        self.values = torch.full(shape, -torch.inf, dtype=stat)
        self.indices = torch.full(shape, -1)
        self.corpus = self.queries = 0
        with suppress(OSError, ValueError, KeyError, BadZipFile), self.path.open("rb") as file:
            found = np.load(file)
            if found["identity"].item() == self.identity:
                self.values = torch.from_numpy(found["values"])
                self.indices = torch.from_numpy(found["indices"])
                self.corpus, self.queries = found["at"].tolist()

    def best(self) -> TopK:
        return TopK(self.values, self.indices)

    def merge(self, start: int, first: int, new: TopK) -> None:
        """The best of the queries from ``start`` on, in the corpus from ``first`` on."""
        part = slice(start, start + len(new.values))
        new = TopK(new.values.cpu(), new.indices.cpu())
        old = TopK(self.values[part], self.indices[part])
        found = ops.merge_topk([old, new], [0, first])
        self.values[part], self.indices[part] = found

    def save_sometimes(self) -> None:
        if time.monotonic() - self.saved > SECONDS:
            self.save()

    def save(self) -> None:
        import numpy as np

        new = self.path.with_name(self.path.name + ".new")
        with new.open("wb") as file:
            np.savez(
                file, identity=self.identity, at=[self.corpus, self.queries],
                values=self.values.numpy(), indices=self.indices.numpy(),
            )  # fmt: skip
        os.replace(new, self.path)
        self.saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
