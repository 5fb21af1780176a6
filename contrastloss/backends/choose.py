"""The table that chooses a backend, and the reasons why another one was not chosen."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import cpu, cuda, reference, triton
from .call import PairCall
from .network import SortCall

__all__ = ["BACKENDS", "available", "choose"]

Call = PairCall | SortCall

#: In order of preference. Each backend has ``missing() -> str | None`` (why this machine lacks it),
#: ``why_not(call) -> str | None`` (why it cannot serve a call), ``slow(call) -> bool`` (whether the
#: next backend was measured to be faster) and the operators' forward and backward functions.
BACKENDS: dict[str, ModuleType] = {
    "cpu": cpu,
    "cuda": cuda,
    "triton": triton,
    "reference": reference,
}


def available() -> dict[str, str | None]:
    """Every backend's name, with None if it is present or the reason why it is missing."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}


def _reason(backend: ModuleType, function: str, call: Call) -> str | None:
    if not hasattr(backend, function):
        return f"it does not have {function}"
    return backend.missing() or backend.why_not(call)


def choose(call: Call, function: str, name: str | None = None) -> Callable[..., Any]:
    """``function`` of the backend called ``name``, or of the first backend that can serve ``call``.

    Raises:
        ValueError: ``name`` is unknown.
        RuntimeError: the named backend cannot serve the call; with the reason.
    """
    if name is None:
        serving = (b for b in BACKENDS.values() if _reason(b, function, call) is None)
        return getattr(next((b for b in serving if not b.slow(call)), reference), function)
    if name not in BACKENDS:
        raise ValueError(f"backend: got {name!r}, expected None or one of {', '.join(BACKENDS)}")
    reason = _reason(BACKENDS[name], function, call)
    if reason is not None:
        raise RuntimeError(f"backend: {name!r} cannot serve this call: {reason}")
    return getattr(BACKENDS[name], function)
