"""Checks of a loss's options and inputs: each message names the argument, what came, what fits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...memory import EmbeddingQueue, check_integers
from ...ops.check import check_device, check_embeddings, check_same_dtype, checks_values
from ...options import shape

__all__ = [
    "check_ascending",
    "check_columns",
    "check_finite",
    "check_matrix",
    "check_offsets",
    "check_queue",
    "check_stored",
]


def check_matrix(name: str, value: Tensor) -> None:
    check_embeddings(name, value)
    if value.ndim != 2 or value.shape[1] < 1:
        raise ValueError(f"{name}: got shape {shape(value)}, expected (N, D) with D >= 1")


def check_queue(
    loss: Any,
    name: str,
    queue: EmbeddingQueue | None,
    like: tuple[str, Tensor],
    n: int,
    ids: Tensor | None,
    *,
    labels: bool = False,
) -> EmbeddingQueue:
    """A queue whose embeddings meet those of ``like``, and which has what the loss compares."""
    if not isinstance(queue, EmbeddingQueue):
        raise TypeError(f"{name}: got {type(queue).__name__}, expected an EmbeddingQueue")
    check_columns(loss, name, queue.embeddings, like)
    if labels and queue.labels is None:
        raise ValueError(f"{name}: got a queue without labels, expected one made with labels=True")
    if ids is not None:
        check_integers("ids", ids, n, like[1])
        if queue.ids is None:
            raise ValueError(f"ids: got a value, expected None: {name} was not made with ids=True")
    return queue


def check_stored(
    loss: Any,
    name: str,
    queue: EmbeddingQueue | Tensor,
    like: tuple[str, Tensor],
    ids: Tensor | None,
) -> None:
    """A queue, or a matrix of its embeddings."""
    n = like[1].shape[0]
    if not isinstance(queue, Tensor):
        check_queue(loss, name, queue, like, n, ids)
        return
    check_matrix(name, queue)
    check_columns(loss, name, queue, like)
    if ids is not None:
        raise ValueError(f"ids: got a value, expected None: {name} is a tensor, without ids")


def check_offsets(offsets: Tensor, negatives: Tensor, n: int) -> None:
    """Row i's negatives are those from ``offsets[i]`` to before ``offsets[i + 1]``."""
    name = "negatives_offsets"
    if negatives.ndim != 2:
        expected = f"(M, D) with {name}"
        raise ValueError(f"negatives: got shape {shape(negatives)}, expected {expected}")
    if offsets.shape[0] != n + 1:
        raise ValueError(f"{name}: got shape {shape(offsets)}, expected ({n + 1},)")
    check_ascending(name, offsets, negatives.shape[0])


def check_ascending(name: str, offsets: Tensor, count: int) -> None:
    """Offsets into so many values. Checked only if :func:`checks_values`."""
    if not checks_values(offsets):
        return
    offsets = offsets.long()
    first, last = int(offsets[0]), int(offsets[-1])
    least = int(offsets.diff().min()) if len(offsets) > 1 else 0
    if (first, last) != (0, count) or least < 0:
        expected = f"ascending numbers from 0 to {count}, the number of {name.split('_')[0]}"
        raise ValueError(f"{name}: got {first} to {last}, steps from {least}, expected {expected}")


def check_columns(loss: Any, name: str, columns: Tensor, like: tuple[str, Tensor]) -> None:
    other, x = like
    check_same_dtype(name, columns, other, x)
    check_device(name, columns, other, x)
    if columns.shape[1] != x.shape[-1]:
        raise ValueError(f"{name}: got shape {shape(columns)}, expected (K, {x.shape[-1]})")
    if loss.validate:
        check_finite(name, columns)


def check_finite(name: str, value: Tensor) -> None:
    bad = int((~value.isfinite()).any(-1).sum())
    if bad:
        raise ValueError(
            f"{name}: got NaN or infinity in {bad} of {value[..., 0].numel()} rows, "
            "expected finite embeddings (validate=True)"
        )
