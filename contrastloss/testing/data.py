"""Properties for sizes, layouts, row orders and degenerate data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..losses import ScoreLoss
from .compare import assert_same
from .subject import TEMPERATURES, Subject, dense_rows

__all__ = [
    "check_degenerate",
    "check_layouts",
    "check_permutation",
    "check_shapes",
]


def check_shapes(subject: Subject) -> None:
    """Single and ragged sizes give the reference's values; an empty batch gives 0."""
    for n in (1, 2, 77):
        for d in (1, 77):
            inputs, loss = subject.inputs(n=n, d=d), subject.rows()
            got, want = subject.run(loss, inputs), subject.run(dense_rows(loss), inputs)
            assert_same(got, want, f"N = {n}, D = {d}: (rows, gradients)")
    value, *grads = subject.run(subject.loss(), subject.inputs(n=0, d=5))
    assert value.item() == 0.0, f"N = 0: {value.item()}"
    assert all(not grad.any() for grad in grads)


def check_layouts(subject: Subject) -> None:
    """Strided, transposed and expanded views give the same result as a contiguous copy."""
    d = 7
    inputs, loss = subject.inputs(n=30, d=d), subject.loss()
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "strided": lambda v: v.repeat_interleave(2, 0)[::2],
        "transposed": lambda v: v.mT.contiguous().mT if v.ndim > 1 else v,
        "columns": lambda v: torch.cat([v, v], -1)[..., 3:9] if v.shape[-1] == d else v,
        "expanded": lambda v: v[:1].expand(v.shape),
    }
    for name, view in views.items():
        if name in ("columns", "expanded") and not isinstance(loss, ScoreLoss):
            continue  # such views of targets, probabilities or orders would not be valid inputs
        seen = [view(v) if v.is_floating_point() else v for v in inputs]
        wants = [v.requires_grad for v in subject.leaves(inputs)]
        leaves = [v.detach().requires_grad_(w) for v, w in zip(seen, wants, strict=True)]
        value = loss(*leaves)
        grads = torch.autograd.grad(value, [v for v in leaves if v.requires_grad])
        want = subject.run(loss, [v.contiguous() for v in seen])
        assert_same([value.detach(), *grads], want, name)


def check_permutation(subject: Subject) -> None:
    """The order of instances does not matter."""
    n, inputs = 31, subject.inputs(n=31)
    value, *grads = subject.run(subject.loss(), inputs)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).to(subject.device)
    shuffled, *moved = subject.run(subject.loss(), [v[order] if len(v) == n else v for v in inputs])
    assert_same(shuffled, value, "value")
    assert_same(moved, [g[order] if len(g) == n else g for g in grads], "gradient")


def check_degenerate(subject: Subject) -> None:
    """Equal rows, duplicates and zero vectors: finite values and gradients, at all temperatures."""
    inputs = subject.inputs(n=12, d=5, dtype=torch.float32)
    cases: dict[str, Callable[[Tensor], Tensor]] = {
        "all equal": lambda v: torch.ones_like(v),
        "duplicates": lambda v: v[torch.arange(len(v)) // 2 * 2],
        "all zero": torch.zeros_like,
        "some zero": lambda v: v * (torch.arange(len(v), device=v.device) % 3 > 0).view(
            -1, *[1] * (v.ndim - 1)
        ),
    }  # fmt: skip
    temperatures = TEMPERATURES if issubclass(subject.cls, ScoreLoss) else (None,)
    for name, make in cases.items():
        data = [make(v) if v.is_floating_point() else v for v in inputs]
        for temperature in temperatures:
            for values in subject.run(subject.rows(temperature), data):
                assert values.isfinite().all(), f"{name}, temperature {temperature}: not finite"
