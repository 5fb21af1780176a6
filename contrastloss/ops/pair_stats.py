"""``pair_stats``: statistics per row and per column, from scores that are never stored.

The operator is registered with torch.library (schema, fake, autograd), so torch.compile and
torch.export see one opaque node. :class:`PairStats` is the same forward and backward as a plain
``torch.autograd.Function``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..backends import (
    NAMES,
    SCHEMA,
    Gradients,
    Operands,
    PairCall,
    mask,
    named_in,
    reference,
    run,
)
from ..channel import Channel
from ..program import Program
from .check import (
    check_channels,
    check_devices,
    checked_call,
    named_operands,
    no_transforms,
    plain,
)
from .one_pass import by_row
from .operator import define
from .results import results_of
from .second import SecondDerivative

__all__ = [
    "PairStats",
    "backward",
    "forward",
    "pair_stats",
    "program_of",
    "stats_of",
]

#: how many arguments of the registered operators belong to the call
INPUTS = len(SCHEMA.split(","))


def pair_stats(
    x: Tensor,
    y: Tensor | None,
    channels: Sequence[Channel],
    *,
    scale: Tensor | float | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
    row_bias: Tensor | None = None,
    col_bias: Tensor | None = None,
    rows: Mapping[str, Tensor] | None = None,
    cols: Mapping[str, Tensor] | None = None,
    cosine: bool = False,
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> list[Any]:
    r"""Statistics of the scores

    :math:`s_{ij} = \text{scale}\; a_i b_j \langle x_i, y_j \rangle + \beta_i + \gamma_j`

    for every channel: both axes in one pass, in memory O(M + N).

    Args:
        x: rows, (..., M, D), of a floating dtype.
        y: columns, (..., N, D), with x's dtype and leading dimensions. None means x itself: self
            pairs are dropped by position, and ``cols`` defaults to ``rows``.
        channels: what to return; see :mod:`contrastloss.channel`.
        scale: a number or a 0-dim tensor (the inverse temperature); no host synchronisation.
        row_scale, col_scale: a (..., M) and b (..., N).
        row_bias, col_bias: beta and gamma. All of these broadcast and may require gradients.
        rows, cols: the vectors that channels use by name (ids, weights, shifts, labels), and the
            (..., M, E) and (..., N, E) operands of a second bilinear form. Only shifts carry
            gradients.
        cosine: normalise: scores use ``x / max(|x|, 1e-12)``, and y likewise. Unit vectors are
            never rounded to a narrow dtype. The cosines of a zero vector are 0, with zero gradient.
        compute_dtype: the operands of matrix products are rounded to it: x, y and, on backends
            whose multipliers take nothing wider, the gradient of the scores, rounded once before
            it is multiplied with y and x. Default: x's dtype; under autocast, the autocast dtype.
            Products are accumulated in fp32; scores, statistics and everything else stay in fp32.
        backend: the name of a backend; None chooses one.

    Returns:
        One entry per channel: a vector (..., M) or (..., N) in fp32 (fp64 for fp64); for ``EXPECT``
        and ``MAX`` a named tuple of two vectors.

    Raises:
        TypeError, ValueError: an operand's dtype, shape or device is wrong, or an operand that
            carries no gradient requires one; the message names it.
        RuntimeError: the named ``backend`` does not support the call; the message says why.
    """
    no_transforms("pair_stats")
    rows, cols = named_operands(rows, cols, y is None)
    program = program_of(check_channels(channels), tuple(rows), tuple(cols))
    operands = Operands(
        x, y, scale, row_scale, col_scale, row_bias, col_bias, (*rows.values(),), (*cols.values(),)
    )
    call = checked_call(operands, program, cosine, compute_dtype, backend)
    found = by_row(call)
    return stats_of(call) if found is None else [found]


_PROGRAMS: dict[tuple, Program] = {}


def program_of(
    channels: tuple[Channel, ...], rows: tuple[str, ...], cols: tuple[str, ...]
) -> Program:
    """The same arguments give the same Program, so everything derived from it is computed once."""
    if torch.compiler.is_compiling():
        return Program(channels, rows, cols)
    key = (*[channel.text for channel in channels], rows, cols)
    found = _PROGRAMS.get(key)
    if found is None:
        if len(_PROGRAMS) >= 1024:
            _PROGRAMS.clear()
        found = _PROGRAMS[key] = Program(channels, rows, cols)
    return found


def stats_of(call: PairCall) -> list[Any]:
    """:func:`pair_stats` of a checked_call call."""
    if plain(call.x):
        flat: Sequence[Tensor] = PairStats.apply(call, *call.operands.flat())
    else:
        flat = torch.ops.contrastloss.pair_stats(*call.arguments())
    return results_of(call, flat)


# ---- between a call and the backends -------------------------------------------------------------


def forward(call: PairCall) -> list[Tensor]:
    """The values of all channels, (..., M) or (..., N) each."""
    outputs, lead = run(call.lifted(), "pair_stats_forward"), call.lead
    return [o.reshape(*lead, o.shape[-1]) for o in outputs] if lead else outputs


def backward(
    call: PairCall, outputs: Sequence[Tensor], grads: Sequence[Tensor], live: int, needs: int
) -> Gradients:
    """The gradients of the operands marked in ``needs`` and of the shifts, in their shapes.
    ``grads`` are those of the outputs marked in ``live``."""
    flat_out, flat_grad = _lifted(call, outputs, grads, live)
    found = run(call.lifted(), "pair_stats_backward", flat_out, flat_grad, named_in(needs))
    return found.map(call.lower, call.operands)


def _lifted(
    call: PairCall, outputs: Sequence[Tensor], grads: Sequence[Tensor], live: int
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs and gradients in the backends' layout; None for an output without gradient."""
    rest = iter(grads)
    return [call.expand(o, o.shape[-1]) for o in outputs], [
        call.expand(next(rest), o.shape[-1]) if live >> k & 1 else None
        for k, o in enumerate(outputs)
    ]


