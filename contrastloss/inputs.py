"""Inputs of losses and functions, checked by their declared shapes.

A shape is written as ``"N D"``: letters are sizes, the same letter the same size in all inputs of
a call. ``"..."`` stands for any leading dimensions, a number for itself, ``V>=2`` for a least size
(``D`` and ``E``, the lengths of vectors, are at least 1). A last word says which numbers fit:

    =========  =================================================================================
    (none)     embeddings: floating, of the dtype of the call's first ones
    ``float``  floating, of any of the dtypes of embeddings
    ``real``   floating, or integers
    ``int``    integers; lists, arrays of numpy and, for one dimension, (N, 1) are taken as well
    ``bool``   True and False
    =========  =================================================================================

``"N D | N V D"`` are alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .ops import autocast_dtype
from .ops.check import DTYPES, check_device, check_embeddings, check_same_dtype
from .options import check_dense, shape, validated

__all__ = ["admitted", "parsed", "takes"]

P = ParamSpec("P")
R = TypeVar("R")

_KINDS = {
    "float": "a floating dtype",
    "real": "a real one",
    "int": "an integer one that fits int64",
    "bool": "torch.bool",
}


_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool),
    *(torch.uint8, torch.uint16, torch.uint32),
)
_FITTING = {
    "float": DTYPES,
    "real": (*DTYPES, *_INTEGERS),
    "int": _INTEGERS,
    "bool": (torch.bool,),
}


@dataclass(frozen=True)
class _Shape:
    """One alternative: names of sizes, least sizes, whether there may be leading dimensions."""

    names: tuple[str, ...]
    least: tuple[int, ...]
    leading: bool
    kind: str


_PARSED: dict[str, tuple[_Shape, ...]] = {}


def parsed(text: str) -> tuple[_Shape, ...]:
    """The alternatives of a specification. A class has its own ones parsed when it is made."""
    if text not in _PARSED:
        _PARSED[text] = _parse(text)
    return _PARSED[text]


def _parse(text: str) -> tuple[_Shape, ...]:
    found = []
    for part in text.split(" | "):
        *words, kind = part.split()
        if kind not in _KINDS:
            words, kind = [*words, kind], "embeddings"
        leading = words[0] == "..."
        names, least = [], []
        for word in words[leading:]:
            name, _, bound = word.partition(">=")
            names.append(name)
            least.append(int(bound) if bound else int(name in "DE"))
        found.append(_Shape(tuple(names), tuple(least), leading, kind))
    return tuple(found)


def admitted(
    inputs: Mapping[str, str],
    optional: Container[str],
    names: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    check: Callable[[str, Tensor], None] | None = None,
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, checked, and converted where a list or an array may stand for a
    tensor.

    Args:
        inputs: specifications by name.
        optional: the names of those that may be None.
        names: of the positional arguments; a last one with a star takes the rest.
        check: a further check of floating tensors.
    """
    found, named = list(args), dict(kwargs)
    call = _Call(inputs, optional, check)
    for k, value in enumerate(args):
        name = names[min(k, len(names) - 1)]
        if name.startswith("*"):
            found[k] = call.admit(name[1:], f"{name[1:]}[{k - len(names) + 1}]", value)
        else:
            found[k] = call.admit(name, name, value)
    if kwargs:  # as declared, not as given: the first ones say how large others are
        order = list(inputs)
        for name in sorted(kwargs, key=lambda name: order.index(name) if name in inputs else 0):
            named[name] = call.admit(name, name, kwargs[name])
    return found, named


def kinds_of(args: Sequence[Any]) -> tuple[Any, ...] | None:
    """All of plain tensors that :func:`admitted` looks at; None where it may see more."""
    if torch.compiler.is_compiling() or not args:
        return None
    found: list[Any] = []
    for value in args:
        if type(value) not in (Tensor, torch.nn.Parameter) or value.is_nested:
            return None
        found += value.shape, value.dtype, value.device, value.layout
    return (autocast_dtype(found[2]), *found)


