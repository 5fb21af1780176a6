"""The file of what a search has found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops import TopK
from .ids import Ids

__all__ = ["write"]

#: queries that are written at once
ROWS = 1 << 16


class _Names:
    """The corpus's ids of the rows that occur."""

    def __init__(self, ids: Ids, *rows: Tensor) -> None:
        import numpy as np

        self.rows = np.unique(np.concatenate([v.numpy().ravel() for v in rows]))
        self.rows = self.rows[self.rows >= 0]
        self.ids = ids.take(self.rows)

    def lists(self, rows: Tensor) -> Any:
        """Lists of ids, of rows padded with -1."""
        import numpy as np
        import pyarrow as pa

        some = rows >= 0
        places = np.searchsorted(self.rows, rows[some].numpy())
        return pa.ListArray.from_arrays(_offsets(some), self.ids.take(pa.array(places)))


def _offsets(some: Tensor) -> Any:
    import pyarrow as pa

    ends = torch.nn.functional.pad(some.sum(1).cumsum(0), (1, 0))
    return pa.array(ends.numpy(), pa.int32())


def write(path: Path, found: TopK, positives: Tensor | None, queries: Ids, corpus: Ids) -> None:
    """The .parquet file of what was found, one row for each query; written under another name and
    then renamed."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores, index = found
    names = _Names(corpus, index, *([] if positives is None else [positives]))
    kind, number = names.ids.type, pa.from_numpy_dtype(scores.numpy().dtype)
    fields = {"query": queries.type, "negatives": pa.list_(kind), "scores": pa.list_(number)}
    if positives is not None:
        fields["positives"] = pa.list_(kind)
    schema, new = pa.schema(fields), path.with_name(path.name + ".new")
    try:
        with pq.ParquetWriter(new, schema) as file:
            for start in range(0, len(index), ROWS):
                part = slice(start, start + ROWS)
                some = index[part] >= 0
                columns = {
                    "query": queries.take(np.arange(start, start + len(some))),
                    "negatives": names.lists(index[part]),
                    "scores": pa.ListArray.from_arrays(
                        _offsets(some), pa.array(scores[part][some].numpy())
                    ),
                }
                if positives is not None:
                    columns["positives"] = names.lists(positives[part])
                file.write_table(pa.table(columns, schema=schema))
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
