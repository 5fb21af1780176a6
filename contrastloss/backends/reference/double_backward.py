"""The derivative of the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...channel import COL, ROW, Axis
from ..call import Gradients, PairCall
from ..norms import unit_gradient
from .backward import block_gradients
from .block import Block, blocks, rounded, unit


def pair_stats_double_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
    upstream: Gradients,
) -> tuple[Gradients, list[Tensor | None], list[Tensor | None]]:
    """See :func:`contrastloss.backends.reference.pair_stats_double_backward`; the call has a batch
    dimension.

    Given the statistics, G of a block depends only on the block, so autograd differentiates one
    block at a time and memory stays O(M + N).
    """
    wanted = {n: getattr(upstream, n) for n in needs if getattr(upstream, n) is not None}
    if call.y is None and "x" in wanted:
        wanted["y"] = wanted["x"]  # dx is the sum over both sides
    for axis in (ROW, COL):
        for name, value in zip(call.program.shifts(axis), upstream.shifts(axis), strict=False):
            if value is not None:
                wanted[f"{axis} shift {name}"] = value

    leaves = _Leaves(rounded(call), outputs, grads)
    for rows, cols in blocks(call):
        with torch.enable_grad():
            block = Block(unit(leaves.call), rows, cols)
            found = block_gradients(block, leaves.outputs, leaves.grads, needs)
            if call.cosine:  # linear in the gradient of the unit vectors: can be done per block
                raw = {"x": leaves.call.x[:, rows], "y": leaves.call.columns[:, cols]}
                for side in found.keys() & raw.keys():
                    found[side] = unit_gradient(raw[side], found[side])
        pairs = [
            (value, block.part(name, wanted[name]))
            for name, value in found.items()
            if name in wanted and value.requires_grad
        ]
        if pairs:
            values, cotangents = zip(*pairs, strict=True)
            leaves.accumulate(
                values, [c.to(v.dtype) for v, c in zip(values, cotangents, strict=True)]
            )
    return leaves.collect()


MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)


def _leaf(tensor: MaybeTensor) -> MaybeTensor:
    if tensor is None or not tensor.is_floating_point():
        return tensor
    return tensor.detach().clone().requires_grad_()


class _Leaves:
    """Detached copies of everything that the backward pass reads, and their gradients."""

    def __init__(
        self, call: PairCall, outputs: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> None:
        self.outputs = [_leaf(t) for t in outputs]
        self.grads = [_leaf(t) for t in grads]
        self.named: dict[str, Any] = {name: _leaf(getattr(call, name)) for name in Gradients.NAMES}
        self.shifts = {
            (axis, name): _leaf(call.named(axis, name))
            for axis in (ROW, COL)
            for name in call.program.shifts(axis)
        }

        def operands(axis: Axis, names: Sequence[str], values: Sequence[Tensor]) -> tuple:
            return tuple(self.shifts.get((axis, n), v) for n, v in zip(names, values, strict=True))

        self.call = replace(
            call,
            **self.named,
            rows=operands(ROW, call.program.rows, call.rows),
            cols=operands(COL, call.program.cols, call.cols),
        )
        everything = [*self.named.values(), *self.shifts.values(), *self.outputs, *self.grads]
        self.live = [t for t in everything if t is not None and t.requires_grad]
        self.total: dict[int, Tensor] = {}

    def accumulate(self, values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> None:
        new = torch.autograd.grad(values, self.live, cotangents, allow_unused=True)
        for leaf, grad in zip(self.live, new, strict=True):
            if grad is not None:
                seen = self.total.get(id(leaf))
                self.total[id(leaf)] = grad if seen is None else seen + grad

    def collect(self) -> tuple[Gradients, list[Tensor | None], list[Tensor | None]]:
        def grad(leaf: Tensor | None) -> Tensor | None:
            return None if leaf is None else self.total.get(id(leaf))

        result = Gradients()
        for name, leaf in self.named.items():
            setattr(result, name, grad(leaf))
        for axis in (ROW, COL):
            values = tuple(grad(t) for (a, _), t in self.shifts.items() if a == axis)
            setattr(result, f"{axis}_shifts", values)
        return result, [grad(t) for t in self.outputs], [grad(t) for t in self.grads]
