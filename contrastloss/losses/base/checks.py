"""Checks of a loss's options and inputs: each message names the argument, what came, what fits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...distributed import STRATEGIES
from ...memory import EmbeddingQueue, check_integers
from ...ops.check import as_float, check_device, check_embeddings, shape

__all__ = [
    "REDUCTIONS",
    "check_bias",
    "check_columns",
    "check_finite",
    "check_labels",
    "check_matrix",
    "check_negatives",
    "check_pair",
    "check_queue",
    "check_scale",
    "check_stored",
    "check_strategy",
    "check_targets",
    "check_temperature",
    "finite",
    "positive",
]

REDUCTIONS = ("mean", "sum", "none")


def positive(name: str, value: Any, *, scalar: bool = True) -> None:
    """A positive float; tensors pass, since looking at them would synchronise a device."""
    if isinstance(value, Tensor):
        if scalar and value.ndim:
            raise ValueError(f"{name}: got shape {shape(value)}, expected ()")
        if not value.is_floating_point():
            raise TypeError(f"{name}: got a tensor of {value.dtype}, expected a floating dtype")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a float or a tensor")
    if not 0 < as_float(name, value) < math.inf:
        raise ValueError(f"{name}: got {value}, expected a positive finite number")


def finite(name: str, value: Any, *, negative: bool = True) -> None:
    """A finite number, a weight of a term, say; with ``negative=False`` of at least 0."""
    number = isinstance(value, (int, float)) and math.isfinite(as_float(name, value))
    if not number or (value < 0 and not negative):
        expected = "a finite number" if negative else "a finite number >= 0"
        raise ValueError(f"{name}: got {value!r}, expected {expected}")


def check_temperature(value: Any, *, per_row: bool) -> None:
    positive("temperature", value, scalar=False)
    if isinstance(value, Tensor) and value.ndim > per_row:
        expected = "() or (N,)" if per_row else "()"
        raise ValueError(f"temperature: got shape {shape(value)}, expected {expected}")


def check_strategy(value: Any) -> None:
    if value not in STRATEGIES:
        raise ValueError(f"strategy: got {value!r}, expected one of {', '.join(STRATEGIES)}")


def check_matrix(name: str, value: Tensor) -> None:
    check_embeddings(name, value)
    if value.ndim != 2 or value.shape[1] < 1:
        raise ValueError(f"{name}: got shape {shape(value)}, expected (N, D) with D >= 1")


def check_pair(
    loss: Any,
    x: Tensor,
    y: Tensor,
    logit_scale: Tensor | float | None,
    logit_bias: Tensor | float | None,
    names: tuple[str, str] = ("x", "y"),
) -> None:
    """Two matrices of equal shape, and what overrides the temperature."""
    row, col = names
    check_matrix(row, x)
    check_embeddings(col, y)
    _same_dtype(col, y, row, x)
    check_device(col, y, row, x)
    if y.shape != x.shape:
        raise ValueError(f"{col}: got shape {shape(y)}, expected {row}'s {shape(x)}")
    check_scale(loss, x.shape[0], logit_scale, logit_bias)
    if loss.validate:
        check_finite(**{row: x, col: y})


def check_negatives(loss: Any, negatives: Tensor, x: Tensor) -> None:
    check_embeddings("negatives", negatives)
    _same_dtype("negatives", negatives, "x", x)
    check_device("negatives", negatives, "x", x)
    n, d = x.shape
    fits = negatives.ndim == 2 or (negatives.ndim == 3 and negatives.shape[0] == n)
    if not fits or negatives.shape[-1] != d:
        raise ValueError(
            f"negatives: got shape {shape(negatives)}, expected (K, {d}) or ({n}, K, {d})"
        )
    if loss.validate:
        check_finite(negatives=negatives)


def _same_dtype(name: str, value: Tensor, other: str, tensor: Tensor) -> None:
    """Equal dtypes; under autocast low precision and fp32 may meet, as in torch.matmul."""
    if value.dtype == tensor.dtype:
        return
    cast = torch.is_autocast_enabled(tensor.device.type)
    if not cast or torch.float64 in (value.dtype, tensor.dtype):
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {other}'s {tensor.dtype}")


def check_scale(
    loss: Any, n: int, logit_scale: Tensor | float | None, logit_bias: Tensor | float | None
) -> None:
    tau = loss.temperature
    if logit_scale is not None:
        positive("logit_scale", logit_scale)
    elif isinstance(tau, Tensor) and tau.ndim and tau.shape != (n,):
        raise ValueError(f"temperature: got shape {shape(tau)}, expected () or ({n},)")
    if logit_bias is not None:
        check_bias("logit_bias", logit_bias)


def check_bias(name: str, value: Tensor | float) -> None:
    if isinstance(value, Tensor):
        if not value.is_floating_point() or value.ndim:
            got = f"{value.dtype} {shape(value)}"
            raise ValueError(f"{name}: got {got}, expected a floating ()")
    elif not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a float or tensor")


def check_labels(labels: Tensor, n: int, x: Tensor) -> None:
    check_integers("labels", labels, n, x)


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
            raise ValueError(f"ids: got a value, but {name} was not made with ids=True")
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
        raise ValueError(f"ids: got a value, but {name} is a tensor, without ids")


def check_columns(loss: Any, name: str, columns: Tensor, like: tuple[str, Tensor]) -> None:
    other, x = like
    _same_dtype(name, columns, other, x)
    check_device(name, columns, other, x)
    if columns.shape[1] != x.shape[-1]:
        raise ValueError(f"{name}: got shape {shape(columns)}, expected (K, {x.shape[-1]})")
    if loss.validate:
        check_finite(**{name: columns})


def check_finite(**tensors: Tensor | None) -> None:
    for name, value in tensors.items():
        if value is None:
            continue
        bad = int((~value.isfinite()).any(-1).sum())
        if bad:
            raise ValueError(
                f"{name}: got NaN or infinity in {bad} of {value[..., 0].numel()} rows, "
                "expected finite embeddings (validate=True)"
            )


def check_targets(x: Tensor, target: Tensor, names: tuple[str, str] = ("x", "target")) -> None:
    """Embeddings of equal shape and dtype, (..., N, D)."""
    row, col = names
    check_embeddings(row, x)
    if x.ndim < 2 or x.shape[-1] < 1:
        raise ValueError(f"{row}: got shape {shape(x)}, expected (..., N, D) with D >= 1")
    check_embeddings(col, target, (row, x))
    if target.shape != x.shape:
        raise ValueError(f"{col}: got shape {shape(target)}, expected {row}'s {shape(x)}")
