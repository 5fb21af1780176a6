"""Every loss as a function, ``clip(x, y, *, temperature=0.07, ...)``: the module's inputs, then its
options by keyword. Built from the modules' declarations; ``functional.pyi`` is generated from them
too (``python -m contrastloss.testing stubs``), so that options are written once."""

from __future__ import annotations

import inspect
from dataclasses import fields
from functools import lru_cache
from typing import Any

from torch import Tensor

from .losses import LOSSES, Loss


@lru_cache(maxsize=256, typed=True)  # True is not 1: one of them is an error
def _kept(cls: type[Loss], **options: Any) -> Loss:
    return cls(**options)


def _module(cls: type[Loss], options: dict[str, Any]) -> Loss:
    try:
        return _kept(cls, **options)
    except TypeError:  # an option that has no hash, such as a list
        return cls(**options)


def _function(name: str, cls: type[Loss]) -> Any:
    inputs = inspect.signature(cls.forward).parameters
    options = [field.name for field in fields(cls)]

    def loss(*args: Any, **kwargs: Any) -> Any:
        given = {key: kwargs.pop(key) for key in options if key in kwargs}
        spread = given.get("group") is not None
        if spread or any(isinstance(value, Tensor) for value in given.values()):
            module = cls(**given)  # not kept: it would keep a group, or a tensor and its graph
        else:
            module = _module(cls, given)
        return module(*args, **kwargs)

    parameters = [p.replace(annotation=p.annotation) for k, p in inputs.items() if k != "self"]
    declared = inspect.signature(cls).parameters
    parameters += [declared[o].replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in options]
    loss.__name__ = loss.__qualname__ = name
    loss.__doc__ = f"Functional form of :class:`contrastloss.{cls.__name__}`.\n\n{cls.__doc__}"
    loss.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    loss.__module__ = __name__
    return loss


globals().update({name: _function(name, cls) for name, cls in LOSSES.items()})
__all__ = list(LOSSES)
