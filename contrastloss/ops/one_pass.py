"""One pass for a loss and its gradients: the forward pass of a backend finds both, where that saves
a product, and the backward pass multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from ..backends import (
    NAMES,
    PairCall,
    mask,
    serving,
    without_autocast,
)
from ..backends.constant import constant
from ..channel import COL, EXPECT, INDEX, LSE, ROW, SUM, same
from ..program import Program
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
    if weight is not None and _differentiated(weight):  # that needs the rows' losses
        return None
    flat = call.operands.flat()
    if not any(v is not None and v.requires_grad for v in flat):
        return None
    backend = serving(call, "pair_stats_backward", call.backend)
    if not hasattr(backend, "strip"):
        return None
    summed = _as_sums(call.program, parts, _aligned(call))
    program, terms = summed or (call.program, parts)
    sums = summed is not None
    strip = None if _keeps_two(call.program, sums) else backend.strip(call, sums)
    if strip is None:
        return None
    plan = program, terms, strip
    return PairLoss.apply(call, backend, plan, (parts, reduction, weight), *flat)


def _differentiated(weight: Tensor) -> bool:
    """Whether a gradient, or a derivative in forward mode, depends on the weights of rows."""
    return weight.requires_grad or forward_ad.unpack_dual(weight).tangent is not None


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


def _keeps_two(program: Program, sums: bool) -> bool:
    """Whether a program needs two passes on any account."""
    if not sums and any(program.shifts.values()):
        return True
    return any(isinstance(channel, EXPECT) for channel in program.channels)


def _aligned(call: PairCall) -> bool:
    """Whether every row has a column of its own number."""
    return call.y is not None and call.x.shape[-2] <= call.y.shape[-2]


@lru_cache(maxsize=128)
def _as_sums(
    program: Program, parts: tuple[Part, ...], aligned: bool
) -> tuple[Program, tuple[Part, ...]] | None:
    """The same losses as sums of terms of pairs alone, whose gradients need no statistics; None
    where they are not. The softplus of an aligned pair's score is a term of that pair; it becomes
    another channel, after the program's own."""
    channels, terms = list(program.channels), []
    for part in parts:
        named = [program.channels[k : k + 1] for k in part[:2] if k is not None]
        own = [channel for (channel,) in named if isinstance(channel, SUM)] if all(named) else []
        if len(own) < len(named):
            return None
        if part.softplus:
            if len(own) != 1 or not (aligned and _one_pair(program, own[0])):
                return None
            sign = own[0].sign if part.minus is None else -own[0].sign
            channels.append(replace(own[0], psi="softplus", sign=sign))
            part = Part(len(channels) - 1, weight=part.weight)
        terms.append(part)
    return Program(tuple(channels), program.rows, program.cols), tuple(terms)


def _one_pair(program: Program, channel: Any) -> bool:
    """Whether a channel is the score of each row's aligned pair."""
    by_position = INDEX not in (*program.rows, *program.cols)
    return by_position and channel == SUM(sign=channel.sign, pairs=(same(INDEX),))


@lru_cache(maxsize=128)
def _encoded(parts: tuple[Part, ...]) -> tuple[Tensor, Tensor]:
    code = [
        (int(p.softplus), -1 if p.plus is None else p.plus, -1 if p.minus is None else p.minus)
        for p in parts
    ]
    return constant(code, torch.int64), constant([p.weight for p in parts], torch.float64)


class PairLoss(torch.autograd.Function):
    """``apply(call, backend, plan, (parts, reduction, row_weight), *call.operands.flat())``: the
    loss, and the values of all channels as one flat tuple, without gradient. Of ``'none'``, one
    channel's values, of which only operands of rows get a gradient. The plan: the program and the
    parts that the backend gets, and how many rows it takes at a time."""

    # no separate setup_context: with one, torch binds the signature again at every call
    @staticmethod
    def forward(
        ctx: Any, call: PairCall, backend: ModuleType, plan: tuple, how: tuple, *tensors: Any
    ) -> Any:
        (program, terms, strip), (parts, reduction, weight) = plan, how
        needs = mask(ctx.needs_input_grad[4 : 4 + len(NAMES)])
        weight = None if weight is None else weight.detach().to(call.stat_dtype).contiguous()
        divisor = float(call.x.shape[0]) if reduction == "mean" else 1.0
        arguments = strip, _encoded(terms), weight, divisor, needs
        with without_autocast(call.x.device):
            given = call.lifted()._replace(program=program)
            loss, values, units = backend.pair_loss(given, *arguments)
        own = len(values) - len(program.channels) + len(call.program.channels)
        values = values[:own]
        ctx.save_for_backward(*tensors, weight, *units)
        ctx.call, ctx.backend, ctx.how, ctx.needs = call.bare(), backend, (parts, reduction), needs
        ctx.spent = False
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
        found: list[Tensor | None] = [None] * (4 + count)
        if torch.is_grad_enabled():
            call = ctx.call.given(saved[:count])
            found[4:] = _differentiable(call, ctx.how, saved[count], grad)
            return (*found,)
        own = saved[count + 1 :]
        if ctx.spent:  # what was kept is multiplied already
            raise RuntimeError("got a backward pass after one that failed, expected a new loss")
        if _kept():  # the next backward pass needs them as they are
            own = [unit.clone() for unit in own]
        else:
            ctx.spent = True
        ctx.backend.scale(grad.contiguous(), own)
        for k, unit in zip(_places(program, ctx.needs), own, strict=True):
            like = saved[k]
            if unit.dtype != like.dtype or unit.shape != like.shape:
                unit = ctx.call.given(saved[:count]).lower(unit, like)
            found[4 + k] = unit
        return (*found,)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("pair_loss: forward-mode derivatives are not implemented")


@lru_cache(maxsize=128)
def _places(program: Program, needs: int) -> tuple[int, ...]:
    """Which of the operands, counted as by ``Operands.flat``, have a gradient."""
    named = [n in program.shifts[ROW] for n in program.rows]
    named += [n in program.shifts[COL] for n in program.cols]
    own = [bool(needs >> k & 1) for k in range(len(NAMES))]
    return tuple([k for k, found in enumerate([*own, *named]) if found])


def _kept() -> bool:
    """Whether the graph is kept after the backward pass that runs; True if torch does not say."""
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or asked()


def _differentiable(
    call: PairCall, how: tuple, weight: Tensor | None, grad: Tensor
) -> list[Tensor | None]:
    """The gradients, which may be differentiated, from a second evaluation of the loss, of aliases:
    one operand may depend on another, and autograd itself follows the paths between them."""
    parts, reduction = how
    flat = [v if v is None or not v.requires_grad else v.view_as(v) for v in call.operands.flat()]
    values = results_of(call, torch.ops.contrastloss.pair_stats(*call.given(flat).arguments()))
    loss = reduced(values, parts, reduction, weight)
    inputs = [v for v in flat if v is not None and v.requires_grad]
    found = iter(torch.autograd.grad(loss, inputs, grad, create_graph=True, allow_unused=True))
    return [next(found) if v is not None and v.requires_grad else None for v in flat]
