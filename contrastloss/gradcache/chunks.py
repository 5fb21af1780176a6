"""Cuts the inputs of an encoder into chunks of rows, and joins the outputs of the chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..options import shape

__all__ = ["Outputs", "cut", "differentiable", "flat", "row_count", "rows_of"]


def flat(output: Any) -> tuple[list[Any], TreeSpec]:
    """The tensors, and whatever else there is, of an output of any structure."""
    return tree_flatten(output)


def row_count(inputs: Mapping[str, Any]) -> tuple[int, bool]:
    """The number of rows that all inputs have, and whether one requires a gradient.

    Raises:
        TypeError: none of them has rows.
        ValueError: two of them have different numbers, or one carries the graph of another module.
    """
    found: dict[str, int] = {}
    graded = False
    for name, value in inputs.items():
        for path, part in _parts(name, value):
            found[path] = len(part)
            if not isinstance(part, Tensor) or not part.requires_grad:
                continue
            graded = True
            if not part.is_leaf:
                raise ValueError(
                    f"{path}: got a tensor with a graph, expected a leaf: what computes it belongs "
                    f"into the encoder, which runs twice"
                )
    if not found:
        kinds = ", ".join(type(value).__name__ for value in inputs.values()) or "nothing"
        raise TypeError(f"inputs: got {kinds}, expected a tensor or a list with a row per item")
    (first, count), *others = found.items()
    for path, rows in others:
        if rows != count:
            raise ValueError(f"{path}: got {rows} rows, expected {first}'s {count}")
    return count, graded


def cut(value: Any, rows: slice) -> Any:
    """Some rows of an input; of a tuple or a mapping, those of its parts. All else is for each
    chunk as it is."""
    if _has_rows(value):
        return value[rows]
    if isinstance(value, Mapping):
        part: Any = copy(value)  # of the same class, for an encoder that uses its attributes
        for key, inner in value.items():
            part[key] = cut(inner, rows)
        return part
    if isinstance(value, (tuple, list)):
        parts = [cut(inner, rows) for inner in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _has_rows(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim > 0
    return isinstance(value, list) and not any(isinstance(inner, Tensor) for inner in value)


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What has rows, with the path that names it in an error."""
    if _has_rows(value):
        yield path, value
    elif isinstance(value, (Mapping, tuple, list)):
        named = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in named:
            yield from _parts(f"{path}[{key!r}]", inner)


class Outputs:
    """The outputs of all chunks of a call: tensors with rows are joined, without copies of more
    than one chunk; of 0-dim tensors and of anything else, those of the last chunk are kept."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.leaves: list[Any] = []
        self.spec: TreeSpec | None = None

    def add(self, rows: slice, output: Any) -> None:
        """The output of some rows.

        Raises:
            ValueError: it has another number of rows, or another structure or shape than before.
            TypeError: it has another dtype or device than before.
        """
        leaves, spec = flat(output)
        first = self.spec is None
        if first:
            self.spec = spec
            self.leaves = [self._room(leaf, rows) for leaf in leaves]
        self.check(rows, leaves, spec)
        for k, leaf in enumerate(leaves):
            if _rowed(leaf):
                self.leaves[k][rows] = leaf
            else:
                self.leaves[k] = leaf

    def check(self, rows: slice, leaves: Sequence[Any], spec: TreeSpec) -> None:
        """Raise as :meth:`add` if the output of a chunk does not fit those before it."""
        if spec != self.spec:
            raise ValueError(
                f"encoder: got an output of {spec.num_leaves} parts, expected that of the first "
                f"chunk, of {len(self.leaves)}"
            )
        if not any(isinstance(leaf, Tensor) for leaf in leaves):
            kinds = ", ".join(type(leaf).__name__ for leaf in leaves) or "nothing"
            raise TypeError(f"encoder: got {kinds}, expected embeddings: a tensor")
        for leaf, whole in zip(leaves, self.leaves, strict=True):
            if isinstance(leaf, Tensor):
                _check(leaf, whole, rows.stop - rows.start)

    def _room(self, leaf: Any, rows: slice) -> Any:
        """For the rows of all chunks."""
        return leaf.new_empty((self.count, *leaf.shape[1:])) if _rowed(leaf) else leaf

    def joined(self, leaves: Sequence[Any]) -> Any:
        assert self.spec is not None
        return tree_unflatten(leaves, self.spec)


def _rowed(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def _check(leaf: Tensor, whole: Any, rows: int) -> None:
    if not isinstance(whole, Tensor):
        raise TypeError(f"encoder: got a tensor, expected the {type(whole).__name__} of before")
    if leaf.ndim and leaf.shape[0] != rows:
        raise ValueError(
            f"encoder: got {leaf.shape[0]} rows for a chunk of {rows}, expected a row for each"
        )
    if leaf.shape[1:] != whole.shape[1:] or leaf.ndim != whole.ndim:
        tail = ("rows", *whole.shape[1:]) if whole.ndim else ()
        expected = f"({', '.join(map(str, tail))})"
        raise ValueError(
            f"encoder: got a chunk of shape {shape(leaf)}, expected {expected} as before"
        )
    if (leaf.dtype, leaf.device) != (whole.dtype, whole.device):
        raise TypeError(
            f"encoder: got a chunk of {leaf.dtype} on {leaf.device}, expected {whole.dtype} on "
            f"{whole.device} as before"
        )


def differentiable(leaf: Any) -> bool:
    """Whether a part of an output can have a gradient."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def rows_of(count: int, size: int) -> list[slice]:
    """The rows of each chunk; without rows one empty chunk, since an encoder of a group has to run
    on every rank."""
    return [slice(k, min(k + size, count)) for k in range(0, max(count, 1), size)]
