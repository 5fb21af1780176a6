"""The scores of listed pairs of rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..backends import stat_dtype
from .check import no_transforms
from .gather_scores import gather_scores
from .opaque import opaque

__all__ = ["listed_products"]

#: limit on the elements of gathered embeddings of one side in memory at once
_GATHERED = 1 << 20

_ARGUMENTS = (
    "Tensor x, Tensor y, Tensor rows, Tensor cols, bool cosine, ScalarType compute_dtype, "
    "str? backend"
)


def _empty(x: Tensor, y: Tensor, rows: Tensor, *options: Any) -> list[Tensor]:
    return [x.new_empty(rows.shape, dtype=stat_dtype(x))]


@opaque("listed_products", _ARGUMENTS, _empty)
def listed_products(
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    cols: Tensor,
    cosine: bool,
    compute_dtype: torch.dtype,
    backend: str | None,
) -> list[Tensor]:
    """The products, or cosines, of rows x[rows] and columns y[cols], (P,), as
    :func:`gather_scores` has them. Embeddings of pairs are gathered some at a time, and again in
    the backward pass.

    x and y get their gradients from two nodes. Call this before other operators of x and y: their
    backward passes then run first, and the gradients of pairs are added to theirs one after the
    other."""
    no_transforms("listed_products")
    how = cosine, compute_dtype, backend
    found = _OfRows.apply(x, y, rows, cols, how)
    return [_OfColumns.apply(found, x, y, rows, cols, how)]


def _products(x: Tensor, y: Tensor, how: tuple) -> Tensor:
    """Of row k of x and row k of y."""
    cosine, dtype, backend = how
    index = torch.arange(x.shape[0], device=x.device)[:, None]
    options = {"cosine": cosine, "compute_dtype": dtype, "backend": backend}
    return gather_scores(x, y, index, **options).squeeze(1)


def _parts(count: int, width: int) -> Iterator[slice]:
    step = max(1, _GATHERED // max(1, width))
    return (slice(start, start + step) for start in range(0, count, step))


def _gradient(
    value: Tensor, at: Tensor, other: Tensor, at_other: Tensor, grad: Tensor, how: tuple
) -> Tensor:
    """The gradient of one side, from the pairs' products with the other."""
    if torch.is_grad_enabled():  # someone differentiates it again
        found = _products(value[at], other[at_other], how)
        return torch.autograd.grad(found, value, grad, create_graph=True)[0]
    total = torch.zeros_like(value, dtype=grad.dtype)
    for part in _parts(at.shape[0], value.shape[1]):
        own, its = value[at[part]].to(grad.dtype), other[at_other[part]].to(grad.dtype)
        with torch.enable_grad():
            found = _products(own.requires_grad_(), its, how)
        total.index_add_(0, at[part], torch.autograd.grad(found, own, grad[part])[0])
    return total.to(value.dtype)


class _OfRows(torch.autograd.Function):
    """The products, with a gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, rows: Tensor, cols: Tensor, how: tuple) -> Tensor:
        ctx.save_for_backward(x, y, rows, cols)
        ctx.how = how
        slices = _parts(rows.shape[0], x.shape[1])
        parts = [_products(x[rows[part]], y[cols[part]], how) for part in slices]
        return torch.cat(parts) if parts else _empty(x, y, rows)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, y, rows, cols = ctx.saved_tensors
        needed = ctx.needs_input_grad[0]
        found = _gradient(x, rows, y, cols, grad, ctx.how) if needed else None
        return found, None, None, None, None


class _OfColumns(torch.autograd.Function):
    """The same products, with a gradient of y."""

    @staticmethod
    def forward(
        ctx: Any, found: Tensor, x: Tensor, y: Tensor, rows: Tensor, cols: Tensor, how: tuple
    ) -> Tensor:
        ctx.save_for_backward(x, y, rows, cols)
        ctx.how = how
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, y, rows, cols = ctx.saved_tensors
        needed = ctx.needs_input_grad[2]
        found = _gradient(y, cols, x, rows, grad, ctx.how) if needed else None
        return grad, None, found, None, None, None
