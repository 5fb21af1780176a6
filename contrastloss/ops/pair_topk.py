"""``pair_topk``: the k best columns of every row, from scores that are never stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import NAMES, SCHEMA, Operands, PairCall, Selection, position_keys, run
from ..channel import COL, INDEX, MAX, ROW, Axis, Test, members
from ..options import brief, check_dense, shape
from ..program import Program
from .check import (
    as_float,
    check_broadcast,
    check_count,
    check_device,
    check_devices,
    check_flag,
    checked_call,
    checks_values,
    is_number,
    named_operands,
    no_transforms,
    plain,
    scalar,
)
from .gather_scores import gradients, save
from .operator import define
from .pair_stats import INPUTS, by_argument
from .results import TopK

__all__ = ["PairTopK", "pair_topk"]


def pair_topk(
    x: Tensor,
    y: Tensor | None,
    k: int,
    *,
    largest: bool = True,
    pairs: Sequence[Test] = (),
    rows: Mapping[str, Tensor] | None = None,
    cols: Mapping[str, Tensor] | None = None,
    lower: Tensor | float | None = None,
    upper: Tensor | float | None = None,
    skip: int = 0,
    ignore: tuple[Tensor, Tensor] | None = None,
    sample: float | None = None,
    seed: int | None = None,
    scale: Tensor | float | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
    row_bias: Tensor | None = None,
    col_bias: Tensor | None = None,
    cosine: bool = False,
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> TopK:
    r"""For every row the k columns of the largest scores

    :math:`s_{ij} = \text{scale}\; a_i b_j \langle x_i, y_j \rangle + \beta_i + \gamma_j`

    among its candidates, in memory O(M k). Among equal scores the smaller column comes first.

    A candidate passes every test of ``pairs``, is not in the row's ignore list, and has
    ``lower_i <= s_ij <= upper_i``. A score that is NaN or -inf (+inf with ``largest=False``) is
    never a candidate. A row with fewer than k candidates is padded with values -inf and indices
    -1: ``(indices >= 0).sum(-1)`` counts the columns found.

    Args:
        x: rows (queries), (..., M, D), of a floating dtype.
        y: columns (the corpus), (..., N, D), with x's dtype and leading dimensions. None means x
            itself: self pairs are no candidates, and ``cols`` defaults to ``rows``.
        k: how many, at least 1; may exceed N.
        largest: False for the smallest scores first (hardest positives).
        pairs: tests of :mod:`contrastloss.channel`; a candidate passes all of them.
        rows, cols: the ids that ``pairs`` names, (..., M) and (..., N).
        lower, upper: closed bounds of the scores, numbers or (..., M). Semi-hard negatives have
            ``upper = torch.nextafter(positive, -inf)`` and ``lower = positive - margin``.
        skip: leave out this many of the best candidates (return ranks ``skip`` to
            ``skip + k - 1``).
        ignore: columns to leave out per row, in CSR format: int64 (offsets, columns), with one
            offset more than the number of rows in all leading dimensions together.
        sample: beta; returns k columns drawn without replacement instead of the best, with
            probabilities proportional to ``exp(beta s_ij)``, in the order of drawing (Gumbel
            top-k: the largest ``beta s_ij + g_ij``). 0 draws uniformly. ``largest`` must be True.
        seed: the seed of the noise; required with ``sample``. The noise depends only on seed, row
            and column, and is the same on every backend. Positions given as ``rows[INDEX]`` and
            ``cols[INDEX]`` replace those in x and y, so that shards draw the same as the whole.
        scale, row_scale, col_scale, row_bias, col_bias, cosine, compute_dtype, backend: as in
            :func:`~contrastloss.ops.pair_stats`.

    Returns:
        :class:`TopK`: values in fp32 (fp64 for fp64), differentiable in x, y and all scales and
        biases, and int64 indices.

    Raises:
        TypeError, ValueError: an argument's dtype, shape, device or value is wrong; the message
            names it.
        RuntimeError: the named ``backend`` does not support the call; the message says why.

    Sampling: Kool, van Hoof & Welling, "Stochastic Beams and Where to Find Them" (2019).
    """
    no_transforms("pair_topk")
    rows, cols = named_operands(rows, cols, y is None)
    check_flag("largest", largest)
    tests = members("pairs", pairs, Test, "tests")
    program = (_build if torch.compiler.is_compiling() else _program)(
        largest, tests, tuple(rows), tuple(cols)
    )
    _check_numbers(k, skip, sample, seed, largest)
    operands = Operands(
        x, y, scale, row_scale, col_scale, row_bias, col_bias, (*rows.values(),), (*cols.values(),)
    )
    # positions may be given only for the noise
    extra = frozenset() if sample is None else frozenset({INDEX})
    call = checked_call(operands, program, cosine, compute_dtype, backend, extra)
    bounds = [_bound(name, value, x) for name, value in (("lower", lower), ("upper", upper))]
    lists = [] if ignore is None else _check_ignore(ignore, x)
    chosen = (k + skip, *bounds, lists, sample, seed or 0)
    if plain(x):
        found = PairTopK.apply(call, chosen, *call.operands.flat())
    else:
        found = torch.ops.contrastloss.pair_topk(*call.arguments(), *chosen)
    return TopK(*found) if skip == 0 else TopK(*(part[..., skip:] for part in found))


def _build(largest: bool, pairs: tuple, rows: tuple[str, ...], cols: tuple[str, ...]) -> Program:
    return Program((MAX(sign=1.0 if largest else -1.0, pairs=pairs),), rows, cols)


_program = lru_cache(maxsize=1024)(_build)


def _check_numbers(
    k: int, skip: int, sample: float | None, seed: int | None, largest: bool
) -> None:
    check_count("k", k)
    check_count("skip", skip, 0)
    if sample is None:
        if seed is not None:
            raise ValueError(f"seed: got {brief(seed)}, expected none without sample")
        return
    if not is_number(sample) or not math.isfinite(as_float("sample", sample)):
        raise ValueError(f"sample: got {brief(sample)}, expected a finite number")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise ValueError(f"seed: got {brief(seed)}, expected an integer of 63 bits with sample")
    if not largest:
        raise ValueError(
            "largest: got False, expected True with sample; a negative sample prefers small scores"
        )


def _bound(name: str, value: Tensor | float | None, x: Tensor) -> Tensor | None:
    if value is None:
        return None
    if is_number(value):
        return scalar(name, value, x)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a tensor")
    check_dense(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected a floating one")
    check_device(name, value, "x", x)
    if value.requires_grad:
        raise ValueError(f"{name}: got a tensor that requires grad, expected a detached one")
    check_broadcast(name, value, tuple(x.shape[:-1]))
    return value


def _check_ignore(ignore: tuple[Tensor, Tensor], x: Tensor) -> list[Tensor]:
    if not isinstance(ignore, (tuple, list)) or len(ignore) != 2:
        raise TypeError(f"ignore: got {type(ignore).__name__}, expected (offsets, columns)")
    for name, value in zip(("offsets", "columns"), ignore, strict=True):
        if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.ndim != 1:
            got = (
                f"{value.dtype} {shape(value)}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise TypeError(f"ignore {name}: got {got}, expected a 1-dim int64 tensor")
        check_device(f"ignore {name}", value, "x", x)
    rows = math.prod(x.shape[:-1])
    if len(ignore[0]) != rows + 1:
        raise ValueError(
            f"ignore offsets: got {len(ignore[0])}, expected {rows + 1} for {rows} rows"
        )
    return list(ignore)


# ---- between a call and the backends -------------------------------------------------------------


def forward(call: PairCall, *chosen: Any) -> tuple[Tensor, Tensor]:
    lifted = call.lifted()
    selection = _selection(lifted, call, *chosen)
    values, index = run(lifted, "pair_topk", selection)
    if selection.sample is not None:  # the values are noisy keys, not scores
        values = run(lifted, "gather_scores_forward", index)
    target = (*call.lead, *index.shape[-2:])
    return values.reshape(target), index.reshape(target)


def _selection(
    lifted: PairCall,
    call: PairCall,
    k: int,
    lower: Tensor | None,
    upper: Tensor | None,
    ignore: Sequence[Tensor],
    sample: float | None,
    seed: int,
) -> Selection:
    def bound(value: Tensor | None) -> Tensor | None:
        return None if value is None else call.expand(value.to(call.stat_dtype), call.length(ROW))

    def keys(axis: Axis) -> Tensor | None:
        if sample is None:
            return None
        positions = lifted.operand(axis, INDEX)
        if positions is None:
            positions = torch.arange(lifted.length(axis), device=lifted.x.device)
            positions = positions.expand(*lifted.x.shape[:-2], -1)
        return position_keys(positions.to(torch.int64), seed, 0 if axis == ROW else 1)

    lists = _sorted_lists(*ignore) if ignore else None
    return Selection(k, bound(lower), bound(upper), lists, sample, keys(ROW), keys(COL))


def _sorted_lists(offsets: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The lists with ascending columns within every row."""
    if checks_values(offsets):
        steps = offsets.diff()
        if offsets[0] != 0 or offsets[-1] != len(columns) or (steps < 0).any():
            raise ValueError(
                f"ignore offsets: got {int(offsets[0])} to {int(offsets[-1])}, expected ascending "
                f"ones from 0 to {len(columns)}, the number of columns listed"
            )
    entries = torch.arange(len(columns), device=columns.device)
    owner = torch.searchsorted(offsets, entries, right=True)
    order = columns.argsort(stable=True)
    return offsets, columns[order[owner[order].argsort(stable=True)]]


