"""``pair_loss``: a mean of losses of rows, with its gradients from the same pass where that is
faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..backends import (
    NAMES,
    Operands,
    PairCall,
    autocast_dtype,
    mask,
    named_in,
    serving,
    without_autocast,
)
from ..backends.constant import constant
from ..channel import EXPECT, Channel
from .check import check_channels, checked_call, named_operands, no_transforms, plain
from .pair_stats import program_of, results_of, stats_of

__all__ = ["PairLoss", "Part", "pair_loss", "row_losses"]


class Part(NamedTuple):
    """A term of a row's loss: ``weight * (plus - minus)`` or, with ``softplus``,
    ``weight * log(1 + exp(plus - minus))``. ``plus`` and ``minus`` are the values of channels, by
    their numbers; None stands for 0."""

    plus: int | None
    minus: int | None = None
    weight: float = 1.0
    softplus: bool = False


def pair_loss(
    x: Tensor,
    y: Tensor | None,
    channels: Sequence[Channel],
    parts: Sequence[Part],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    row_weight: Tensor | None = None,
    rows: Mapping[str, Tensor] | None = None,
    cols: Mapping[str, Tensor] | None = None,
    cosine: bool = False,
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
    **operands: Any,
) -> tuple[Tensor, list[Any]]:
    r"""The mean, or sum, of the losses of rows, which are sums of terms of their channels' values:

    .. math:: \ell_i = w_i \sum_p \text{weight}_p\, f_p(v_{i,\text{plus}} - v_{i,\text{minus}}),
        \qquad f(u) = u \text{ or } \log(1 + e^u)

    The same as :func:`~contrastloss.ops.pair_stats` and these sums. On CPU tensors the forward pass
    finds the gradients, too, where that saves one of four matrix products: they are kept, in the
    statistics' dtype, until the backward pass multiplies them by the gradient of the loss. A
    gradient that is to be differentiated is computed as ``pair_stats`` does.

    Args:
        x, y, channels: as for :func:`~contrastloss.ops.pair_stats`. Channels of columns that
            ``parts`` names need M = N.
        parts: the terms.
        reduction: ``'mean'`` | ``'sum'`` over rows; the mean of none is 0.
        row_weight: w, (..., M), without gradient; None for 1. The mean still divides by the number
            of rows.
        rows, cols, cosine, compute_dtype, backend, operands: as for
            :func:`~contrastloss.ops.pair_stats`.

    Returns:
        The loss, (), and the values of the channels, as ``pair_stats`` returns them but detached.

    Raises:
        TypeError, ValueError, RuntimeError: as ``pair_stats``.
    """
    no_transforms("pair_loss")
    rows, cols = named_operands(rows, cols, y is None)
    program = program_of(check_channels(channels), tuple(rows), tuple(cols))
    given = Operands(x, y, **operands, rows=(*rows.values(),), cols=(*cols.values(),))
    call = checked_call(given, program, cosine, compute_dtype, backend)
    how = tuple(parts), reduction, row_weight
    if plain(x) and torch.is_grad_enabled():
        flat = call.operands.flat()
        if any(v is not None and v.requires_grad for v in flat):
            serves, strip = _one_pass(call)
            if strip:
                loss, *found = PairLoss.apply(call, serves, strip, how, *flat)
                return loss, results_of(call, found)
    values = stats_of(call)
    return _reduced(values, *how), [_detached(value) for value in values]


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(*[v.detach() for v in value])


def row_losses(parts: Sequence[Part], values: Sequence[Any]) -> Tensor:
    """The losses of rows from the values of the channels."""
    found: Any = None
    for plus, minus, weight, soft in parts:
        term: Any = 0.0 if plus is None else values[plus]
        term = term if minus is None else term - values[minus]
        # exact in fp64 too: by default it returns its argument beyond 20
        term = softplus(term, threshold=40.0) if soft else term
        term = term if weight == 1.0 else weight * term
        found = term if found is None else found + term
    assert found is not None, "no parts"
    return found


def _reduced(
    values: Sequence[Any], parts: Sequence[Part], reduction: str, weight: Tensor | None
) -> Tensor:
    losses = row_losses(parts, values)
    losses = losses if weight is None else weight.to(losses.dtype) * losses
    return losses.mean() if reduction == "mean" and losses.numel() else losses.sum()


def _one_pass(call: PairCall) -> tuple[ModuleType, int]:
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
    loss, and the values of all channels as one flat tuple, without gradient."""

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
        if autocast_dtype(call.x.device) is None:
            loss, values, units = backend.pair_loss(*arguments)
        else:
            with without_autocast(call.x.device):
                loss, values, units = backend.pair_loss(*arguments)
        ctx.save_for_backward(*tensors, weight, *units)
        ctx.call, ctx.backend, ctx.how, ctx.needs = call.bare(), backend, (parts, reduction), needs
        ctx.mark_non_differentiable(*values)
        ctx.set_materialize_grads(False)
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
        units = call.gradients(ctx.backend.scaled(grad, saved[count + 1 :]), ctx.needs)
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
    loss, flat = _reduced(stats_of(call), parts, reduction, weight), call.operands.flat()
    inputs = [v for v in flat if v is not None and v.requires_grad]
    found = iter(torch.autograd.grad(loss, inputs, grad, create_graph=True, allow_unused=True))
    return [next(found) if v is not None and v.requires_grad else None for v in flat]
