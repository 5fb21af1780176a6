"""Second and third derivatives that are not implemented raise an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["SecondDerivative", "without_second"]


def without_second(
    what: str, results: Sequence[Tensor | None], through: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients from a backward pass that depend on ``through``: differentiating them raises.
    (``once_differentiable`` raises only if the whole graph is traversed: with
    ``torch.autograd.grad(..., inputs)`` it silently drops the gradient.)"""
    known = [value for value in through if value is not None]
    if not (torch.is_grad_enabled() and any(value.requires_grad for value in known)):
        return list(results)
    found = iter(_Refused.apply(what, *[v for v in results if v is not None], *known))
    return [None if value is None else next(found) for value in results]


class SecondDerivative(torch.autograd.Function):
    """``apply(operator, run, *tensors)`` returns ``run()``, the second derivative of an operator
    by these tensors. A third derivative raises, instead of being silently wrong."""

    @staticmethod
    def forward(ctx: Any, operator: str, run: Any, *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ctx.operator = operator
        return run()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{ctx.operator}: third derivatives are not implemented")


class _Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, what: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.what = what
        return tuple([v.view_as(v) for v in tensors])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(f"{ctx.what}: second derivatives are not implemented")
