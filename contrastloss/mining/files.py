"""Embeddings in files, read in blocks of rows: .npy, .safetensors and .parquet.

What is wrong with a file is a ValueError that names the file and, if there is one, the row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Embeddings", "ahead", "open_embeddings", "wrong"]

FLOATS = ("float16", "bfloat16", "float32", "float64")


def wrong(path: Path, got: str, expected: str, row: int | None = None) -> ValueError:
    """The error about a file, or about a row of it."""
    where = path if row is None else f"{path}: row {row}"
    return ValueError(f"{where}: got {got}, expected {expected}")


class Embeddings:
    """A matrix (rows, dim) in a file; nothing of it is held in memory.

    ``read(first, size)`` yields its rows from the ``first`` on, as tensors of about ``size`` rows.
    ``ids`` is the name of the file's own ids, if it has any.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        dim: int,
        dtype: torch.dtype,
        read: Callable[[int, int], Iterator[Tensor]],
        ids: str | None = None,
    ) -> None:
        self.path, self.rows, self.dim, self.dtype = path, rows, dim, dtype
        self.read, self.ids = read, ids

    def blocks(self, size: int, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """The rows from the ``first`` on in blocks of ``size``, each with its first row's number.
        Every number in them is finite."""
        held: list[Tensor] = []
        count = 0
        for part in self.read(first, size):
            while len(part):
                held.append(part[: size - count])
                part = part[len(held[-1]) :]
                count += len(held[-1])
                if count == size:
                    yield first, self._checked(first, held)
                    first, held, count = first + size, [], 0
        if count:
            yield first, self._checked(first, held)

    def _checked(self, first: int, parts: list[Tensor]) -> Tensor:
        block = parts[0] if len(parts) == 1 else torch.cat(parts)
        if block.numel() and not all(v.isfinite() for v in block.aminmax()):
            row, place = (~block.isfinite()).nonzero()[0].tolist()
            got = f"{block[row, place].item()}".replace("nan", "NaN")
            raise wrong(self.path, got, "finite numbers", first + row)
        return block


def ahead(blocks: Iterator[Any]) -> Iterator[Any]:
    """The same blocks, of which the next is read while the last is used."""
    with ThreadPoolExecutor(1) as reader:
        nothing = object()
        coming = reader.submit(next, blocks, nothing)
        while (block := coming.result()) is not nothing:
            coming = reader.submit(next, blocks, nothing)
            yield block


def open_embeddings(path: Path, column: str | None = None) -> Embeddings:
    """The embeddings of a file; ``column`` is the name of the column of a .parquet or of the tensor
    of a .safetensors that has them, None for the only one that can."""
    opened = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}.get(path.suffix)
    if opened is None:
        raise wrong(path, f"the ending {path.suffix!r}", ".npy, .safetensors or .parquet")
    if not path.is_file():
        raise wrong(path, "no file", "one with embeddings")
    return opened(path, column)


# ---- .npy ----------------------------------------------------------------------------------------


def _npy(path: Path, column: str | None) -> Embeddings:
    import numpy as np

    del column
    array = npy_array(path)
    if array.ndim != 2:
        raise wrong(path, f"shape {array.shape}, one of {array.ndim} dimensions", "(rows, dim)")
    if str(array.dtype) not in FLOATS:
        raise wrong(path, f"dtype {array.dtype}", f"one of {', '.join(FLOATS)}, in native order")

    def read(first: int, size: int) -> Iterator[Tensor]:
        for start in range(first, len(array), size):
            yield torch.from_numpy(np.ascontiguousarray(array[start : start + size]))

    rows, dim = array.shape
    return Embeddings(path, rows, dim, getattr(torch, str(array.dtype)), read)


def npy_array(path: Path) -> Any:
    """The array of a .npy file, mapped into memory."""
    import numpy as np

    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = header(file)
            there = os.path.getsize(path) - file.tell()
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise wrong(path, f"no header of an array ({error})", "a .npy file") from None
    if dtype.hasobject:
        raise wrong(path, "Python objects, as of rows of several lengths", "a matrix of numbers")
    count = 1
    for length in shape:
        count *= length
    if there < count * dtype.itemsize:
        row = there * max(shape[0], 1) // max(count * dtype.itemsize, 1) if shape else 0
        got = f"a truncated file, of {there:,} bytes of numbers"
        raise wrong(path, got, f"{count * dtype.itemsize:,} for shape {shape}", row)
    if not count:  # there is nothing to map
        return np.empty(shape, dtype)
    # copy on write: torch warns of memory that it may not write to
    return np.load(path, mmap_mode="c", allow_pickle=False)


# ---- .safetensors --------------------------------------------------------------------------------


