"""Checks of operands. Every message names the argument, what it got and what was expected."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import NAMES, Operands, PairCall, autocast_dtype, stat_dtype
from ..backends.constant import constant
from ..channel import COL, INDEX, ROW, Axis, Channel
from ..options import MOST, brief, check_dense, shape
from ..program import Program

__all__ = [
    "as_float",
    "check_broadcast",
    "check_channels",
    "check_count",
    "check_device",
    "check_devices",
    "check_embeddings",
    "check_flag",
    "check_order",
    "check_range",
    "check_same_dtype",
    "checked_call",
    "checks_values",
    "is_number",
    "named_operands",
    "no_transforms",
    "plain",
    "scalar",
]

_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
#: the limit of values per call: one signed integer holds a bit for each value with a gradient
MOST_VALUES = 63
_VECTORS = NAMES[2:]


def is_number(value: Any) -> bool:
    """Also one that an exported graph keeps variable; True is none."""
    return type(value) is not bool and isinstance(value, _NUMBERS)


def as_float(name: str, value: float) -> float:
    """A Python number as a float; an integer may be too large for one."""
    try:
        number = float(value)
    except OverflowError:
        got = brief(value)
        raise ValueError(f"{name}: got {got}, expected a number that fits into a float") from None
    if math.isnan(number):
        raise ValueError(f"{name}: got nan, expected a number")
    return number


def scalar(name: str, value: Any, like: Tensor) -> Tensor:
    """A number as a 0-dim tensor, with the device and the statistics' dtype of ``like``."""
    if torch.compiler.is_compiling():  # one graph serves all numbers: a product keeps them variable
        return torch.ones((), dtype=stat_dtype(like), device=like.device) * value
    number = as_float(name, value)
    if number and like.device.type == "cpu" and plain(like):  # zeros of both signs are equal
        return _number(number, stat_dtype(like))
    return torch.full((), number, dtype=stat_dtype(like), device=like.device)


@lru_cache(maxsize=256)
def _number(value: float, dtype: torch.dtype) -> Tensor:
    return constant(value, dtype)


def check_count(name: str, value: Any, least: int = 1, most: int = MOST) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected an integer")
    if value < least:
        raise ValueError(f"{name}: got {brief(value)}, expected at least {least}")
    if value > most:
        raise ValueError(f"{name}: got {brief(value)}, expected at most {most}")


def check_embeddings(name: str, value: Tensor, like: tuple[str, Tensor] | None = None) -> None:
    """A dense floating tensor; with ``like``, it has that tensor's dtype and device."""
    if type(value).__name__ == "DTensor":
        raise TypeError(f"{name}: got a DTensor, expected a local tensor: pass {name}.to_local()")
    check_dense(name, value)
    if value.dtype not in DTYPES:
        raise TypeError(f"{name}: got dtype {value.dtype}, expected one of {_names(DTYPES)}")
    if like is not None:
        other, tensor = like
        if value.dtype != tensor.dtype:
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {other}'s {tensor.dtype}")
        check_device(name, value, other, tensor)


def check_device(name: str, value: Tensor, other: str, tensor: Tensor) -> None:
    if value.device != tensor.device:
        raise ValueError(f"{name}: got device {value.device}, expected {other}'s {tensor.device}")


def check_same_dtype(name: str, value: Tensor, other: str, tensor: Tensor) -> None:
    """Equal dtypes; under autocast low precision and fp32 may meet, as in torch.matmul."""
    if value.dtype == tensor.dtype:
        return
    if autocast_dtype(tensor.device) is None or torch.float64 in (value.dtype, tensor.dtype):
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {other}'s {tensor.dtype}")


def checks_values(of: Tensor) -> bool:
    """Whether an error may depend on the values of a tensor. On devices other than a CPU this
    needs a host synchronisation, so it is done only with ``CONTRASTLOSS_DEBUG=1``."""
    if torch.compiler.is_compiling():
        return False
    return of.device.type == "cpu" or os.environ.get("CONTRASTLOSS_DEBUG") == "1"


def check_range(name: str, value: Tensor, least: int, most: int, what: str) -> None:
    """Integers lie between two bounds. Checked only if :func:`checks_values`."""
    if not checks_values(value) or not value.numel():
        return
    low, high = (int(v) for v in value.aminmax())
    if low < least or high > most:
        worst = low if low < least else high
        raise ValueError(f"{name}: got {worst}, expected {least} to {most}, {what}")


def check_order(x: Tensor) -> None:
    """No value is NaN. Checked only if :func:`checks_values`."""
    if checks_values(x) and x.isnan().any():
        raise ValueError("x: got NaN, expected numbers that can be sorted")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(d).removeprefix("torch.") for d in dtypes)


