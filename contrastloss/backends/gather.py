"""Scores of columns that each row chooses, by torch's own operators: those of the reference, and of
Triton, which has no kernel for them. ``s_ik = score(i, index_ik)``, and their gradients are

dx_i += h_ik y_j,  dy_j += h_ik x_i,  h_ik = scale a_i b_j g_ik,  j = index_ik.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..channel import COL, ROW, Axis
from .call import NAMES, Gradients, PairCall, widest
from .norms import unit_gradient
from .reference.block import block_elements, rounded, unit
from .reference.maths import NEG_INF

__all__ = ["gather_scores_backward", "gather_scores_double_backward", "gather_scores_forward"]


class _Part:
    """Some rows and the columns that their indices name."""

    def __init__(self, call: PairCall, index: Tensor, rows: slice):
        self.call, self.rows = call, rows
        #: an index out of range names no column
        self.valid = (index >= 0) & (index < call.length(COL))
        self.index = torch.where(self.valid, index, 0)[:, rows]
        self.valid = self.valid[:, rows]
        self.x = call.x[:, rows]
        self.y = self._columns(call.columns)
        self.dot = torch.einsum("bmd,bmkd->bmk", self.x, self.y)

    def _columns(self, whole: Tensor) -> Tensor:
        flat = self.index.flatten(1)
        if whole.ndim == 2:
            return whole.gather(1, flat).view(self.index.shape)
        spread = flat.unsqueeze(2).expand(-1, -1, whole.shape[2])
        return whole.gather(1, spread).view(*self.index.shape, whole.shape[2])

    def along(self, axis: Axis, vector: Tensor) -> Tensor:
        return vector[:, self.rows, None] if axis == ROW else self._columns(vector)

    def scores(self) -> Tensor:
        given, s = self.call.operands, self.dot
        s = s if given.scale is None else s * given.scale
        for axis, factor in ((ROW, given.row_scale), (COL, given.col_scale)):
            s = s if factor is None else s * self.along(axis, factor)
        for axis, bias in ((ROW, given.row_bias), (COL, given.col_bias)):
            s = s if bias is None else s + self.along(axis, bias)
        return s


def _parts(call: PairCall, index: Tensor) -> Iterator[_Part]:
    """Parts of rows whose gathered columns have about as many elements as a block has scores."""
    width = max(1, call.batch * index.shape[2] * call.x.shape[2])
    step = max(1, block_elements(call.x.device) // width)
    rows = call.length(ROW) if call.length(COL) and index.shape[2] else 0
    for i in range(0, rows, step):
        yield _Part(call, index, slice(i, min(i + step, rows)))


def gather_scores_forward(call: PairCall, index: Tensor) -> Tensor:
    """The scores of every row with the columns in its row of ``index``, (B, M, K)."""
    return call.drop_batch(_forward(call.batched(), call.add_batch(index)))


def _forward(call: PairCall, index: Tensor) -> Tensor:
    call = unit(rounded(call))
    out = torch.full(index.shape, NEG_INF, dtype=call.stat_dtype, device=index.device)
    for part in _parts(call, index):
        out[:, part.rows] = torch.where(part.valid, part.scores(), NEG_INF)
    return out


def gather_scores_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~.call.NAMES`), given those of the scores."""
    found = _backward(call.batched(), call.add_batch(index), call.add_batch(grad), needs)
    return found.map(call.drop_batch)


def _backward(call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str]) -> Gradients:
    raw = rounded(call)
    call_of_units = unit(raw)
    operands = dict(zip(NAMES, raw.operands[:7], strict=True))
    totals = {
        name: torch.zeros_like(value, dtype=raw.stat_dtype if name in ("x", "y") else widest(raw.x))
        for name, value in operands.items()
        if name in needs and value is not None
    }
    for part in _parts(call_of_units, index):
        g = torch.where(part.valid, grad[:, part.rows], 0.0)
        _add(part, g, totals)
    found: dict[str, Any] = {}
    for name, total in totals.items():
        if call.cosine and name in ("x", "y"):
            total = unit_gradient(operands[name], total)
        found[name] = total.to(call.x.dtype if name in ("x", "y") else raw.stat_dtype)
    return Gradients(**found)