def _safetensors(path: Path, column: str | None) -> Embeddings:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise wrong(path, f"a file that is no whole one ({error})", "safetensors") from None
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    name = _only(path, "tensor", column, slices, [
        name for name, values in slices.items() if len(values.get_shape()) == 2
    ])  # fmt: skip
    values = slices[name]
    shape = values.get_shape()
    if len(shape) != 2:
        raise wrong(path, f"the tensor {name!r} of shape {tuple(shape)}", "(rows, dim)")
    rows, dim = shape
    dtype = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}.get(
        values.get_dtype()
    )
    if dtype is None:
        raise wrong(path, f"dtype {values.get_dtype()}", f"one of {', '.join(FLOATS)}")

    def read(first: int, size: int) -> Iterator[Tensor]:
        for start in range(first, rows, size):
            yield values[start : min(start + size, rows)]

    ids = next((name for name in ("id", "ids") if name in slices), None)
    return Embeddings(path, rows, dim, getattr(torch, dtype), read, ids)


def _only(path: Path, what: str, asked: str | None, names: Any, fit: list[str]) -> str:
    """The name that was ``asked`` for, or the only one that can be meant."""
    if asked is not None:
        if asked not in names:
            raise wrong(path, f"no {what} {asked!r}", f"one of {', '.join(names) or 'none'}")
        return asked
    if len(fit) != 1:
        got = f"{len(fit)} {what}s with embeddings ({', '.join(fit) or 'none'})"
        raise wrong(path, got, f"one, or its name as `column`, of {', '.join(names) or 'none'}")
    return fit[0]


# ---- .parquet ------------------------------------------------------------------------------------


def parquet_file(path: Path) -> Any:
    """A .parquet file, opened."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise wrong(path, f"a file that is no whole one ({error})", "parquet") from None


def _parquet(path: Path, column: str | None) -> Embeddings:
    import pyarrow as pa

    file = parquet_file(path)
    schema, rows = file.schema_arrow, file.metadata.num_rows
    lists = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    fit = [field.name for field in schema if any(test(field.type) for test in lists)]
    name = _only(path, "column", column, schema.names, fit)
    if name not in fit:
        raise wrong(path, f"the column {name!r} of {schema.field(name).type}", "lists of numbers")
    kind = {"halffloat": "float16", "float": "float32", "double": "float64"}.get(
        str(schema.field(name).type.value_type)
    )
    if kind is None:
        got = f"lists of {schema.field(name).type.value_type}"
        raise wrong(path, got, "lists of float16, float32 or float64")
    dim = 0
    for part in parquet_batches(path, file, name, 0, 1):
        dim = _matrix(path, part, 0, None).shape[1]
        break

    def read(first: int, size: int) -> Iterator[Tensor]:
        for part in parquet_batches(path, file, name, first, size):
            yield _matrix(path, part, first, dim)
            first += len(part)

    ids = next((name for name in ("id", "ids") if name in schema.names), None)
    return Embeddings(path, rows, dim, getattr(torch, kind), read, ids)


def parquet_batches(path: Path, file: Any, name: str, first: int, size: int) -> Iterator[Any]:
    """A column's values from the row ``first`` on."""
    import pyarrow as pa

    groups, start, ends = range(file.metadata.num_row_groups), 0, 0
    for group in groups:
        ends += file.metadata.row_group(group).num_rows
        if ends > first:
            groups = groups[group:]
            break
        start = ends
    else:
        return
    skip, here = first - start, start
    try:
        for batch in file.iter_batches(size, row_groups=list(groups), columns=[name]):
            here += len(batch)
            part = batch.column(0)[min(skip, len(batch)) :]
            skip -= min(skip, len(batch))
            yield part
    except (pa.ArrowException, OSError) as error:
        raise wrong(path, f"rows that cannot be read ({error})", "parquet", here) from None


def _matrix(path: Path, part: Any, first: int, dim: int | None) -> Tensor:
    """Lists of numbers as a matrix; they are ``dim`` long, or as long as the first."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(part).fill_null(-1).to_numpy(zero_copy_only=False)
    if dim is None:
        dim = max(int(lengths[0]), 0) if len(lengths) else 0
    odd = (lengths != dim).nonzero()[0]
    if len(odd):
        length = lengths[odd[0]]
        got = "no list" if length < 0 else f"{length} numbers"
        raise wrong(path, got, f"{dim}, as in the first row", first + int(odd[0]))
    values = part.flatten()
    if values.null_count:
        place = int(values.is_null().to_numpy(zero_copy_only=False).nonzero()[0][0])
        raise wrong(path, "a missing number", f"{dim} numbers", first + place // dim)
    return torch.from_numpy(values.to_numpy(zero_copy_only=False).reshape(len(part), dim).copy())