def _double_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor],
    live: int,
    needs: int,
    upstream: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """The derivatives of :func:`backward` by the operands, by ``outputs`` and by ``grads``, given
    those by its results."""
    flat_out, flat_grad = _lifted(call, outputs, grads, live)
    names = named_in(needs)
    cotangent = call.lift(call.gradients(upstream, names))
    found, d_outputs, d_grads = reference.pair_stats_double_backward(
        call.lifted(), flat_out, flat_grad, names, cotangent
    )
    present = [d for k, d in enumerate(d_grads) if live >> k & 1]
    others = zip((*d_outputs, *present), (*outputs, *grads), strict=True)
    lowered = [None if d is None else call.lower(d, like) for d, like in others]
    return (*found.map(call.lower, call.operands).flat(), *lowered)


# ---- autograd ------------------------------------------------------------------------------------


def _save(ctx: Any, call: PairCall, tensors: Sequence[Any], *others: Tensor) -> None:
    ctx.save_for_backward(*tensors, *others)
    ctx.call = call.bare()


def _restore(ctx: Any) -> tuple[PairCall, tuple[Tensor, ...]]:
    saved, program = ctx.saved_tensors, ctx.call.program
    count = len(NAMES) + len(program.rows) + len(program.cols)
    return ctx.call.given(saved[:count]), saved[count:]


def _gradients(ctx: Any, grads: Sequence[Tensor | None], needed: Sequence[Any]) -> Gradients:
    call, outputs = _restore(ctx)
    dead = [g is None or not o.is_floating_point() for g, o in zip(grads, outputs, strict=True)]
    present = [g for g, d in zip(grads, dead, strict=True) if g is not None and not d]
    live, needs = mask([not d for d in dead]), mask(needed[: len(NAMES)])
    if plain(call.x) and not torch.is_grad_enabled():  # nobody differentiates the gradient
        return backward(call, outputs, present, live, needs)
    found = torch.ops.contrastloss.pair_stats_backward(
        *call.arguments(), outputs, present, live, needs
    )
    return call.gradients(found, named_in(needs))