def takes(**inputs: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: check the tensors of a function by these specifications, and what else it takes
    by its annotations."""
    for spec in inputs.values():
        parsed(spec)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function).parameters
        names = list(parameters)
        optional = {name for name, p in parameters.items() if p.default is None}
        checked_function = validated(function)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            found, named = admitted(inputs, optional, names, args, kwargs)
            return checked_function(*found, **named)

        return call

    return decorate


class _Call:
    """What the inputs of one call have in common."""

    def __init__(
        self,
        inputs: Mapping[str, str],
        optional: Container[str],
        check: Callable[[str, Tensor], None] | None,
    ) -> None:
        self.inputs, self.optional, self.further = inputs, optional, check
        self.sizes: dict[str, int] = {}
        self.leading: tuple[int, ...] | None = None
        self.first: tuple[str, Tensor] | None = None
        #: the first embeddings with sizes of these names
        self.named: dict[tuple[tuple[str, ...], bool], str] = {}

    def admit(self, key: str, name: str, value: Any) -> Any:
        spec = self.inputs.get(key)
        if spec is None or (value is None and key in self.optional):
            return value
        value = self.check(name, value, spec)
        if self.further is not None and value.is_floating_point():
            self.further(name, value)
        return value

    def check(self, name: str, value: Any, spec: str) -> Tensor:
        shapes = parsed(spec)
        kinds = {found.kind for found in shapes}
        value = self._tensor(name, value, kinds)
        if kinds == {"embeddings"}:
            try:
                check_embeddings(name, value)
            except TypeError as error:
                if name != "y" or not _fits("int", value):
                    raise
                raise TypeError(f"{error}; labels are for losses such as SupConLoss") from None
            if self.first is not None:
                check_same_dtype(name, value, *self.first)
        elif not any(_fits(kind, value) for kind in kinds):
            expected = " or ".join(_KINDS[kind] for kind in sorted(kinds))
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {expected}")
        if self.first is not None:
            check_device(name, value, *self.first)
        fitting = [s for s in shapes if s.kind == "embeddings" or _fits(s.kind, value)]
        labels = all(found.names == ("N",) and found.kind == "int" for found in fitting)
        if labels and value.shape == (self.sizes.get("N"), 1):
            value = value.squeeze(1)
        if not any(self._match(found, value) for found in fitting):
            expected = self._expected(fitting)
            raise ValueError(f"{name}: got shape {shape(value)}, expected {expected}")
        if self.first is None:
            self.first = (name, value)
        if len(shapes) == 1 and shapes[0].kind == "embeddings":
            self.named.setdefault((shapes[0].names, shapes[0].leading), name)
        return value

    def _tensor(self, name: str, value: Any, kinds: set[str]) -> Tensor:
        listed = isinstance(value, (list, tuple)) or type(value).__module__ == "numpy"
        if listed and "int" in kinds and self.first is not None:
            with suppress(TypeError, ValueError, RuntimeError):  # said below
                value = torch.as_tensor(value, device=self.first[1].device)
        check_dense(name, value)
        return value

    def _match(self, found: _Shape, value: Tensor) -> bool:
        """Whether the shape fits; if so, its sizes are known from now on."""
        n, sizes = len(found.names), self.sizes
        if value.ndim < n or (value.ndim > n and not found.leading):
            return False
        own = value.shape[value.ndim - n :]
        if found.leading:
            lead = tuple(value.shape[: value.ndim - n])
            if self.leading not in (None, lead):
                return False
        for name, least, size in zip(found.names, found.least, own, strict=True):
            wanted = int(name) if name.isdigit() else sizes.get(name, size)
            if size < least or size != wanted:
                return False
        if found.leading:
            self.leading = lead
        sizes.update(zip(found.names, own, strict=True))
        return True

    def _expected(self, shapes: Sequence[_Shape]) -> str:
        words, bounds = [], []
        for found in shapes:
            parts = [str(self.sizes.get(name, name)) for name in found.names]
            if found.leading:
                known = self.leading
                parts = [*(["..."] if known is None else map(str, known)), *parts]
            words.append(f"({', '.join(parts)}{',' if len(parts) == 1 else ''})")
            for name, least in zip(found.names, found.least, strict=True):
                if least and name not in self.sizes:
                    bounds.append(f"{name} >= {least}")
        condition = f" with {', '.join(dict.fromkeys(bounds))}" if bounds else ""
        other = self.named.get((shapes[0].names, shapes[0].leading))
        whose = (
            f"{other}'{'' if other.endswith('s') else 's'} " if other and len(shapes) == 1 else ""
        )
        return f"{whose}{' or '.join(words)}{condition}"


def _fits(kind: str, value: Tensor) -> bool:
    return value.dtype in _FITTING[kind]
