"""The table of backends."""

from __future__ import annotations

from . import cpu, cuda, reference, triton
from .call import BACKENDS, choose

__all__ = ["BACKENDS", "available", "choose"]

#: In order of preference. Each backend has ``missing() -> str | None`` (why this machine lacks it),
#: ``why_not(call) -> str | None`` (why it cannot serve a call), ``slow(call) -> bool`` (whether the
#: next backend was measured to be faster) and the operators' forward and backward functions.
BACKENDS.update(cpu=cpu, cuda=cuda, triton=triton, reference=reference)


def available() -> dict[str, str | None]:
    """Every backend's name, with None if it is present or the reason why it is missing."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}
