"""``gather_scores``: the scores of every row with chosen columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import Gradients, choose, mask, reference, stat_dtype
from ..channel import COL, ROW, Program
from .check import check_device, check_operands, check_range, scalar, shape
from .form import (
    INPUTS,
    OPERANDS,
    Form,
    named_in,
    no_transforms,
    plain,
    product_dtype,
    without_autocast,
)
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

    .. math:: \text{out}_{ik} = s_{ij} = \text{scale}\; a_i b_j \langle x_i, y_j \rangle
              + \beta_i + \gamma_j, \quad j = \text{index}_{ik},

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
    vectors: list[Any] = [scale, row_scale, col_scale, row_bias, col_bias]
    check_operands(x, y, vectors, {}, {}, _NO_CHANNELS, compute_dtype)
    _check_index(index, x)
    if isinstance(scale, (int, float)):
        vectors[0] = scalar("scale", scale, x)
    settings = (_NO_CHANNELS.text, cosine, compute_dtype or product_dtype(x), backend)
    if plain(x):
        return GatherScores.apply(settings, index, x, y, *vectors)
    return torch.ops.contrastloss.gather_scores(x, y, *vectors, [], [], *settings, index)


def _check_index(index: Tensor, x: Tensor) -> None:
    if not isinstance(index, Tensor):
        raise TypeError(f"index: got {type(index).__name__}, expected a tensor")
    if index.dtype != torch.int64:
        raise TypeError(f"index: got dtype {index.dtype}, expected int64")
    check_device("index", index, "x", x)
    if index.ndim != x.ndim or index.shape[:-1] != x.shape[:-1]:
        expected = f"({', '.join(map(str, (*x.shape[:-1], 'K')))})"
        raise ValueError(f"index: got shape {shape(index)}, expected {expected} as x {shape(x)}")


# ---- between the schema and the backends ---------------------------------------------------------


def forward(*args: Any) -> Tensor:
    form, index = Form(*args[:INPUTS]), args[INPUTS]
    call = form.call()
    check_range("index", index, -1, call.columns.shape[-2] - 1, "columns of y")
    run = choose(call, "gather_scores_forward", form.backend)
    found = without_autocast(index.device.type, run, call, form.flat(index))
    return found.reshape(index.shape)


def backward(*args: Any) -> list[Tensor]:
    """Gradients of the scores at ``index`` by the tensors marked in ``needs``, in order."""
    form, (index, grad, needs) = Form(*args[:INPUTS]), args[INPUTS:]
    call, names = form.call(), named_in(needs)
    run = choose(call, "gather_scores_backward", form.backend)
    found = without_autocast(index.device.type, run, call, form.flat(index), form.flat(grad), names)
    return [
        form.lower(getattr(found, name), getattr(form, name))
        for name in Gradients.NAMES
        if name in names
    ]


def _fake_forward(*args: Any) -> Tensor:
    x, index = args[0], args[INPUTS]
    Form(*args[:INPUTS]).check_devices(index=index)
    return x.new_empty(index.shape, dtype=stat_dtype(x))


def _fake_backward(*args: Any) -> list[Tensor]:
    form, names = Form(*args[:INPUTS]), named_in(args[-1])
    likes = [getattr(form, name) for name in Gradients.NAMES if name in names]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in likes]


# ---- autograd ------------------------------------------------------------------------------------


def save(ctx: Any, tensors: Sequence[Any], settings: Sequence[Any], index: Tensor) -> None:
    """Save what the gradients of scores at ``index`` need; ``tensors`` are x to col_bias."""
    ctx.save_for_backward(*tensors, index)
    ctx.settings = (_NO_CHANNELS.text, *settings[1:])


def gradients(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """The gradients of x to col_bias; None for a tensor without one."""
    *tensors, index = ctx.saved_tensors
    needs = mask(needed)
    run: Any = torch.ops.contrastloss.gather_scores_backward
    if plain(tensors[0]) and not torch.is_grad_enabled():  # nobody differentiates the gradient
        run = backward
    found = iter(run(*tensors, [], [], *ctx.settings, index, grad, needs))
    return [next(found) if needs >> k & 1 else None for k in range(len(tensors))]


class GatherScores(torch.autograd.Function):
    """``apply(settings, index, x, y, scale, row_scale, col_scale, row_bias, col_bias)``, where
    settings are (program, cosine, compute_dtype, backend)."""

    @staticmethod
    def forward(ctx: Any, settings: Sequence[Any], index: Tensor, *tensors: Any) -> Tensor:
        save(ctx, tensors, settings, index)
        return forward(*tensors, [], [], *settings, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (None, None, *gradients(ctx, grad, ctx.needs_input_grad[2:]))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("gather_scores: forward-mode derivatives are not implemented")


def _setup(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    save(ctx, inputs[:7], inputs[9:INPUTS], inputs[INPUTS])


def _op_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = gradients(ctx, grad, ctx.needs_input_grad[:7])
    return (*found, [], [], None, None, None, None, None)


def _save_backward(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    index, grad, ctx.needs = inputs[INPUTS:]
    ctx.save_for_backward(*inputs[:7], index, grad)
    ctx.settings = inputs[9:INPUTS]


def _double_backward(ctx: Any, upstream: Sequence[Tensor | None]) -> tuple[Any, ...]:
    *tensors, index, grad = ctx.saved_tensors
    inputs = (*tensors, [], [], *ctx.settings)
    form = Form(*inputs)

    def run() -> tuple[Tensor | None, ...]:
        return _second(form, index, grad, ctx.needs, upstream)

    floating = [t for t in (*tensors, grad, *upstream) if t is not None]
    *found, d_grad = SecondDerivative.apply("gather_scores", run, *floating)
    return (*found, [], [], None, None, None, None, None, d_grad, None)


def _second(
    form: Form, index: Tensor, grad: Tensor, needs: int, upstream: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The derivatives of :func:`backward` by x to col_bias and by ``grad``, from the reference
    backend."""
    call, names, given, cotangent = form.call(), named_in(needs), iter(upstream), Gradients()
    for name in Gradients.NAMES:
        value = next(given) if name in names else None
        if value is not None and name in ("x", "y"):
            value = form.flat(value)
        elif value is not None and name != "scale":
            axis = ROW if name.startswith("row") else COL
            value = form.lift(value, form.length(axis))
        setattr(cotangent, name, value)
    found, d_grad = reference.gather_scores_double_backward(
        call, form.flat(index), form.flat(grad), names, cotangent
    )
    pairs = [(getattr(found, name), getattr(form, name)) for name in Gradients.NAMES]
    pairs.append((d_grad, grad))
    return tuple(None if v is None else form.lower(v, like) for v, like in pairs)


def _register() -> None:
    forward_name = "contrastloss::gather_scores"
    backward_name = "contrastloss::gather_scores_backward"
    define, impl = torch.library.define, torch.library.impl
    tags = (torch.Tag.pt2_compliant_tag,)
    define(forward_name, f"({OPERANDS}, Tensor index) -> Tensor", tags=tags)
    define(
        backward_name, f"({OPERANDS}, Tensor index, Tensor grad, int needs) -> Tensor[]", tags=tags
    )
    impl(forward_name, "CompositeExplicitAutograd", forward)
    impl(backward_name, "CompositeExplicitAutograd", backward)
    torch.library.register_fake(forward_name, _fake_forward)
    torch.library.register_fake(backward_name, _fake_backward)
    torch.library.register_autograd(forward_name, _op_backward, setup_context=_setup)
    torch.library.register_autograd(backward_name, _double_backward, setup_context=_save_backward)


_register()