def check_flag(name: str, value: Any) -> None:
    if value is not True and value is not False:
        raise TypeError(f"{name}: got {type(value).__name__}, expected a bool")


def named_operands(rows: Any, cols: Any, symmetric: bool) -> tuple[Mapping, Mapping]:
    """The vectors that channels use by name, of rows and of columns. Columns that are the rows have
    theirs by default."""
    for axis, values in (("rows", rows), ("cols", cols)):
        if values is not None and type(values) is not dict and not isinstance(values, Mapping):
            got = type(values).__name__
            raise TypeError(f"{axis}: got {got}, expected a mapping from names to tensors")
    rows = rows or {}
    return rows, rows if cols is None and symmetric else cols or {}


def check_channels(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    if not isinstance(channels, Sequence):
        got = type(channels).__name__
        raise TypeError(f"channels: got {got}, expected a sequence of channels")
    found = tuple(channels)
    if not found:
        raise ValueError("channels: got none, expected at least one")
    for channel in found:
        if not isinstance(channel, Channel):
            raise TypeError(f"channels: got {channel!r}, expected channels")
    values = sum([len(channel.returns) for channel in found])
    if values > MOST_VALUES:
        raise ValueError(f"channels: got {values} values, expected at most {MOST_VALUES} per call")
    return found


def no_transforms(operator: str) -> None:
    """Refuse torch.func: vmap has no batching rule here, and forward mode would silently drop the
    tangent."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack():
        raise RuntimeError(
            f"{operator}: torch.func transforms (vmap, grad, jvp, ...) are not supported; "
            "use leading batch dimensions for vmap, torch.autograd for derivatives"
        )


def plain(x: Tensor) -> bool:
    """Whether nothing but autograd intercepts this call. If so, the Function is called directly,
    which saves the 100 us of torch.library's Python layers: as much as a small loss takes."""
    return not (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or x.is_meta
        or torch._C._len_torch_dispatch_stack()
    )


def checked_call(
    operands: Operands,
    program: Program,
    cosine: bool,
    compute_dtype: torch.dtype | None,
    backend: str | None,
    extra: frozenset[str] = frozenset(),
) -> PairCall:
    """The call of these operands, of which ``scale`` may be a number. The default of
    ``compute_dtype`` is the dtype of a matmul of x, autocast included.

    Checks all requirements of :func:`~contrastloss.ops.pair_stats`. Operands with a name in
    ``extra`` are allowed even if no channel uses them.
    """
    x, _, scale = operands[:3]
    check_flag("cosine", cosine)
    kinds = None if extra else _kinds_of(operands)
    if kinds is None or kinds not in program.fitting:
        _check_operands(operands, program, extra)
        if kinds is not None:
            program.fitting.add(kinds)
    if compute_dtype is None:
        compute_dtype = _product_dtype(x)
    elif not isinstance(compute_dtype, torch.dtype) or compute_dtype not in DTYPES:
        raise TypeError(
            f"compute_dtype: got {brief(compute_dtype)}, expected one of {_names(DTYPES)}"
        )
    if is_number(scale):
        operands = operands._replace(scale=scalar("scale", scale, x))
    return PairCall(operands, program, cosine, compute_dtype, backend)


def _product_dtype(x: Tensor) -> torch.dtype:
    return (autocast_dtype(x.device) if x.dtype == torch.float32 else None) or x.dtype


def _kinds_of(operands: Operands) -> tuple | None:
    """All of plain tensors that :func:`_check_operands` looks at; None where it may see more."""
    if torch.compiler.is_compiling():
        return None
    found: list[Any] = []
    for value in operands.flat():
        if value is None or type(value) is float:
            found.append(type(value))
        elif type(value) not in (Tensor, torch.nn.Parameter) or value.is_nested:
            return None
        else:
            found += value.shape, value.dtype, value.device, value.layout, value.requires_grad
    return tuple(found)


def _check_operands(operands: Operands, program: Program, extra: frozenset[str]) -> None:
    x, y, *vectors, rows, cols = operands
    check_embeddings("x", x)
    size = x.shape
    if len(size) < 2:
        raise ValueError(f"x: got shape {shape(x)}, expected (..., M, D)")
    if size[-1] < 1:
        raise ValueError(f"x: got shape {shape(x)}, expected at least one feature")
    # items without rows take no memory, so a shape may have any number of them
    if len(size) > 2 and not torch.compiler.is_compiling() and math.prod(size[:-2]) > MOST:
        raise ValueError(f"x: got shape {shape(x)}, expected at most {MOST} items of (M, D)")
    if y is not None:
        check_embeddings("y", y, ("x", x))
        if y.ndim != len(size) or y.shape[-1] != size[-1] or y.shape[:-2] != size[:-2]:
            expected = f"({', '.join(map(str, (*size[:-2], 'N', size[-1])))})"
            raise ValueError(f"y: got shape {shape(y)}, expected {expected} as x {shape(x)}")
    lengths = {ROW: size[-2], COL: (x if y is None else y).shape[-2]}
    for name, value in zip(_VECTORS, vectors, strict=True):
        if value is not None:
            _check_vector(name, value, x, None if name == "scale" else lengths[name[:3]])  # type: ignore[index]
    for axis, names, values in ((ROW, program.rows, rows), (COL, program.cols, cols)):
        for name, value in zip(names, values, strict=True):
            _check_operand(axis, name, value, x, lengths[axis], program)
    _check_names(program, extra)
    for name in program.forms:
        m, n = rows[program.rows.index(name)], cols[program.cols.index(name)]
        if m.shape[-1] != n.shape[-1]:
            expected = f"(..., {m.shape[-1]}) as rows"
            raise ValueError(f"cols[{name!r}]: got shape {shape(n)}, expected {expected}")


def check_devices(call: PairCall, **others: Tensor | None) -> None:
    """All operands are on x's device. A real call checks this in its dispatch; a fake one only
    allocates its results, and has to check it here."""
    *tensors, rows, cols = call.operands
    operands = {name: v for name, v in zip(NAMES, tensors, strict=True) if name != "scale"}
    operands |= {f"rows[{k}]": v for k, v in enumerate(rows)}
    operands |= {f"cols[{k}]": v for k, v in enumerate(cols)}
    for name, value in {**operands, **others}.items():
        if value is not None:
            check_device(name, value, "x", call.x)


def _check_vector(name: str, value: Any, x: Tensor, length: int | None) -> None:
    if name == "scale" and is_number(value):
        return
    check_dense(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected a floating one")
    if length is None:
        if value.ndim:
            raise ValueError(f"{name}: got shape {shape(value)}, expected a 0-dim tensor")
        if value.device != x.device and value.device.type != "cpu":
            raise ValueError(f"{name}: got device {value.device}, expected x's {x.device}")
        return
    check_device(name, value, "x", x)
    check_broadcast(name, value, (*x.shape[:-2], length))


def check_broadcast(name: str, value: Tensor, target: tuple[int, ...]) -> None:
    # lengths first: compared with another length, a variable size is never the same for all
    if value.ndim == len(target) and value.shape == target:
        return
    fits = value.ndim <= len(target) and all(
        have in (1, want) for have, want in zip(value.shape[::-1], target[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"{name}: got shape {shape(value)}, expected one that expands to {target}")


def _check_operand(
    axis: Axis, name: str, value: Tensor, x: Tensor, length: int, program: Program
) -> None:
    label = f"{axis}s[{name!r}]"
    check_dense(label, value)
    check_device(label, value, "x", x)
    if name in program.forms:
        if not value.is_floating_point() or value.ndim < 2:
            raise TypeError(
                f"{label}: got {value.dtype} {shape(value)}, expected floating (..., E)"
            )
        check_broadcast(label, value, (*x.shape[:-2], length, value.shape[-1]))
    else:
        check_broadcast(label, value, (*x.shape[:-2], length))
    if name in program.ids and (value.is_floating_point() or value.is_complex()):
        raise TypeError(f"{label}: got dtype {value.dtype}, expected an integer dtype for an id")
    if name in program.ids and value.dtype == torch.uint64:
        raise TypeError(f"{label}: got dtype {value.dtype}, expected one whose values fit in int64")
    if value.requires_grad and name in program.fixed[axis]:
        raise ValueError(
            f"{label}: got a tensor that requires grad, expected a detached one: "
            "ids, labels, log-weights and forms carry no gradient"
        )


def _check_names(program: Program, extra: frozenset[str]) -> None:
    """Every name that a channel uses is an operand of each axis that needs it."""
    for axis, given in ((ROW, program.rows), (COL, program.cols)):
        for name in program.called[axis]:
            position = name == INDEX and name not in program.forms and name in program.ids
            if name not in given and not position:
                raise ValueError(f"{axis}s: got {sorted(given)}, expected {name!r} among them")
        for name in given:
            if name not in program.called[ROW] | program.called[COL] | extra:
                raise ValueError(f"{axis}s: got {name!r}, expected only names that channels use")
