"""The modules behind an encoder, and those that reduce their gradients over ranks: DDP, FSDP."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["modules_of", "reducing", "warn_of_chunks", "without_reduction"]


def modules_of(encoder: Any) -> list[nn.Module]:
    """The module that an encoder is, or whose method it is; of any other function none is known."""
    while isinstance(encoder, partial):
        encoder = encoder.func
    owner = encoder if isinstance(encoder, nn.Module) else getattr(encoder, "__self__", None)
    return [owner] if isinstance(owner, nn.Module) else []


def reducing(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The outermost ones that reduce gradients over ranks."""
    return list({id(found): found for module in modules for found in _outermost(module)}.values())


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if hasattr(module, "no_sync") or hasattr(module, "set_requires_gradient_sync"):
        yield module
    else:
        for child in module.children():
            yield from _outermost(child)


@contextmanager
def without_reduction(modules: Iterable[Any]) -> Iterator[None]:
    """Gradients are added up on each rank."""
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
                module.set_requires_gradient_sync(False)
                stack.callback(module.set_requires_gradient_sync, True)
            else:
                stack.enter_context(module.no_sync())
        yield


def warn_of_chunks(modules: Iterable[nn.Module]) -> None:
    """Warn, once in a process, of modules that see the rows of one chunk at a time."""
    for module in modules:
        for inner in module.modules():
            if isinstance(inner, _BatchNorm) and inner.training:
                _warn(type(inner).__name__)
                return


@lru_cache(maxsize=8)
def _warn(name: str) -> None:
    warnings.warn(
        f"encoder: got {name} in train mode, which normalises the rows of a chunk, not those of "
        f"the batch: the loss depends on chunk_size",
        stacklevel=5,
    )