class PairStats(torch.autograd.Function):
    """``apply(call, *call.operands.flat())``: autograd sees only operands that are arguments.
    Returns the values of all channels as one flat tuple."""

    # no separate setup_context: with one, torch binds the signature again at every call
    @staticmethod
    def forward(ctx: Any, call: PairCall, *tensors: Any) -> tuple[Tensor, ...]:
        outputs = tuple(forward(call))
        _save(ctx, call, tensors, *outputs)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *_gradients(ctx, grads, ctx.needs_input_grad[1:]).flat())

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("pair_stats: forward-mode derivatives are not implemented")


# ---- the registered operators --------------------------------------------------------------------


def _op_forward(*args: Any) -> list[Tensor]:
    return forward(PairCall.of(args))


def _op_backward(*args: Any) -> list[Tensor]:
    found = backward(PairCall.of(args[:INPUTS]), *args[INPUTS:])
    return [gradient for gradient in found.flat() if gradient is not None]


def _fake_forward(*args: Any) -> list[Tensor]:
    call = PairCall.of(args)
    check_devices(call)
    outputs = []
    for channel in call.program.channels:
        shape = (*call.lead, call.length(channel.axis))
        for name in channel.returns:
            dtype = torch.int64 if name == "index" else call.stat_dtype
            outputs.append(call.x.new_empty(shape, dtype=dtype))
    return outputs


def _fake_backward(*args: Any) -> list[Tensor]:
    call, needs = PairCall.of(args[:INPUTS]), named_in(args[-1])
    likes = [v for name, v in zip(NAMES, call.operands[:7], strict=True) if name in needs]
    likes += chain(*call.at_shifts(call.named))
    return [
        torch.empty_like(v, memory_format=torch.contiguous_format) for v in likes if v is not None
    ]


def _setup(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    call = PairCall.of(inputs)
    _save(ctx, call, call.operands.flat(), *output)


def _autograd(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    return by_argument(_gradients(ctx, grads, ctx.needs_input_grad))


def _setup_backward(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    call, (outputs, grads, live, needs) = PairCall.of(inputs[:INPUTS]), inputs[INPUTS:]
    _save(ctx, call, call.operands.flat(), *outputs, *grads)
    ctx.n_outputs, ctx.live, ctx.needs = len(outputs), live, needs


def _autograd_backward(ctx: Any, upstream: Sequence[Tensor | None]) -> tuple[Any, ...]:
    call, saved = _restore(ctx)
    outputs, grads = saved[: ctx.n_outputs], saved[ctx.n_outputs :]

    def derivatives() -> tuple[Tensor | None, ...]:
        return _double_backward(call, outputs, grads, ctx.live, ctx.needs, upstream)

    tensors = (*call.operands.flat(), *saved, *upstream)
    floating = [t for t in tensors if t is not None and t.is_floating_point()]
    found = list(SecondDerivative.apply("pair_stats", derivatives, *floating))
    count = len(found) - len(saved)
    operands = Operands.of(found[:count], len(call.program.rows))
    d_outputs, d_grads = found[count : count + ctx.n_outputs], found[count + ctx.n_outputs :]
    return (*by_argument(operands), d_outputs, d_grads, None, None)


def by_argument(gradients: Gradients) -> tuple[Any, ...]:
    """One gradient for each argument of :data:`SCHEMA`."""
    *tensors, rows, cols = gradients
    return (*tensors, list(rows), list(cols), *[None] * (INPUTS - len(gradients)))


_BACK = f"({SCHEMA}, Tensor[] outputs, Tensor[] grads, int live, int needs) -> Tensor[]"
define("pair_stats", f"({SCHEMA}) -> Tensor[]", _op_forward, _fake_forward, _autograd, _setup)
define(
    "pair_stats_backward", _BACK, _op_backward, _fake_backward, _autograd_backward, _setup_backward
)