# ---- autograd: the gradients of the scores at the indices ----------------------------------------


class PairTopK(torch.autograd.Function):
    """``apply(call, chosen, *call.operands.flat())``, where chosen are (k, lower, upper, ignore,
    sample, seed): autograd sees only operands that are arguments."""

    @staticmethod
    def forward(
        ctx: Any, call: PairCall, chosen: Sequence[Any], *tensors: Any
    ) -> tuple[Tensor, Tensor]:
        values, index = forward(call, *chosen)
        ctx.mark_non_differentiable(index)
        save(ctx, call, tensors, index)
        ctx.named = len(tensors) - len(NAMES)
        return values, index

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        found = gradients(ctx, grad, ctx.needs_input_grad[2:])
        return (None, None, *found.flat(), *[None] * ctx.named)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("pair_topk: forward-mode derivatives are not implemented")


# ---- the registered operator ---------------------------------------------------------------------


def _op_forward(*args: Any) -> tuple[Tensor, Tensor]:
    return forward(PairCall.of(args[:INPUTS]), *args[INPUTS:])


def _fake_forward(*args: Any) -> tuple[Tensor, Tensor]:
    call, (k, lower, upper) = PairCall.of(args[:INPUTS]), args[INPUTS : INPUTS + 3]
    check_devices(call, lower=lower, upper=upper)
    shape = (*call.x.shape[:-1], k)
    values = call.x.new_empty(shape, dtype=call.stat_dtype)
    return values, call.x.new_empty(shape, dtype=torch.int64)


def _setup(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
    save(ctx, PairCall.of(inputs[:INPUTS]), inputs, output[1])


def _autograd(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad
    rows, cols, ignore = ([None] * len(part) for part in (*needed[7:9], needed[INPUTS + 3]))
    found = gradients(ctx, grad, needed)._replace(rows=tuple(rows), cols=tuple(cols))
    return (*by_argument(found), None, None, None, ignore, None, None)


_CHOSEN = "SymInt k, Tensor? lower, Tensor? upper, Tensor[] ignore, float? sample, int seed"
_WHOLE = f"({SCHEMA}, {_CHOSEN}) -> (Tensor, Tensor)"
define("pair_topk", _WHOLE, _op_forward, _fake_forward, _autograd, _setup)
