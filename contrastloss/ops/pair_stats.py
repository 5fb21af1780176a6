"""``pair_stats``: statistics per row and per column, from scores that are never stored.

The operator is registered with torch.library (schema, fake, autograd), so torch.compile and
torch.export see one opaque node. :class:`PairStats` is the same forward and backward as a plain
``torch.autograd.Function``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import mask
from ..channel import COL, ROW, Channel, Program
from .check import check_channels, check_operands, scalar
from .form import (
    INPUTS,
    OPERANDS,
    Form,
    backward,
    double_backward,
    fake_backward,
    fake_forward,
    forward,
    no_transforms,
    plain,
    product_dtype,
)
from .results import named
from .second import SecondDerivative

__all__ = ["PairStats", "pair_stats"]


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

    .. math:: s_{ij} = \text{scale}\; a_i b_j \langle x_i, y_j \rangle + \beta_i + \gamma_j

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
    rows = dict(rows or {})
    cols = rows if cols is None and y is None else dict(cols or {})
    channels = check_channels(channels)
    program = (Program if torch.compiler.is_compiling() else _program)(
        channels, tuple(rows), tuple(cols)
    )
    vectors = [scale, row_scale, col_scale, row_bias, col_bias]
    check_operands(x, y, vectors, rows, cols, program, compute_dtype)
    if isinstance(scale, (int, float)):
        vectors[0] = scalar("scale", scale, x)
    if compute_dtype is None:
        compute_dtype = product_dtype(x)
    settings = (program.text, cosine, compute_dtype, backend)
    if plain(x):
        flat = PairStats.apply(len(rows), *settings, x, y, *vectors, *rows.values(), *cols.values())
    else:
        flat = torch.ops.contrastloss.pair_stats(
            x, y, *vectors, list(rows.values()), list(cols.values()), *settings
        )
    results, first = [], 0
    for channel in program.channels:
        last = first + len(channel.returns)
        results.append(named(channel, flat[first:last]))
        first = last
    return results


#: the same arguments give the same Program, so everything derived from it is computed once
_program = lru_cache(maxsize=1024)(Program)


_FORWARD = "contrastloss::pair_stats"
_BACKWARD = "contrastloss::pair_stats_backward"


# ---- autograd ---------------------------------------------------------------------------------


def _save(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
    tensors, rows, cols = inputs[:7], inputs[7], inputs[8]
    ctx.save_for_backward(*tensors, *rows, *cols, *output)
    ctx.counts, ctx.settings = (len(rows), len(cols)), inputs[9:]


def _restore(ctx: Any) -> tuple[tuple[Any, ...], list[Tensor]]:
    saved, (n_rows, n_cols) = list(ctx.saved_tensors), ctx.counts
    rows, cols = saved[7 : 7 + n_rows], saved[7 + n_rows : 7 + n_rows + n_cols]
    return (*saved[:7], rows, cols, *ctx.settings), saved[7 + n_rows + n_cols :]


def _run_backward(
    ctx: Any, grads: Sequence[Tensor | None], needed: Sequence[Any]
) -> tuple[list, list, list]:
    """Gradients of the seven tensors, of rows and of cols; None for a tensor without one."""
    inputs, outputs = _restore(ctx)
    program = Program.decode(inputs[9])
    dead = [g is None or not o.is_floating_point() for g, o in zip(grads, outputs, strict=True)]
    live = mask([not d for d in dead])
    needs = mask(needed[:7])
    run: Any = torch.ops.contrastloss.pair_stats_backward
    if plain(inputs[0]) and not torch.is_grad_enabled():  # nobody differentiates the gradient
        run = backward
    present = [g for g, d in zip(grads, dead, strict=True) if not d]
    found = iter(run(*inputs, outputs, present, live, needs))
    tensors = [next(found) if needs >> k & 1 else None for k in range(7)]
    shifts = {axis: {n: next(found) for n in program.shifts(axis)} for axis in (ROW, COL)}
    rows = [shifts[ROW].get(name) for name in program.rows]
    cols = [shifts[COL].get(name) for name in program.cols]
    return tensors, rows, cols


class PairStats(torch.autograd.Function):
    """``apply(rows, program, cosine, compute_dtype, backend, x, y, scale, row_scale, col_scale,
    row_bias, col_bias, *operands)``: the first ``rows`` operands belong to rows, the others to
    columns. Returns the values of all channels as one flat tuple."""

    # no separate setup_context: with one, torch binds the signature again at every call
    @staticmethod
    def forward(
        ctx: Any,
        n_rows: int,
        program: str,
        cosine: bool,
        dtype: torch.dtype,
        backend: str | None,
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        operands = tensors[7:]
        inputs = (
            *tensors[:7], operands[:n_rows], operands[n_rows:], program, cosine, dtype, backend
        )  # fmt: skip
        outputs = tuple(forward(*inputs))
        _save(ctx, inputs, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        tensors, rows, cols = _run_backward(ctx, grads, ctx.needs_input_grad[5:])
        return (None,) * 5 + (*tensors, *rows, *cols)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("pair_stats: forward-mode derivatives are not implemented")


def _op_backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    tensors, rows, cols = _run_backward(ctx, grads, ctx.needs_input_grad)
    return (*tensors, rows, cols, None, None, None, None)


def _save_backward(ctx: Any, inputs: tuple, output: Sequence[Tensor]) -> None:
    outputs, grads, live, needs = inputs[INPUTS:]
    _save(ctx, inputs[:INPUTS], [*outputs, *grads])
    ctx.n_outputs, ctx.live, ctx.needs = len(outputs), live, needs


def _double_backward(ctx: Any, upstream: Sequence[Tensor | None]) -> tuple[Any, ...]:
    inputs, saved = _restore(ctx)
    outputs, grads = saved[: ctx.n_outputs], saved[ctx.n_outputs :]
    form = Form(*inputs)

    def run() -> tuple[Tensor | None, ...]:
        return double_backward(form, outputs, grads, ctx.live, ctx.needs, upstream)

    floating = [t for t in ctx.saved_tensors if t is not None and t.is_floating_point()]
    floating += [t for t in upstream if t is not None]
    found = list(SecondDerivative.apply("pair_stats", run, *floating))
    n_rows, n_cols = ctx.counts
    tensors, rest = found[:7], found[7:]
    rows, cols, rest = rest[:n_rows], rest[n_rows : n_rows + n_cols], rest[n_rows + n_cols :]
    d_outputs, d_grads = rest[: ctx.n_outputs], rest[ctx.n_outputs :]
    return (*tensors, rows, cols, None, None, None, None, d_outputs, d_grads, None, None)


def _register() -> None:
    define, impl = torch.library.define, torch.library.impl
    tags = (torch.Tag.pt2_compliant_tag,)
    define(_FORWARD, f"({OPERANDS}) -> Tensor[]", tags=tags)
    define(
        _BACKWARD,
        f"({OPERANDS}, Tensor[] outputs, Tensor[] grads, int live, int needs) -> Tensor[]",
        tags=tags,
    )
    impl(_FORWARD, "CompositeExplicitAutograd", forward)
    impl(_BACKWARD, "CompositeExplicitAutograd", backward)
    torch.library.register_fake(_FORWARD, fake_forward)
    torch.library.register_fake(_BACKWARD, fake_backward)
    torch.library.register_autograd(_FORWARD, _op_backward, setup_context=_save)
    torch.library.register_autograd(_BACKWARD, _double_backward, setup_context=_save_backward)


_register()
