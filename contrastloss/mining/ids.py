"""The ids of rows, which stay in their files: those of some rows, and the rows of some ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .files import Embeddings, npy_array, parquet_batches, parquet_file, wrong

__all__ = ["Ids", "ids_of", "read_positives"]

#: how many ids are held at once
SIZE = 1 << 20


class Ids:
    """The ids of a file's rows; without ``read``, which yields arrow arrays of them from a row on,
    the numbers of the rows."""

    def __init__(self, path: Path, rows: int, read: Callable[[int], Iterator[Any]] | None) -> None:
        self.path, self.rows, self.read = path, rows, read

    @property
    def type(self) -> Any:
        import pyarrow as pa

        if self.read is None:
            return pa.int64()
        return next((part.type for part in self.read(0)), pa.int64())

    def take(self, rows: Any) -> Any:
        """The ids of rows, which ascend, as an arrow array."""
        import numpy as np
        import pyarrow as pa

        if self.read is None:
            return pa.array(rows, pa.int64())
        parts, first = [], 0
        for part in self.read(0):
            low, high = np.searchsorted(rows, (first, first + len(part)))
            parts.append(part.take(pa.array(rows[low:high] - first)))
            first += len(part)
        return pa.concat_arrays(parts) if parts else pa.array([], self.type)

    def find(self, wanted: Any, source: Path) -> Any:
        """The rows that have the ``wanted`` ids, an arrow array from the file ``source``."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            wanted = wanted.cast(self.type)
        except pa.ArrowException:
            got = f"ids of type {wanted.type}"
            raise wrong(source, got, f"those of {self.path}, {self.type}") from None
        if self.read is None:
            found = wanted.fill_null(-1).to_numpy(zero_copy_only=False).copy()
            found[(found < 0) | (found >= self.rows)] = -1
        else:
            found, first = np.full(len(wanted), -1), 0
            for part in self.read(0):
                place = pc.index_in(wanted, value_set=part).fill_null(-1)
                place = place.to_numpy(zero_copy_only=False)
                new = (place >= 0) & (found < 0)
                found[new] = place[new] + first
                first += len(part)
        missing = (found < 0).nonzero()[0]
        if len(missing):
            row = int(missing[0])
            raise wrong(source, repr(wanted[row].as_py()), f"an id of {self.path}", row)
        return found


def ids_of(embeddings: Embeddings, given: Path | None) -> Ids:
    """The ids of embeddings: those of the .npy file ``given``, else those of their own file, its
    column or tensor ``id`` or ``ids``, else the numbers of the rows."""
    import pyarrow as pa

    path, rows = embeddings.path, embeddings.rows
    if given is not None:
        values = npy_array(given)
        if values.shape != (rows,) or values.dtype.kind not in "iuU":
            expected = f"integers or strings of shape ({rows},), for the rows of {path}"
            raise wrong(given, f"dtype {values.dtype} and shape {values.shape}", expected)
        return _of_array(given, values)
    if embeddings.ids is None:
        return Ids(path, rows, None)
    if path.suffix == ".parquet":
        file, name = parquet_file(path), embeddings.ids

        def read(first: int) -> Iterator[Any]:
            for part in parquet_batches(path, file, name, first, SIZE):
                if part.null_count:
                    row = part.is_null().to_numpy(zero_copy_only=False).nonzero()[0][0]
                    raise wrong(path, "no id", "one", first + int(row))
                first += len(part)
                yield part.dictionary_decode() if pa.types.is_dictionary(part.type) else part

        return Ids(path, rows, read)
    from safetensors import safe_open

    values = safe_open(path, framework="np").get_tensor(embeddings.ids)
    if values.shape != (rows,) or values.dtype.kind not in "iu":
        got = f"{embeddings.ids!r} of dtype {values.dtype} and shape {values.shape}"
        raise wrong(path, got, f"integers of shape ({rows},)")
    return _of_array(path, values)


def _of_array(path: Path, values: Any) -> Ids:
    import pyarrow as pa

    def read(first: int) -> Iterator[Any]:
        for start in range(first, len(values), SIZE):
            yield pa.array(values[start : start + SIZE])

    return Ids(path, len(values), read)


def read_positives(path: Path, queries: Ids, corpus: Ids) -> Any:
    """Each query's positives as rows of the corpus, (N, P), padded with -1: from a .npy file of
    row numbers, (N,) or (N, P), or from a .parquet file of pairs of ids, its columns ``query`` and
    ``positive``."""
    import numpy as np
    import pyarrow.parquet as pq

    if not path.is_file():
        raise wrong(path, "no file", "one with positives")
    if path.suffix == ".npy":
        rows = np.array(npy_array(path))
        if rows.dtype.kind not in "iu" or rows.ndim not in (1, 2) or len(rows) != queries.rows:
            expected = f"integers of shape ({queries.rows},) or ({queries.rows}, P)"
            raise wrong(path, f"dtype {rows.dtype} and shape {rows.shape}", expected)
        rows = rows.reshape(queries.rows, -1).astype(np.int64)
        bad = ((rows < -1) | (rows >= corpus.rows)).nonzero()
        if len(bad[0]):
            row, place = bad[0][0], bad[1][0]
            expected = f"-1 to {corpus.rows - 1}, the rows of {corpus.path}"
            raise wrong(path, str(rows[row, place]), expected, int(row))
        return rows
    if path.suffix != ".parquet":
        raise wrong(path, f"the ending {path.suffix!r}", ".npy or .parquet")
    names = parquet_file(path).schema_arrow.names
    if not {"query", "positive"} <= {*names}:
        raise wrong(path, f"the columns {', '.join(names)}", "query and positive")
    pairs = pq.read_table(path, columns=["query", "positive"])
    rows = queries.find(pairs["query"].combine_chunks(), path)
    return _padded(rows, corpus.find(pairs["positive"].combine_chunks(), path), queries.rows)


def _padded(rows: Any, values: Any, count: int) -> Any:
    """Values listed by row, (count, P), padded with -1, in their order and each of them once."""
    import numpy as np

    once = np.sort(np.unique(np.stack([rows, values]), axis=1, return_index=True)[1])
    rows, values = rows[once], values[once]
    order = np.argsort(rows, kind="stable")
    rows, values = rows[order], values[order]
    sizes = np.bincount(rows, minlength=count)
    found = np.full((count, max(int(sizes.max(initial=0)), 1)), -1)
    found[rows, np.arange(len(rows)) - np.repeat(sizes.cumsum() - sizes, sizes)] = values
    return found
