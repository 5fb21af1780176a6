"""Functions that a compiler sees as one operator: loops over parts of a batch, whose number depends
on its size or values, stay loops, and a graph serves every size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..backends import without_autocast
from .check import plain
from .operator import define

__all__ = ["opaque"]

_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality

#: of tensors and constants to tensors
Function = Callable[..., list[Tensor]]


def opaque(name: str, arguments: str, fake: Function) -> Callable[[Function], Function]:
    """Make an operator ``contrastloss::name`` of a differentiable function.

    A compiled or exported graph holds the operator, and its backward pass computes the function
    once more. Without a compiler the function is called as it is. Autocast is off inside.

    Args:
        arguments: their types and names, as in the schemas of torch.library.
        fake: the same arguments to empty results of the right shapes and dtypes.
    """

    def decorate(function: Function) -> Function:
        count = len(arguments.split(","))

        def run(*args: Any) -> list[Tensor]:
            with without_autocast(args[0].device):
                return function(*args)

        def gradients(*args: Any) -> list[Tensor]:
            given, (grads, needed) = args[:count], args[count:]
            leaves = [
                value.detach().requires_grad_() if need else value
                for value, need in zip(given, needed, strict=True)
            ]
            with _recording():
                found = run(*leaves)
                pairs = zip(found, grads, strict=True)
                used = [(v, g) for v, g in pairs if g is not None and v.requires_grad]
                inputs = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
                outputs, grads = zip(*used, strict=True)
                wanted = torch.autograd.grad(outputs, inputs, grads, materialize_grads=True)
            return [value.contiguous() for value in wanted]

        def fake_gradients(*args: Any) -> list[Tensor]:
            kept = zip(args[:count], args[-1], strict=True)
            contiguous = torch.contiguous_format
            return [torch.empty_like(v, memory_format=contiguous) for v, need in kept if need]

        def setup(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
            ctx.save_for_backward(*[v if isinstance(v, Tensor) else None for v in inputs])
            ctx.constants = [None if isinstance(v, Tensor) else v for v in inputs]

        def backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
            saved = zip(ctx.saved_tensors, ctx.constants, strict=True)
            args = [constant if tensor is None else tensor for tensor, constant in saved]
            needed = [need is True for need in ctx.needs_input_grad]
            operator = getattr(torch.ops.contrastloss, f"{name}_backward")
            found = iter(operator(*args, list(grads), needed))
            # torch takes an empty list for a tree without leaves
            rest: list[Any] = [[] if value == [] else None for value in ctx.constants]
            return tuple([next(found) if n else v for n, v in zip(needed, rest, strict=True)])

        def refuse(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(f"{name}: second derivatives are not implemented in a graph")

        whole = torch.no_grad()(run)
        define(name, f"({arguments}) -> Tensor[]", whole, fake, backward, setup)
        back = f"({arguments}, Tensor?[] grads, bool[] needed) -> Tensor[]"
        define(f"{name}_backward", back, gradients, fake_gradients, refuse)

        def call(*args: Any) -> list[Tensor]:
            return run(*args) if plain(args[0]) else getattr(torch.ops.contrastloss, name)(*args)

        return call

    return decorate


@contextmanager
def _recording() -> Iterator[None]:
    """Autograd records, which it does not inside an operator."""
    include = torch._C._dispatch_tls_local_include_set()
    exclude = torch._C._dispatch_tls_local_exclude_set().remove(_AUTOGRAD)
    with torch._C._ForceDispatchKeyGuard(include, exclude), torch.enable_grad():
        yield
