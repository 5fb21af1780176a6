"""What an encoder depends on beside its arguments: random states, autocast, buffers."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Autocast", "Buffers", "RandomState"]


class RandomState:
    """The states of the random numbers of torch on all devices, of Python and, if it is imported,
    of numpy."""

    def __init__(self) -> None:
        self.python = random.getstate()
        numpy = sys.modules.get("numpy")
        self.numpy = None if numpy is None else numpy.random.get_state()
        self.host = torch.get_rng_state()
        self.devices = [(at, _module().get_rng_state(*at)) for at in _devices()]

    def restore(self) -> None:
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        torch.set_rng_state(self.host)
        for at, state in self.devices:
            _module().set_rng_state(state, *at)


def _module() -> Any:
    return torch.get_device_module(torch.accelerator.current_accelerator())


def _devices() -> list[tuple[int, ...]]:
    """The arguments that name the accelerators; none before anything has run on one, since to ask
    would start it."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not getattr(_module(), "is_initialized", lambda: True)():
        return []
    if accelerator.type == "mps":  # has one device, which is not named
        return [()]
    return [(index,) for index in range(torch.accelerator.device_count())]


class Autocast:
    """Whether autocast is on, and its dtypes."""

    def __init__(self) -> None:
        accelerator = torch.accelerator.current_accelerator()
        kinds = {"cpu", *(() if accelerator is None else (accelerator.type,))}
        self.options = [
            {
                "device_type": kind,
                "enabled": torch.is_autocast_enabled(kind),
                "dtype": torch.get_autocast_dtype(kind),
                "cache_enabled": torch.is_autocast_cache_enabled(),
            }
            for kind in sorted(kinds)
            if torch.amp.is_autocast_available(kind)
        ]

    @contextmanager
    def again(self) -> Iterator[None]:
        with ExitStack() as stack:
            for options in self.options:
                stack.enter_context(torch.autocast(**options))
            yield


class Buffers:
    """The values of buffers: the statistics of BatchNorm, the vectors of spectral norm, queues."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        # BatchNorm writes without a new version of its tensor, so all are kept, changed or not
        self.tensors = list({id(buffer): buffer for buffer in buffers}.values())
        self.values = [buffer.clone() for buffer in self.tensors]

    @classmethod
    def trained(cls, modules: Iterable[nn.Module]) -> Buffers:
        """Those of modules in train mode."""
        inner = (part for module in modules for part in module.modules() if part.training)
        return cls(buffer for part in inner for buffer in part.buffers(recurse=False))

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, value in zip(self.tensors, self.values, strict=True):
            buffer.copy_(value)
