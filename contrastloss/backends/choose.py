"""The table of backends, and which of them serves a call."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from . import cpu, cuda, reference, table, triton
from .call import autocast_dtype, without_autocast

__all__ = ["BACKENDS", "available", "choose", "preference", "run", "serving"]

#: In order of preference. Each backend has ``missing() -> str | None`` (why this machine lacks it),
#: ``why_not(call) -> str | None`` (why it cannot serve a call), ``OPEN`` (whether it serves without
#: times of ``python -m contrastloss tune``) and the operators' forward and backward functions.
BACKENDS: dict[str, ModuleType] = {
    "cpu": cpu,
    "cuda": cuda,
    "triton": triton,
    "reference": reference,
}
#: the backend of all calls that name none
FORCED = os.environ.get("CONTRASTLOSS_BACKEND") or None

_LOG = logging.getLogger("contrastloss.backends")
#: types of devices of which the log has said that a backend waits for its times
_SAID: set[str] = set()


def available() -> dict[str, str | None]:
    """Every backend's name, with None if it is present or the reason why it is missing."""
    return {name: backend.missing() for name, backend in BACKENDS.items()}


def _reason(backend: ModuleType, function: str, call: Any) -> str | None:
    if not hasattr(backend, function):
        return f"it does not have {function}"
    return backend.missing() or backend.why_not(call)


def choose(call: Any, function: str, name: str | None = None) -> Callable[..., Any]:
    """``function`` of the backend that :func:`serving` chooses."""
    return getattr(serving(call, function, name), function)


def serving(call: Any, function: str, name: str | None = None) -> ModuleType:
    """The backend called ``name``, or the one that is to serve ``call``, a PairCall or a SortCall,
    with ``function``.

    Raises:
        ValueError: ``name`` is unknown.
        RuntimeError: the named backend cannot serve the call; with the reason.
    """
    given = "backend"
    if name is None:
        if FORCED is None:
            return BACKENDS[_automatic(call, function)]
        name, given = FORCED, "CONTRASTLOSS_BACKEND"
    if not isinstance(name, str) or name not in BACKENDS:
        got = repr(name) if isinstance(name, str) else type(name).__name__
        raise ValueError(f"{given}: got {got}, expected None or one of {', '.join(BACKENDS)}")
    reason = _reason(BACKENDS[name], function, call)
    if reason is not None:
        raise RuntimeError(f"{given}: {name!r} cannot serve this call: {reason}")
    return BACKENDS[name]


def _automatic(call: Any, function: str) -> str:
    """The first open backend that can serve the call, or a faster one that was checked and timed on
    this device."""
    known = table.of(call.x.device)
    default, able, closed = None, [], False
    for name, backend in BACKENDS.items():
        if name in known.failed:
            continue
        if not backend.OPEN and name not in known.timed:
            closed = True
        elif _reason(backend, function, call) is None:
            able.append(name)
            if backend.OPEN and default is None:
                default = name
                if not known:
                    break
    default = default or "reference"
    if len(able) > 1:
        return known.recall(table.question(call, function), default, tuple(able))
    if closed and default == "reference" and call.x.device.type not in _SAID:
        _say(call, function)
    return default


def preference(device: torch.device | None) -> int:
    """A number that is the same on ranks where automatic choice prefers the same backends; 0 where
    nothing was forced or timed."""
    if FORCED is not None:
        return 1 + [*BACKENDS].index(FORCED) if FORCED in BACKENDS else 0
    return 0 if device is None else table.of(device).digest


def _say(call: Any, function: str) -> None:
    """Logs that a faster backend may be there, once for each type of device."""
    waiting = [
        name
        for name, backend in BACKENDS.items()
        if not backend.OPEN and _reason(backend, function, call) is None
    ]
    if waiting:
        _SAID.add(call.x.device.type)
        _LOG.warning(
            "%s on %s: the reference backend serves; run `%s`, which checks and times %s",
            *(function, call.x.device, table.COMMAND, " and ".join(waiting)),
        )


def run(call: Any, function: str, *args: Any) -> Any:
    """The result of ``function`` of the backend that serves ``call``. Autocast is off: backends
    choose their dtypes themselves."""
    chosen = choose(call, function, call.backend)
    if autocast_dtype(call.x.device) is None:
        return chosen(call, *args)
    with without_autocast(call.x.device):
        return chosen(call, *args)
