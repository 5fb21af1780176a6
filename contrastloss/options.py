"""Options of losses and functions, checked by their annotations: types, ``Literal`` values and
bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import get_annotations, signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

__all__ = [
    "MOST",
    "AtLeastOne",
    "Bound",
    "Count",
    "Fitting",
    "Fraction",
    "Iterations",
    "NonNegative",
    "NonNegativeInt",
    "Positive",
    "Prior",
    "Seed",
    "Several",
    "Temperature",
    "brief",
    "check_dense",
    "checked",
    "declared",
    "shape",
    "spelled",
    "validated",
]


P = ParamSpec("P")
R = TypeVar("R")

#: the limit of counts and of batch items: products of a few of them do not overflow int64
MOST = (1 << 31) - 1


def shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def brief(value: Any) -> str:
    """A number, string, dtype or None as text, of anything else the type. Python refuses to print
    integers of several thousand digits."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return f"{value!r:.60}"
    known = value is None or isinstance(value, (Real, torch.dtype, torch.SymInt, torch.SymFloat))
    return f"{value}" if known else type(value).__name__


class Fitting(set[tuple[Any, ...]]):
    """Kinds of arguments that a check has let through, so that it need not see them again. Many of
    them are forgotten, since they may be sizes that never come back."""

    MOST = 64

    def add(self, kinds: tuple[Any, ...]) -> None:
        if len(self) >= self.MOST:
            self.clear()
        super().add(kinds)


def check_dense(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a tensor with one stride per dimension."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got a tensor of layout {value.layout}, expected a dense one")
    if value.is_nested:
        raise TypeError(f"{name}: got a nested tensor, expected a dense one")


@dataclass(frozen=True)
class Bound:
    """Which numbers fit, and how an error says so."""

    expected: str
    fits: Callable[[Any], bool]


#: of normal fp32 numbers: a temperature and its reciprocal are both of them
_LEAST, _MOST = 2.0**-126, 2.0**126

Positive = Annotated[float, Bound("a positive finite number", lambda v: 0 < v < math.inf)]
NonNegative = Annotated[float, Bound("a finite number >= 0", lambda v: 0 <= v < math.inf)]
Fraction = Annotated[float, Bound("a number from 0 to 1", lambda v: 0 <= v <= 1)]
AtLeastOne = Annotated[float, Bound("a finite number of at least 1", lambda v: 1 <= v < math.inf)]
Count = Annotated[int, Bound("an integer of at least 1", lambda v: 1 <= v <= MOST)]
Prior = Annotated[float, Bound("a number in [0, 1)", lambda v: 0 <= v < 1)]
Several = Annotated[int, Bound("an integer of at least 2", lambda v: 2 <= v <= MOST)]
NonNegativeInt = Annotated[int, Bound("an integer of at least 0", lambda v: 0 <= v <= MOST)]
#: of random numbers
Seed = Annotated[int, Bound("an integer of 63 bits", lambda v: 0 <= v < 1 << 63)]
Iterations = Annotated[int, Bound("an integer from 1 to 10000", lambda v: 1 <= v <= 10_000)]
#: or a scale of scores. The values of tensors are not checked, and have to be positive too.
Temperature = (
    Annotated[
        float,
        Bound(
            f"a positive number from {_LEAST:.4g} to {_MOST:.4g}", lambda v: _LEAST <= v <= _MOST
        ),
    ]
    | Tensor
)

_FINITE = Bound("a finite number", lambda v: -math.inf < v < math.inf)
_INTEGER = Bound(f"an integer from {-MOST} to {MOST}", lambda v: -MOST <= v <= MOST)


_DECLARED: dict[type, dict[str, Any]] = {}


def declared(cls: type) -> dict[str, Any]:
    """The annotations of a loss's options, by name."""
    if cls not in _DECLARED:
        hints: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if is_dataclass(base):
                hints |= get_annotations(base, eval_str=True)
        _DECLARED[cls] = {field.name: hints[field.name] for field in fields(cls)}
    return _DECLARED[cls]


