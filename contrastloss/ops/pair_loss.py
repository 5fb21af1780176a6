"""``pair_loss``: a mean of losses of rows, with its gradients from the same pass where that is
faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..backends import Operands
from ..channel import COL, LSE, SUM, Channel
from ..options import brief, check_dense, shape
from ..program import Program
from .check import check_channels, checked_call, named_operands, no_transforms
from .one_pass import Part, in_one_pass, reduced
from .pair_stats import program_of, stats_of
from .results import results_of

__all__ = ["pair_loss"]


def pair_loss(
    x: Tensor,
    y: Tensor | None,
    channels: Sequence[Channel],
    parts: Sequence[Part],
    *,
    reduction: Literal["mean", "sum"] = "mean",
    row_weight: Tensor | None = None,
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
) -> tuple[Tensor, list[Any]]:
    r"""The mean, or sum, of the losses of rows, which are sums of terms of their channels' values:

    :math:`\ell_i = w_i \sum_p \text{weight}_p\, f_p(v_{i,\text{plus}} - v_{i,\text{minus}}),
    \qquad f(u) = u \text{ or } \log(1 + e^u)`

    The same as :func:`~contrastloss.ops.pair_stats` and these sums. On CPU tensors the forward pass
    finds the gradients, too, where that saves one of four matrix products: they are kept, in the
    statistics' dtype, until the backward pass multiplies them by the gradient of the loss and hands
    them over; a retained graph keeps them, and hands over a copy. A gradient that is to be
    differentiated is computed as ``pair_stats`` does.

    Args:
        x, y, channels: as for :func:`~contrastloss.ops.pair_stats`. Channels of columns that
            ``parts`` names need M = N.
        parts: the terms.
        reduction: ``'mean'`` | ``'sum'`` over rows; the mean of none is 0.
        row_weight: w, (..., M); None for 1. The mean still divides by the number of rows.
        scale, row_scale, col_scale, row_bias, col_bias, rows, cols, cosine, compute_dtype, backend:
            as for :func:`~contrastloss.ops.pair_stats`.

    Returns:
        The loss, (), and the values of the channels, as ``pair_stats`` returns them but detached.

    Raises:
        ValueError: ``parts`` names no channel, or one that is not there, has no single value, or is
            of columns while M is not N; or ``reduction`` or the shape of ``row_weight`` is another.
        TypeError, ValueError, RuntimeError: as ``pair_stats``.
    """
    no_transforms("pair_loss")
    rows, cols = named_operands(rows, cols, y is None)
    program = program_of(check_channels(channels), tuple(rows), tuple(cols))
    operands = Operands(
        x, y, scale, row_scale, col_scale, row_bias, col_bias, (*rows.values(),), (*cols.values(),)
    )
    call = checked_call(operands, program, cosine, compute_dtype, backend)
    if row_weight is not None:
        check_dense("row_weight", row_weight)
        if row_weight.shape != x.shape[:-1]:
            want = shape(x[..., 0])
            raise ValueError(f"row_weight: got shape {shape(row_weight)}, expected {want}")
    sizes = x.shape[-2], (x if y is None else y).shape[-2]
    how = _checked(tuple(parts), program, sizes), _reduction(reduction), row_weight
    found = in_one_pass(call, *how)
    if found is not None:
        loss, *flat = found
        return loss, results_of(call, flat)
    values = stats_of(call)
    return reduced(values, *how), [_detached(value) for value in values]


def _reduction(given: str) -> str:
    if given not in ("mean", "sum"):
        raise ValueError(f"reduction: got {brief(given)}, expected 'mean' or 'sum'")
    return given


def _checked(parts: tuple[Part, ...], program: Program, sizes: tuple[int, int]) -> tuple[Part, ...]:
    if not parts:
        raise ValueError("parts: got none, expected at least one")
    for part in parts:
        if part.plus is None and part.minus is None:
            raise ValueError("parts: got a term of no channel, expected plus or minus")
        for number in part[:2]:
            if number is None:
                continue
            if not 0 <= number < len(program.channels):
                most = len(program.channels) - 1
                raise ValueError(f"parts: got channel {number}, expected 0 to {most} or None")
            channel = program.channels[number]
            if not isinstance(channel, (LSE, SUM)):
                raise ValueError(
                    f"parts: got channel {number}, {channel.kind}, expected LSE or SUM"
                )
            if channel.axis == COL and sizes[0] != sizes[1]:
                m, n = sizes
                given = f"a channel of {n} columns, expected as many as rows, {m}"
                raise ValueError(f"parts: got {given}")
    return parts


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return type(value)(*[v.detach() for v in value])
