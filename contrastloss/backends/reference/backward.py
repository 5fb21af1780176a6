"""Gradients, one block of pairs at a time.

The backward pass recomputes the scores of a block and computes the gradient of the loss with
respect to them,

    G_ij = sum_c  gL_i theta p_ij                               LSE,  p_ij = e^(theta s + w - L_i)
                + gL_i theta pace_ij p_ij                        LSE with relax
                + gH_i e^w sign psi'(u_ij)                       SUM
                + p_ij (gE_i (1 + theta (s_ij - E_i)) + gL_i theta)   EXPECT
                + gV_i sign [j = index_i]                        MAX

and the same with rows and columns exchanged for column channels. All other gradients are products
or sums of G: ``dx = H y``, ``dy = H^T x`` with ``H_ij = scale a_i b_j G_ij``, ``d beta = G 1``, and
the gradients of the three scales from sums of ``G_ij <x_i, y_j>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...channel import COL, EXPECT, LSE, MAX, ROW, SUM, Axis
from ..call import NAMES, Gradients, PairCall, widest
from ..norms import unit_gradient
from .block import Block, blocks, dim_of, rounded, unit
from .maths import dpsi, finite

__all__ = [
    "CHUNK",
    "block_gradients",
    "pair_stats_backward",
]

#: rows whose radial part is removed at a time
CHUNK = 4096


def _score_gradient(
    block: Block, outputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor, dict[tuple[Axis, str], Tensor]]:
    """G (see the module's docstring) of one block, and the gradients of the shifts."""
    total = torch.zeros_like(block.s)
    shifts: dict[tuple[Axis, str], Tensor] = {}
    first = 0
    for channel in block.call.program.channels:
        width = len(channel.returns)
        out, grad = outputs[first : first + width], grads[first : first + width]
        first += width
        live = [None if g is None else block.along(channel.axis, g) for g in grad]
        if isinstance(channel, SUM) and live[0] is not None:
            slope = dpsi(channel.psi, block.argument(channel))
            part = block.weighted(channel, live[0] * (channel.sign * slope))
            if channel.shift is not None:
                key = (channel.axis, channel.shift)
                shifts[key] = shifts.get(key, 0.0) - part.sum(dim_of(channel.axis))
        elif isinstance(channel, MAX) and live[0] is not None:
            here = block.positions(COL if channel.axis == ROW else ROW)
            found = block.along(channel.axis, out[1]) == here
            part = torch.where(found, channel.sign * live[0], 0.0)
        elif isinstance(channel, (LSE, EXPECT)) and any(g is not None for g in live):
            part = _softmax_gradient(block, channel, out, live)
        else:
            continue
        total = total + part
    return total, shifts


def _softmax_gradient(
    block: Block, channel: LSE | EXPECT, out: Sequence[Tensor], live: Sequence[Tensor | None]
) -> Tensor:
    lse = block.along(channel.axis, out[-1])
    p = torch.exp(block.logits(channel) - finite(lse))
    slope = torch.zeros_like(lse) if live[-1] is None else channel.theta * live[-1]
    if isinstance(channel, EXPECT) and live[0] is not None:
        deviation = block.s - block.along(channel.axis, out[0])
        slope = slope + live[0] * (1.0 + channel.theta * deviation)
    if isinstance(channel, LSE) and channel.relax is not None:
        slope = slope * block.pace(channel)
    return torch.where(p == 0, 0.0, p * slope)


def block_gradients(
    block: Block,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> dict[str, Tensor]:
    """What one block adds to each gradient; :meth:`Block.part` selects where."""
    call, operands = block.call, block.call.operands
    g, shifts = _score_gradient(block, outputs, grads)
    found = {f"{axis} shift {name}": value for (axis, name), value in shifts.items()}
    if "row_bias" in needs:
        found["row_bias"] = g.sum(2)
    if "col_bias" in needs:
        found["col_bias"] = g.sum(1)
    left, right = block.left(), block.right()
    if needs & {"scale", "row_scale"}:
        per_row = (g * block.dot if right is None else g * block.dot * right).sum(2)
        if "row_scale" in needs:
            found["row_scale"] = per_row if operands.scale is None else operands.scale * per_row
        if "scale" in needs:
            a = operands.row_scale
            found["scale"] = (per_row if a is None else per_row * a[:, block.rows]).sum()
    if "col_scale" in needs:
        found["col_scale"] = (g * block.dot if left is None else g * block.dot * left).sum(1)
    h = g if left is None else g * left
    h = h if right is None else h * right
    if "x" in needs:
        found["x"] = h @ block.y
    if "y" in needs or ("x" in needs and call.y is None):
        found["y"] = h.mT @ block.x
    return found


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """See :func:`contrastloss.backends.reference.pair_stats_backward`; the call has a batch
    dimension, as in all modules of this package."""
    raw = rounded(call)
    units, totals = unit(raw), _totals(raw, needs)
    for rows, cols in blocks(units):
        block = Block(units, rows, cols)
        for name, value in block_gradients(block, outputs, grads, needs).items():
            block.part(name, totals[name]).add_(value)
    found: dict[str, Any] = {}
    for name, value in zip(NAMES, raw.operands[:7], strict=True):
        if name not in needs or (name == "y" and value is None):
            continue
        total = totals[name]
        if name in ("x", "y"):
            if call.cosine:
                _to_raw(value, total)
            total = total.to(call.x.dtype)
        else:
            total = total.to(call.stat_dtype)
        found[name] = total

    def shift(axis: Axis, name: str) -> Tensor:
        return totals[f"{axis} shift {name}"].to(call.stat_dtype)

    shifts = call.at_shifts(shift)
    return Gradients(**found, rows=shifts[0], cols=shifts[1])


def _totals(call: PairCall, needs: frozenset[str]) -> dict[str, Tensor]:
    """Zeros to which the blocks' gradients are added; vectors have a wide dtype. For ``y=None`` dy
    is added to dx."""
    likes = {name: getattr(call.operands, name) for name in needs}
    for axis in (ROW, COL):
        shifts = {f"{axis} shift {n}": call.named(axis, n) for n in call.program.shifts[axis]}
        likes.update(shifts)
    vectors = widest(call.x)
    totals = {
        name: torch.zeros_like(like, dtype=call.stat_dtype if name in ("x", "y") else vectors)
        for name, like in likes.items()
        if like is not None
    }
    if call.y is None and "x" in totals:
        totals["y"] = totals["x"]
    return totals


def _to_raw(x: Tensor, grad: Tensor) -> None:
    """Turns the gradient of the unit vectors into that of x, in place."""
    for part, total in zip(x.split(CHUNK, 1), grad.split(CHUNK, 1), strict=True):
        total.copy_(unit_gradient(part, total))
