"""``gather_scores``: the scores of every row with chosen columns."""

from __future__ import annotations

from collections.abc import Sequence
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
from ..options import check_dense, shape
from ..program import Program
from .check import check_device, check_devices, check_range, checked_call, no_transforms, plain
from .operator import define
from .pair_stats import INPUTS, by_argument
from .second import SecondDerivative

__all__ = ["GatherScores", "gather_scores", "gradients", "save"]

_NO_CHANNELS = Program(())


def gather_scores(
    x: Tensor,
    y: Tensor | None,
    index: Tensor,
    *,
    scale: Tensor | float | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
    row_bias: Tensor | None = None,
    col_bias: Tensor | None = None,
    cosine: bool = False,
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""The scores of :func:`~contrastloss.ops.pair_stats` at chosen positions,

    :math:`\text{out}_{ik} = s_{ij} = \text{scale}\; a_i b_j \langle x_i, y_j \rangle +
    \beta_i + \gamma_j, \quad j = \text{index}_{ik},`

    without the (M, K, D) tensor of gathered columns. Index -1 means no column: its score is -inf
    and passes no gradient.

    Args:
        x: rows, (..., M, D), of a floating dtype.
        y: columns, (..., N, D), with x's dtype and leading dimensions; None for x itself.
        index: int64, (..., M, K) with x's leading dimensions, between -1 and N - 1.
        scale, row_scale, col_scale, row_bias, col_bias, cosine, compute_dtype, backend: as in
            :func:`~contrastloss.ops.pair_stats`. Gradients flow to x, y and all of these.

    Returns:
        Scores (..., M, K) in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError: an operand's dtype, shape or device is wrong; the message names it.
        ValueError: on a CPU, an index is out of range. On other devices the check would need a
            host synchronisation: such an index gives -inf and no gradient, as -1 does, and is an
            error only with ``CONTRASTLOSS_DEBUG=1``.
        RuntimeError: the named ``backend`` does not support the call; the message says why.
    """
    no_transforms("gather_scores")
    operands = Operands(x, y, scale, row_scale, col_scale, row_bias, col_bias)
    call = checked_call(operands, _NO_CHANNELS, cosine, compute_dtype, backend)
    _check_index(index, x)
    if plain(x):
        return GatherScores.apply(call, index, *call.operands.flat())
    return torch.ops.contrastloss.gather_scores(*call.arguments(), index)


def _check_index(index: Tensor, x: Tensor) -> None:
    check_dense("index", index)
    if index.dtype != torch.int64:
        raise TypeError(f"index: got dtype {index.dtype}, expected int64")
    check_device("index", index, "x", x)
    if index.ndim != x.ndim or index.shape[:-1] != x.shape[:-1]:
        expected = f"({', '.join(map(str, (*x.shape[:-1], 'K')))})"
        raise ValueError(f"index: got shape {shape(index)}, expected {expected} as x {shape(x)}")


# ---- between a call and the backends -------------------------------------------------------------


def forward(call: PairCall, index: Tensor) -> Tensor:
    check_range("index", index, -1, call.columns.shape[-2] - 1, "columns of y")
    found = run(call.lifted(), "gather_scores_forward", call.flatten(index))
    return found.reshape(index.shape)


def backward(call: PairCall, index: Tensor, grad: Tensor, needs: int) -> Gradients:
    """The gradients of the operands marked in ``needs``, in their shapes."""
    flat, names = call.flatten, named_in(needs)
    found = run(call.lifted(), "gather_scores_backward", flat(index), flat(grad), names)
    return found.map(call.lower, call.operands)


def _double_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: int, upstream: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The derivatives of :func:`backward` by x to col_bias and by ``grad``, given those by its
    results; from the reference backend."""
    flat, names = call.flatten, named_in(needs)
    found, d_grad = reference.gather_scores_double_backward(
        call.lifted(), flat(index), flat(grad), names, call.lift(call.gradients(upstream, names))
    )
    lowered = None if d_grad is None else call.lower(d_grad, grad)
    return (*found.map(call.lower, call.operands).flat(), lowered)


# ---- autograd ------------------------------------------------------------------------------------


def save(ctx: Any, call: PairCall, tensors: Sequence[Any], *others: Tensor) -> None:
    """Save what the gradients of scores need: x to col_bias, and the index."""
    ctx.save_for_backward(*tensors[: len(NAMES)], *others)
    ctx.call = call.bare()._replace(program=_NO_CHANNELS)


def gradients(ctx: Any, grad: Tensor, needed: Sequence[Any]) -> Gradients:
    """The gradients of x to col_bias."""
    *tensors, index = ctx.saved_tensors
    call, needs = ctx.call.given(tensors), mask(needed[: len(NAMES)])
    if plain(call.x) and not torch.is_grad_enabled():  # nobody differentiates the gradient
        return backward(call, index, grad, needs)
    arguments = (*call.arguments(), index, grad, needs)
    found = torch.ops.contrastloss.gather_scores_backward(*arguments)
    return call.gradients(found, named_in(needs))


class GatherScores(torch.autograd.Function):
    """``apply(call, index, *call.operands.flat())``: autograd sees only operands that are
    arguments."""

    @staticmethod
    def forward(ctx: Any, call: PairCall, index: Tensor, *tensors: Any) -> Tensor:
        save(ctx, call, tensors, index)
        return forward(call, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (None, None, *gradients(ctx, grad, ctx.needs_input_grad[2:]).flat())

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("gather_scores: forward-mode derivatives are not implemented")


# ---- the registered operators --------------------------------------------------------------------


def _op_forward(*args: Any) -> Tensor:
    return forward(PairCall.of(args[:INPUTS]), *args[INPUTS:])


def _op_backward(*args: Any) -> list[Tensor]:
    found = backward(PairCall.of(args[:INPUTS]), *args[INPUTS:])
    return [gradient for gradient in found.flat() if gradient is not None]


def _fake_forward(*args: Any) -> Tensor:
    call, index = PairCall.of(args[:INPUTS]), args[INPUTS]
    check_devices(call, index=index)
    return call.x.new_empty(index.shape, dtype=call.stat_dtype)


def _fake_backward(*args: Any) -> list[Tensor]:
    call, needs = PairCall.of(args[:INPUTS]), named_in(args[-1])
    likes = [v for name, v in zip(NAMES, call.operands[:7], strict=True) if name in needs]
    return [
        torch.empty_like(v, memory_format=torch.contiguous_format) for v in likes if v is not None
    ]


def _setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    save(ctx, PairCall.of(inputs[:INPUTS]), inputs, inputs[INPUTS])


def _autograd(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*by_argument(gradients(ctx, grad, ctx.needs_input_grad)), None)


def _setup_backward(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    index, grad, ctx.needs = inputs[INPUTS:]
    save(ctx, PairCall.of(inputs[:INPUTS]), inputs, index, grad)


def _autograd_backward(ctx: Any, upstream: Sequence[Tensor | None]) -> tuple[Any, ...]:
    *tensors, index, grad = ctx.saved_tensors
    call = ctx.call.given(tensors)

    def derivatives() -> tuple[Tensor | None, ...]:
        return _double_backward(call, index, grad, ctx.needs, upstream)

    floating = [t for t in (*tensors, grad, *upstream) if t is not None]
    *found, d_grad = SecondDerivative.apply("gather_scores", derivatives, *floating)
    return (*by_argument(Operands(*found)), None, d_grad, None)


_WHOLE = f"({SCHEMA}, Tensor index) -> Tensor"
_BACK = f"({SCHEMA}, Tensor index, Tensor grad, int needs) -> Tensor[]"
define("gather_scores", _WHOLE, _op_forward, _fake_forward, _autograd, _setup)
define(
    "gather_scores_backward",
    *(_BACK, _op_backward, _fake_backward, _autograd_backward, _setup_backward),
)
