"""A loss as a function: a module for the options of the call, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...options import declared
from .loss import LOSSES, Loss

__all__ = ["evaluate"]


def evaluate(
    name: str, inputs: Sequence[Any], named: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """The value of a loss.

    Args:
        name: its name in ``LOSSES``.
        inputs, named: the arguments of its ``forward``.
        options: all of its options.
    """
    default = _DEFAULTS[name]
    given = {key: v for key, v in options.items() if v is not _VALUES[name][key]}
    if torch.compiler.is_compiling():
        numbers = {key: float(text) for key, text in _NUMBERS[name].items()}
        given |= {key: v for key, v in numbers.items() if given.get(key, v) == v}
        return _with_options(default, given, inputs, named)
    if given.get("group") is not None or any(isinstance(v, Tensor) for v in given.values()):
        # not kept: it would keep a group alive, or a tensor and its graph
        return type(default)(**given)(*inputs, **named)
    # checked first: True is not 1, although both have one hash, and a list has none
    fitting = {key: default.fitting(key, value) for key, value in given.items()}
    module = _kept(name, tuple(fitting.items())) if fitting else default
    return module(*inputs, **named)


@lru_cache(maxsize=256)
def _kept(name: str, options: tuple[tuple[str, Any], ...]) -> Loss:
    return LOSSES[name](**dict(options))


def _with_options(
    module: Loss, options: Mapping[str, Any], inputs: Sequence[Any], named: Mapping[str, Any]
) -> Any:
    """The same where a compiler traces, which can make no module: the default one takes the options
    for the time of the call. Numbers may be variables of the graph."""
    own = [key for key in options if key in type(module).OWN]
    changed = [*options, *(module.prepared if own else ())]
    before = [module.__dict__[key] for key in changed]
    try:
        for key, value in options.items():
            object.__setattr__(module, key, module.fitting(key, value))
        if own:
            module.check()
            module.prepare()
        return module(*inputs, **named)
    finally:
        for key, value in zip(changed, before, strict=True):
            object.__setattr__(module, key, value)


_DEFAULTS = {name: cls() for name, cls in LOSSES.items()}
_VALUES = {
    name: {option: getattr(loss, option) for option in declared(type(loss))}
    for name, loss in _DEFAULTS.items()
}
#: the class's own numbers as texts: a compiler takes numbers for variables, and no channel is made
#: of these
_NUMBERS = {
    name: {k: repr(v) for k, v in _VALUES[name].items() if k in loss.OWN and type(v) is float}
    for name, loss in _DEFAULTS.items()
}