def checked(name: str, value: Any, hint: Any, *, vector: bool = False) -> Any:
    """The value of an option as the loss keeps it: numbers of numpy become Python's, sequences
    tuples.

    Args:
        hint: its annotation.
        vector: whether a tensor may be one-dimensional, too.

    Raises:
        TypeError, ValueError: it does not fit; the message names it.
    """
    choices = _choices(hint)
    if value is None and NoneType in choices:
        return None
    if isinstance(value, Tensor):
        if Tensor not in choices and Any not in choices:
            raise TypeError(f"{name}: got a tensor, expected {_described(choices)}")
        return _tensor(name, value, vector) if Tensor in choices else value
    for choice in choices:
        if choice is Any or (_is_class(choice) and isinstance(value, choice)):
            return value
        if choice is bool and type(value).__module__ == "numpy" and value.dtype == "bool":
            return bool(value)
        elif get_origin(choice) is Literal:
            if any(
                value is fit or (type(value) is type(fit) and value == fit)
                for fit in get_args(choice)
            ):
                return value
        elif get_origin(choice) in (tuple, Sequence):
            if isinstance(value, Sequence) and not isinstance(value, str):
                return tuple([checked(name, part, get_args(choice)[0]) for part in value])
        elif choice in (int, float) or get_origin(choice) is Annotated:
            kind, bound = _number(choice)
            number = Integral if kind is int else Real
            if isinstance(value, number) and not isinstance(value, bool):
                return _fitting(name, value, kind, bound)
    expected = _described(choices)
    if isinstance(value, str) and any(get_origin(choice) is Literal for choice in choices):
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    raise TypeError(f"{name}: got {type(value).__name__}, expected {expected}")


def validated(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function by their annotations, but for tensors, which it checks
    itself."""
    names = list(signature(function).parameters)
    annotations = get_annotations(function, eval_str=True)
    hints = {k: v for k, v in annotations.items() if k != "return" and "Tensor" not in f"{v}"}

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        given = [
            checked(name, value, hints[name]) if name in hints else value
            for name, value in zip(names, args, strict=False)
        ]
        for name, value in kwargs.items():
            if name in hints:
                kwargs[name] = checked(name, value, hints[name])
        return function(*given, *args[len(names) :], **kwargs)

    return call


def _is_class(choice: Any) -> bool:
    if get_origin(choice) is not None:  # in Python 3.10, tuple[int, ...] is an instance of type
        return False
    return isinstance(choice, type) and choice not in (int, float, NoneType, Tensor)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _number(choice: Any) -> tuple[type, Bound]:
    if get_origin(choice) is Annotated:
        kind, bound = get_args(choice)
        return kind, bound
    return choice, _INTEGER if choice is int else _FINITE


def _fitting(name: str, value: Any, kind: type, bound: Bound) -> Any:
    try:
        number = kind(value)
    except OverflowError:
        number = math.inf
    if not bound.fits(number):
        raise ValueError(f"{name}: got {brief(value)}, expected {bound.expected}")
    return number


def _tensor(name: str, value: Tensor, vector: bool) -> Tensor:
    if not value.is_floating_point():
        raise TypeError(f"{name}: got a tensor of {value.dtype}, expected a floating dtype")
    check_dense(name, value)
    if value.ndim > vector:
        expected = "() or (N,)" if vector else "()"
        raise ValueError(f"{name}: got shape {shape(value)}, expected {expected}")
    return value


def _described(choices: Sequence[Any]) -> str:
    """What fits, in words."""
    words = []
    for choice in choices:
        if get_origin(choice) is Literal:
            words.append(f"one of {', '.join(map(str, get_args(choice)))}")
        elif choice is Tensor:
            words.append("a tensor")
        elif choice is NoneType:
            words.append("None")
        elif _is_class(choice):
            words.append(f"a {choice.__name__}")
        elif get_origin(choice) in (tuple, Sequence):
            integers = _number(get_args(choice)[0])[0] is int
            words.append(f"a sequence of {'integers' if integers else 'numbers'}")
        else:
            kind, bound = _number(choice)
            plain = "an integer" if kind is int else "a float"
            words.append(bound.expected if get_origin(choice) is Annotated else plain)
    return " or ".join(words)


def spelled(hint: Any) -> str:
    """An annotation as users read it, without bounds."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(spelled(part) for part in get_args(hint))
    if get_origin(hint) is Annotated:
        return get_args(hint)[0].__name__
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(hint)))}]"
    if get_origin(hint) is not None:
        inner = ", ".join("..." if part is ... else spelled(part) for part in get_args(hint))
        return f"{get_origin(hint).__name__}[{inner}]"
    return "None" if hint is NoneType else getattr(hint, "__name__", str(hint))
