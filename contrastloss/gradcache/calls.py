"""The calls of encoders in a step: their first run, their gradients, and their second run.

Two nodes of the autograd graph make the backward pass of a loss a step of gradient caching. That of
a call, :class:`_Embeddings`, keeps the gradients of its embeddings. All of these lie on one node of
the step, :class:`_Step`, which autograd thus visits last; there all chunks run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .chunks import Outputs, cut, differentiable, flat, row_count, rows_of
from .surroundings import Autocast, Buffers, RandomState
from .wrappers import modules_of, reducing, warn_of_chunks, without_reduction

__all__ = ["Call", "Calls"]


class Call:
    """One call of an encoder."""

    def __init__(
        self,
        encoder: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        chunk_size: int,
        modules: Sequence[nn.Module],
    ) -> None:
        self.encoder, self.args, self.kwargs = encoder, tuple(args), dict(kwargs)
        named = {f"args[{k}]": value for k, value in enumerate(args)} | self.kwargs
        count, graded = row_count(named)
        self.rows, self.outputs = rows_of(count, chunk_size), Outputs(count)
        self.modules = [*modules_of(encoder), *modules]
        #: False where nothing has a gradient that its own could reach
        self.learns = graded or not _frozen(encoder)
        self.gradients: tuple[Tensor | None, ...] = ()

    def run(self, rows: slice) -> Any:
        return self.encoder(*cut(self.args, rows), **cut(self.kwargs, rows))

    def first(self) -> list[Any]:
        """The parts of the output, from a run without graph."""
        if len(self.rows) > 1:
            warn_of_chunks(self.modules)
        self.autocast, self.states = Autocast(), []
        self.buffers = Buffers.trained(self.modules)
        with torch.no_grad():
            for rows in self.rows:
                self.states.append(RandomState())
                self.outputs.add(rows, self.run(rows))
        torch.clear_autocast_cache()  # of copies of weights, which have no graph
        return self.outputs.leaves

    def again(self, k: int) -> None:
        """Chunk k with graph, and its gradients added to those of the parameters."""
        rows, last = self.rows[k], k + 1 == len(self.rows)
        self.states[k].restore()
        torch.clear_autocast_cache()
        with torch.enable_grad(), self.autocast.again():
            leaves, spec = flat(self.run(rows))
        self.outputs.check(rows, leaves, spec)
        ends, gradients = [], []
        for leaf, gradient in zip(leaves, self.gradients, strict=True):
            if gradient is not None and leaf.requires_grad and (leaf.ndim or last):
                ends.append(leaf)
                gradients.append(gradient[rows] if leaf.ndim else gradient)
        if ends:
            torch.autograd.backward(ends, gradients)


def _frozen(encoder: Any) -> bool:
    """Whether it is known to have nothing to learn."""
    if not isinstance(encoder, nn.Module):
        return False
    return not any(parameter.requires_grad for parameter in encoder.parameters())


class Calls:
    """Those of a step. It knows no node of the graph, which knows it: a step without backward pass
    is freed as soon as it is left."""

    def __init__(self, sync: bool) -> None:
        self.sync, self.done = sync, False
        self.held: list[Call] = []

    def node(self) -> Tensor:
        """On which all embeddings of the step lie."""
        return _Step.apply(self, torch.zeros((), requires_grad=True))

    def add(self, call: Call, node: Tensor) -> list[Any]:
        """The parts of the call's output, with a place in the graph."""
        self.held.append(call)
        leaves = list(call.outputs.leaves)
        places = [k for k, leaf in enumerate(leaves) if differentiable(leaf)]
        found = _Embeddings.apply(call, places, node, *(leaves[k] for k in places))
        for k, value in zip(places, found, strict=True):
            leaves[k] = value
        return leaves

    def again(self) -> None:
        """All chunks with graph; each module that reduces gradients does so in its last one."""
        if self.done:
            raise RuntimeError(
                "GradCache: got a second backward pass, expected one: the chunks have run again"
            )
        self.done, held, self.held = True, self.held, []
        asked = [(call, reducing(call.modules)) for call in held if call.gradients]
        last = {id(module): call for call, modules in asked for module in modules}
        after = RandomState(), Buffers(v for call in held for v in call.buffers.tensors)
        try:
            for call, modules in asked:
                call.buffers.restore()
                final = [m for m in modules if self.sync and last[id(m)] is call]
                for k in range(len(call.rows)):
                    reduced = final if k + 1 == len(call.rows) else []
                    with without_reduction([m for m in modules if m not in reduced]):
                        call.again(k)
        finally:
            for state in after:
                state.restore()  # as the first run has left them


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, calls: Calls, place: Tensor) -> Tensor:
        ctx.calls = calls
        return place.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[None, None]:
        ctx.calls.again()
        return None, None


class _Embeddings(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, places: list[int], step: Tensor, *leaves: Tensor) -> Any:
        ctx.call, ctx.places = call, places
        ctx.set_materialize_grads(False)
        return leaves

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        found: list[Tensor | None] = [None] * len(ctx.call.outputs.leaves)
        for k, gradient in zip(ctx.places, gradients, strict=True):
            found[k] = gradient
        ctx.call.gradients = tuple(found)
        return None, None, torch.zeros(()), *(None for _ in gradients)
