"""Gradients, one block of rows at a time.

The backward recomputes the scores of a block and the gradient of the loss with respect to them,

    G_ij = sum_c  gL_i theta p_ij                               LSE,  p_ij = e^(theta s + w - L_i)
                + gH_i e^w sign psi'(u_ij)                       SUM
                + p_ij (gE_i (1 + theta (s_ij - E_i)) + gL_i theta)   EXPECT
                + gV_i sign [j = index_i]                        MAX

(and the mirror images of column channels), from which everything else is a product or a sum:
``dx = H y``, ``dy = H^T x`` with ``H_ij = scale a_i b_j G_ij``, ``d beta = G 1``, and the three
scales from sums of ``G_ij <x_i, y_j>``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...channel import COL, EXPECT, MAX, ROW, SUM, Axis
from ..call import Gradients, PairCall
from .block import Block, blocks, dim_of, rounded, times, unit
from .maths import dpsi, finite, unit_gradient


def _score_gradient(
    block: Block, outputs: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor, dict[tuple[Axis, str], Tensor]]:
    """G of the module's docstring for one block of rows, and the gradients of the shifts."""
    total = torch.zeros_like(block.s)
    shifts: dict[tuple[Axis, str], Tensor] = {}
    first = 0
    for channel in block.call.program.channels:
        width = len(channel.returns)
        out, grad = outputs[first : first + width], grads[first : first + width]
        first += width
        live = [None if g is None else block.along(channel.axis, g) for g in grad]
        if all(g is None for g in live):
            continue
        if isinstance(channel, SUM):
            slope = dpsi(channel.psi, block.argument(channel))
            part = block.weighted(channel, live[0] * (channel.sign * slope))
            if channel.shift is not None:
                key = (channel.axis, channel.shift)
                shifts[key] = shifts.get(key, 0.0) - part.sum(dim_of(channel.axis))
        elif isinstance(channel, MAX):
            if live[0] is None:
                continue
            here = block.positions(COL if channel.axis == ROW else ROW)
            part = torch.where(block.along(channel.axis, out[1]) == here, channel.sign, 0.0)
            part = part.to(block.s.dtype) * live[0]
        else:
            lse = block.along(channel.axis, out[-1])
            p = torch.exp(block.logits(channel) - finite(lse))
            slope = channel.theta * live[-1] if live[-1] is not None else 0.0
            if isinstance(channel, EXPECT) and live[0] is not None:
                deviation = block.s - block.along(channel.axis, out[0])
                slope = slope + live[0] * (1.0 + channel.theta * deviation)
            part = torch.where(p == 0, 0.0, p * slope)
        total = total + part
    return total, shifts


def block_gradients(
    block: Block,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> dict[str, Tensor]:
    """What one block of rows adds. Row quantities are of the block, column ones are partial."""
    call = block.call
    g, shifts = _score_gradient(block, outputs, grads)
    found = {f"{axis} shift {name}": value for (axis, name), value in shifts.items()}
    if "row_bias" in needs:
        found["row_bias"] = g.sum(2)
    if "col_bias" in needs:
        found["col_bias"] = g.sum(1)
    left = times(call.scale, block.row(call.row_scale))
    right = None if call.col_scale is None else call.col_scale[:, None, :]
    if needs & {"scale", "row_scale"}:
        per_row = (g * block.dot if right is None else g * block.dot * right).sum(2)
        if "row_scale" in needs:
            found["row_scale"] = per_row if call.scale is None else call.scale * per_row
        if "scale" in needs:
            a = call.row_scale
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


PER_ROW = ("x", "row_scale", "row_bias", f"{ROW} shift ")


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (of :attr:`Gradients.NAMES`), and those of all shifts."""
    dtype, raw = call.x.dtype, rounded(call)
    call = unit(raw)
    whole: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}
    for start, stop in blocks(call):
        for name, value in block_gradients(Block(call, start, stop), outputs, grads, needs).items():
            if name.startswith(PER_ROW):
                rows.setdefault(name, []).append(value)
            elif name in whole:
                whole[name] += value
            else:
                whole[name] = value
    whole.update({name: torch.cat(parts, 1) for name, parts in rows.items()})
    return _collect(raw, whole, needs, dtype)


def _collect(
    call: PairCall, found: dict[str, Tensor], needs: frozenset[str], dtype: torch.dtype
) -> Gradients:
    """By name, with zeros for what no pair contributed to."""

    def get(name: str, like: Tensor | None) -> Tensor | None:
        if name in found:
            return found[name]
        return torch.zeros_like(like, dtype=call.stat_dtype) if like is not None else None

    result = Gradients()
    for name in Gradients.NAMES:
        if name in needs and name not in ("x", "y"):
            setattr(result, name, get(name, getattr(call, name)))
    if "x" in needs:
        dx = get("x", call.x)
        if call.y is None:
            dx = dx + get("y", call.x)
        result.x = (unit_gradient(call.x, dx) if call.cosine else dx).to(dtype)
    if "y" in needs and call.y is not None:
        dy = get("y", call.y)
        result.y = (unit_gradient(call.y, dy) if call.cosine else dy).to(dtype)
    for axis in (ROW, COL):
        values = tuple(
            get(f"{axis} shift {name}", call.operand(axis, name))
            for name in call.program.shifts(axis)
        )
        setattr(result, f"{axis}_shifts", values)
    return result
