"""Comparison of two results."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

__all__ = ["assert_bounded", "assert_same", "excess", "wide"]


def norm(value: Tensor) -> float:
    return torch.linalg.vector_norm(value.double()).item()


def assert_same(got: Any, want: Any, what: str, rtol: float = 1e-9) -> None:
    """The difference of two tensors, or sequences of tensors, is small relative to their norm."""
    if isinstance(want, Tensor):
        got, want = [got], [want]
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"{what} {k}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        error, size = norm(a.double() - b.double()), norm(b)
        assert error <= rtol * (size + 1), f"{what} {k}: error {error:.2e} of {size:.2e}"


def excess(ours: Any, plain: Any, exact: Any, eps: float) -> list[float]:
    """Errors divided by what the accuracy rule allows: twice the error of plain PyTorch, plus a
    floor for the case that plain PyTorch happens to be almost exact."""
    found = []
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert a.isfinite().all(), "not finite"
        found.append(norm(a.double() - c) / (2 * norm(b.double() - c) + 2 * eps * norm(c) + 1e-30))
    return found


def assert_bounded(draws: Sequence[list[float]], what: str) -> None:
    """The median over draws of the data obeys the accuracy rule. In a single draw one row at a kink
    of the loss may dominate, and either side may be lucky, but by less than a factor of 10."""
    for k, ratios in enumerate(zip(*draws, strict=True)):
        shown = f"{what} {k}: error over allowed error {[round(r, 2) for r in ratios]}"
        assert median(ratios) <= 1, shown
        assert max(ratios) <= 10, shown


def wide(value: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
