"""One pass for a loss and its gradients: the forward pass of a backend finds both, where that saves
a product, and the backward pass multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import (
    NAMES,
    PairCall,
    mask,
    named_in,
    serving,
    without_autocast,
)
from ..backends.constant import constant
from ..channel import EXPECT, LSE, ROW, SUM
from .check import plain
from .results import results_of

__all__ = ["PairLoss", "Part", "by_row", "in_one_pass", "reduced", "row_losses", "softplus"]


class Part(NamedTuple):
    """A term of a row's loss: ``weight * (plus - minus)`` or, with ``softplus``,
    ``weight * log(1 + exp(plus - minus))``. ``plus`` and ``minus`` are the values of channels, by
    their numbers; None stands for 0."""

    plus: int | None
    minus: int | None = None
    weight: float = 1.0
    softplus: bool = False


def softplus(u: Tensor) -> Tensor:
    """``log(1 + e^u)``, exact in fp64 too (``F.softplus`` by default returns ``u`` beyond 20)."""
    return F.softplus(u, threshold=40.0)


def row_losses(parts: Sequence[Part], values: Sequence[Any]) -> Tensor:
    """The losses of rows from the values of the channels."""
    found: Any = None
    for plus, minus, weight, soft in parts:
        term: Any = 0.0 if plus is None else values[plus]
        term = term if minus is None else term - values[minus]
        term = softplus(term) if soft else term
        term = term if weight == 1.0 else weight * term
        found = term if found is None else found + term
    assert found is not None, "no parts"
    return found


def reduced(
    values: Sequence[Any], parts: Sequence[Part], reduction: str, weight: Tensor | None
) -> Tensor:
    """The losses of rows, weighted and reduced."""
    losses = row_losses(parts, values)
    losses = losses if weight is None else weight.to(losses.dtype) * losses
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" and losses.numel() else losses.sum()


def in_one_pass(
    call: PairCall, parts: tuple[Part, ...], reduction: str, weight: Tensor | None
) -> list[Tensor] | None:
    """The loss and the channels' values, without gradient; None where two passes are as fast."""
    if not (plain(call.x) and torch.is_grad_enabled()):
        return None
    flat = call.operands.flat()
    if not any(v is not None and v.requires_grad for v in flat):
        return None
    backend, strip = _strip(call)
    if not strip:
        return None
    return PairLoss.apply(call, backend, strip, (parts, reduction, weight), *flat)


def by_row(call: PairCall) -> Tensor | None:
    """The values of a call's one channel, if only operands of rows have gradients: those are found
    with the values, and multiplied by the values' gradients, whatever these are. Else None."""
    x, y, scale, row_scale, col_scale, _, col_bias, _, _ = call.operands
    (channel, *others), fixed = call.program.channels, (y, col_scale, col_bias)
    if others or channel.axis != ROW or not isinstance(channel, (LSE, SUM)) or y is None:
        return None
    if not x.requires_grad or any(v is not None and v.requires_grad for v in fixed):
        return None
    if scale is not None and scale.requires_grad:  # a factor of each row has a gradient of its own
        own = scale.to(call.stat_dtype).expand(x.shape[:-1])
        call = call.replace(scale=None, row_scale=own if row_scale is None else own * row_scale)
    found = in_one_pass(call, _ITSELF, "none", None)
    return None if found is None else found[0]


_ITSELF = (Part(0),)


def _strip(call: PairCall) -> tuple[ModuleType, int]:
    """The backend, and how many rows at a time its one pass takes; 0 where there are two."""
    backend, program = serving(call, "pair_stats_backward", call.backend), call.program
    if not hasattr(backend, "strip") or any(program.shifts.values()):
        return backend, 0
    if any(isinstance(channel, EXPECT) for channel in program.channels):
        return backend, 0
    return backend, backend.strip(call)


@lru_cache(maxsize=128)
def _encoded(parts: tuple[Part, ...]) -> tuple[Tensor, Tensor]:
    code = [
        (int(p.softplus), -1 if p.plus is None else p.plus, -1 if p.minus is None else p.minus)
        for p in parts
    ]
    return constant(code, torch.int64), constant([p.weight for p in parts], torch.float64)


class PairLoss(torch.autograd.Function):
    """``apply(call, backend, strip, (parts, reduction, row_weight), *call.operands.flat())``: the
    loss, and the values of all channels as one flat tuple, without gradient. Of ``'none'``, one
    channel's values, of which only operands of rows get a gradient."""

    # no separate setup_context: with one, torch binds the signature again at every call
    @staticmethod
    def forward(
        ctx: Any, call: PairCall, backend: ModuleType, strip: int, how: tuple, *tensors: Any
    ) -> Any:
        parts, reduction, weight = how
        needs = named_in(mask(ctx.needs_input_grad[4 : 4 + len(NAMES)]))
        weight = None if weight is None else weight.detach().to(call.stat_dtype).contiguous()
        divisor = float(call.x.shape[0]) if reduction == "mean" else 1.0
        arguments = call.lifted(), strip, _encoded(parts), weight, divisor, needs
        with without_autocast(call.x.device):
            loss, values, units = backend.pair_loss(*arguments)
        ctx.save_for_backward(*tensors, weight, *units)
        ctx.call, ctx.backend, ctx.how, ctx.needs = call.bare(), backend, (parts, reduction), needs
        ctx.set_materialize_grads(False)
        if reduction == "none":
            return tuple(values)
        ctx.mark_non_differentiable(*values)
        return loss, *values

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        saved, program = ctx.saved_tensors, ctx.call.program
        count = len(NAMES) + len(program.rows) + len(program.cols)
        if grad is None:
            return (None,) * (4 + count)
        call = ctx.call.given(saved[:count])
        if torch.is_grad_enabled():
            found = _differentiable(call, ctx.how, saved[count], grad)
            return (None, None, None, None, *found)
        units = call.gradients(ctx.backend.scaled(grad.contiguous(), saved[count + 1 :]), ctx.needs)
        found = [
            v
            if v is None or (v.dtype == like.dtype and v.shape == like.shape)
            else call.lower(v, like)
            for v, like in zip(units.flat(), saved, strict=False)
        ]
        return (None, None, None, None, *found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("pair_loss: forward-mode derivatives are not implemented")


def _differentiable(
    call: PairCall, how: tuple, weight: Tensor | None, grad: Tensor
) -> list[Tensor | None]:
    """The gradients, which may be differentiated, from a second evaluation of the loss."""
    parts, reduction = how
    values = results_of(call, torch.ops.contrastloss.pair_stats(*call.arguments()))
    loss, flat = reduced(values, parts, reduction, weight), call.operands.flat()
    inputs = [v for v in flat if v is not None and v.requires_grad]
    found = iter(torch.autograd.grad(loss, inputs, grad, create_graph=True, allow_unused=True))
    return [next(found) if v is not None and v.requires_grad else None for v in flat]
