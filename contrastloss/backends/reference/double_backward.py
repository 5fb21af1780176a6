"""The derivative of the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...channel import COL, ROW
from ..call import Gradients, Operands, PairCall
from ..norms import unit_gradient
from .backward import block_gradients
from .block import Block, blocks, rounded, unit

__all__ = [
    "MaybeTensor",
    "pair_stats_double_backward",
]


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
        for name, value in zip(call.names(axis), upstream.named(axis), strict=False):
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
        tensors: list[Any] = [_leaf(value) for value in call.operands[:7]]
        shifts = call.at_shifts(lambda axis, name: _leaf(call.named(axis, name)))
        self.operands = Operands._make((*tensors, *shifts))
        rows, cols = map(_chosen, shifts, call.operands[7:])
        self.call = PairCall(Operands._make((*tensors, rows, cols)), *call[1:])
        everything = [*self.operands.flat(), *self.outputs, *self.grads]
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

        outputs, grads = [grad(t) for t in self.outputs], [grad(t) for t in self.grads]
        return self.operands.map(grad), outputs, grads


def _chosen(leaves: Sequence[Tensor | None], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaves, and for None the others."""
    return tuple(v if leaf is None else leaf for leaf, v in zip(leaves, others, strict=True))