def gather_scores_double_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str], upstream: Gradients
) -> tuple[Gradients, Tensor | None]:
    """The vector-Jacobian product of :func:`gather_scores_backward`. ``upstream`` holds gradients
    of its results; returned are the gradients of the call's operands and of ``grad``."""
    found, d_grad = _double_backward(
        call.batched(),
        call.add_batch(index),
        call.add_batch(grad),
        needs,
        upstream.map(call.add_batch),
    )
    return found.map(call.drop_batch), call.drop_batch(d_grad)


def _double_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str], upstream: Gradients
) -> tuple[Gradients, Tensor | None]:
    """Autograd takes some rows at a time."""
    raw = rounded(call)
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in zip(NAMES, raw.operands[:7], strict=True)
        if value is not None
    }
    wanted = [name for name in leaves if name in needs and getattr(upstream, name) is not None]
    given = grad.detach().requires_grad_()
    totals = [torch.zeros_like(leaf) for leaf in (*leaves.values(), given)]
    if not wanted:
        return Gradients(), None
    cotangents = [getattr(upstream, name).to(leaves[name].dtype) for name in wanted]
    rows = [part.rows for part in _parts(raw, index)]
    for span in rows:
        with torch.enable_grad():
            part = _Part(unit(raw.replace(**leaves)), index, span)
            scores = torch.where(part.valid, part.scores(), 0.0)
            first = torch.autograd.grad(
                scores,
                [leaves[name] for name in wanted],
                torch.where(part.valid, given[:, span], 0.0),
                create_graph=True,
                materialize_grads=True,
            )
            inner = sum((f * c).sum() for f, c in zip(first, cotangents, strict=True))
        second = torch.autograd.grad(inner, [*leaves.values(), given], allow_unused=True)
        for total, value in zip(totals, second, strict=True):
            if value is not None:
                total += value
    found = dict[str, Any](zip(leaves, totals, strict=False))
    return Gradients(**found), totals[-1]


def _add(part: _Part, g: Tensor, totals: dict[str, Tensor]) -> None:
    """What a part adds to each gradient."""
    given, scale = part.call.operands, part.call.operands.scale
    a = None if given.row_scale is None else part.along(ROW, given.row_scale)
    b = None if given.col_scale is None else part.along(COL, given.col_scale)

    def times(value: Tensor, *factors: Tensor | None) -> Tensor:
        for factor in factors:
            value = value if factor is None else value * factor
        return value

    def to_rows(name: str, value: Tensor) -> None:
        totals[name][:, part.rows] += value

    def to_columns(name: str, value: Tensor) -> None:
        total, flat = totals[name], part.index.flatten(1)
        value = value.flatten(1, 2).to(total.dtype)
        if value.ndim == 3:
            flat = flat.unsqueeze(2).expand_as(value)
        total.scatter_add_(1, flat, value)

    if "row_bias" in totals:
        to_rows("row_bias", g.sum(2))
    if "col_bias" in totals:
        to_columns("col_bias", g)
    if "scale" in totals:
        totals["scale"] += times(g * part.dot, a, b).sum()
    if "row_scale" in totals:
        to_rows("row_scale", times(g * part.dot, scale, b).sum(2))
    if "col_scale" in totals:
        to_columns("col_scale", times(g * part.dot, scale, a))
    h = times(g, scale, a, b)
    if "x" in totals:
        to_rows("x", torch.einsum("bmk,bmkd->bmd", h, part.y))
    if "y" in totals or ("x" in totals and given.y is None):
        to_columns("y" if "y" in totals else "x", h.unsqueeze(3) * part.x.unsqueeze(2))
