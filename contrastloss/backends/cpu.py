"""The C++ backend, ``csrc/cpu``: one tile of scores at a time, vectorised and threaded."""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .call import NAMES, NATIVE, Gradients, PairCall, mask
from .network import SORT, SortCall
from .topk import SELECTION, Selection

__all__ = [
    "DECLINES",
    "OPEN",
    "gather_scores_backward",
    "gather_scores_forward",
    "missing",
    "pair_loss",
    "pair_stats_backward",
    "pair_stats_forward",
    "pair_topk",
    "scale",
    "sort_network_backward",
    "sort_network_forward",
    "strip",
    "why_not",
]

#: features that this backend does not support
DECLINES: frozenset[str] = frozenset()
#: whether it serves without times of ``python -m contrastloss tune``
OPEN = True

#: the instruction set to use, one of :func:`instruction_sets`; None means the best one
ISA = os.environ.get("CONTRASTLOSS_ISA")

_PYTHON: Any
try:
    _PYTHON = importlib.import_module("contrastloss._C")
except ImportError:  # then signals are handled only after an operator has returned
    _PYTHON = None

_LIBRARY = Path(__file__).parent.parent / "_cpu.so"
_CALL = f"{NATIVE}, ScalarType compute, int isa"
torch.library.define("contrastloss::cpu_forward", f"({_CALL}) -> Tensor[]")
torch.library.define(
    "contrastloss::cpu_backward",
    f"({_CALL}, Tensor[] outputs, Tensor[] grads, int live, int needs) -> Tensor[]",
)
torch.library.define(
    "contrastloss::cpu_pair_loss",
    f"({_CALL}, int strip, Tensor parts, Tensor weights, Tensor? row_weight, float divisor,"
    " int needs) -> Tensor[]",
)
torch.library.define("contrastloss::cpu_scale", "(Tensor grad, Tensor(a!)[] units) -> ()")
torch.library.define("contrastloss::cpu_topk", f"({_CALL}, {SELECTION}) -> Tensor[]")
_SORT = f"{SORT}, int isa"
torch.library.define("contrastloss::cpu_sort", f"({_SORT}) -> Tensor[]")
torch.library.define(
    "contrastloss::cpu_sort_backward",
    f"({_SORT}, Tensor grad_sorted, Tensor grad_mass, int needs) -> Tensor[]",
)
torch.library.define("contrastloss::cpu_gather", f"({_CALL}, Tensor index) -> Tensor")
torch.library.define(
    "contrastloss::cpu_gather_backward",
    f"({_CALL}, Tensor index, Tensor grad, int needs) -> Tensor[]",
)


@lru_cache(maxsize=1)
def missing() -> str | None:
    if not _LIBRARY.exists():
        return "the package was built without its native library"
    try:
        torch.ops.load_library(str(_LIBRARY))
    except OSError as error:
        return f"its native library does not load: {error}"
    if _PYTHON is not None:
        handlers = ctypes.c_void_p(_PYTHON.signal_handlers())
        ctypes.CDLL(str(_LIBRARY)).contrastloss_cpu_signals(handlers)
    return None


def _run(operator: Callable[..., Any], *operands: Any) -> Any:
    """An operator's result. A signal whose handler raises, such as Ctrl-C, ends the operator
    between two tiles; then the handler's exception is raised instead of the operator's."""
    try:
        return operator(*operands)
    except RuntimeError:
        if _PYTHON is not None:
            _PYTHON.raise_from_handler()
        raise


def why_not(call: PairCall) -> str | None:
    if call.x.device.type != "cpu":
        return f"the tensors are on {call.x.device}"
    declined = call.features & DECLINES if DECLINES else ()
    return f"it does not serve {', '.join(sorted(declined))}" if declined else None


@lru_cache(maxsize=1)
def instruction_sets() -> tuple[str, ...]:
    """Those of this CPU that the library has code for, best first; none without the library."""
    if missing() is not None:
        return ()
    name = ctypes.CDLL(str(_LIBRARY)).contrastloss_cpu_isa
    name.restype = ctypes.c_char_p
    return tuple([found.decode() for found in takewhile(bool, map(name, count()))])


def _level() -> int:
    if ISA is None:
        return -1
    present = instruction_sets()
    if ISA not in present:
        expected = f"one of {', '.join(present)}, which this CPU has"
        raise ValueError(f"CONTRASTLOSS_ISA: got {ISA!r}, expected {expected}")
    return present.index(ISA)


def _arguments(call: PairCall) -> tuple:
    return (*call.native(), call.compute_dtype, _level())


# ---- the operators ------------------------------------------------------------------------------


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each."""
    return _run(torch.ops.contrastloss.cpu_forward, *_arguments(call))


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~.call.NAMES`), and those of all shifts."""
    found = _run(
        torch.ops.contrastloss.cpu_backward,
        *_arguments(call),
        [o.contiguous() for o in outputs],
        [g.contiguous() for g in grads if g is not None],
        mask([g is not None for g in grads]),
        mask([name in needs for name in NAMES]),
    )
    return _gradients(call, found, needs)


#: the most bytes of products that are kept, and of the rows' gradients that threads have
_KEPT, _GRADIENTS = 16 << 20, 64 << 20
#: rows with more features than these are multiplied some features at a time, if products are kept
_LONG = 1024


def strip(call: PairCall, sums: bool) -> int | None:
    """How many rows at a time :func:`pair_loss` takes, whose products are kept; None where two
    passes are as fast. 0: nothing is kept, since the losses are sums of terms of pairs (``sums``),
    and rows are short."""
    x, y = call.operands[:2]
    m, n = x.shape[0], (x if y is None else y).shape[0]
    if x.ndim != 2 or not m * n:
        return None
    otherwise = 0 if sums else None
    if sums and (x.shape[1] <= _LONG or any(call.program.shifts.values())):
        return 0
    size = 8 if x.dtype == torch.float64 else 4
    # a thread has at least 32 columns; one adds to the result, unless rows are columns, too
    chunks = min(torch.get_num_threads(), -(-n // 32))
    held = chunks if y is None else max(chunks - 1, 1)
    most = _GRADIENTS // (held * x.shape[1] * size)
    if y is None:  # two passes take half of the products
        return m if m <= min(512, most) else otherwise
    if m * n <= 512 * 512 and m <= most:
        return m
    rows = min(_KEPT // (n * size), most) // 32 * 32
    if call.program.columns:  # a product of short rows takes no longer than its scores' way
        return m if m <= rows and x.shape[1] >= 256 else otherwise
    return min(384, rows) if rows >= 64 else otherwise


def pair_loss(
    call: PairCall,
    rows: int,
    parts: tuple[Tensor, Tensor],
    row_weight: Tensor | None,
    divisor: float,
    needs: int,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The sum of the rows' losses, divided, the values of the channels, and the sum's gradients by
    the operands marked in ``needs`` and by all shifts, in the statistics' dtype; ``rows`` at a
    time."""
    arguments = *_arguments(call), rows, *parts, row_weight, divisor, needs
    loss, *found = _run(torch.ops.contrastloss.cpu_pair_loss, *arguments)
    count = len(found) - needs.bit_count() - sum(map(len, call.program.shifts.values()))
    return loss, found[:count], found[count:]


def scale(grad: Tensor, units: Sequence[Tensor]) -> None:
    """Multiplies the gradients that :func:`pair_loss` found by that of the loss, in place."""
    _run(torch.ops.contrastloss.cpu_scale, grad, units)


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """The k best of every row, (B, M, k): their scores, or keys if sampled, and their columns."""
    values, index = _run(torch.ops.contrastloss.cpu_topk, *_arguments(call), *selection.native())
    return values, index


def gather_scores_forward(call: PairCall, index: Tensor) -> Tensor:
    """The scores of every row with the columns in its row of ``index``, (B, M, K)."""
    return _run(torch.ops.contrastloss.cpu_gather, *_arguments(call), index.contiguous())


def gather_scores_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~.call.NAMES`)."""
    found = _run(
        torch.ops.contrastloss.cpu_gather_backward,
        *_arguments(call),
        index.contiguous(),
        grad.contiguous(),
        mask([name in needs for name in NAMES]),
    )
    return _gradients(call, found, needs)


def _sort_arguments(call: SortCall) -> tuple:
    return (*call.native(), _level())


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    values, mass = _run(torch.ops.contrastloss.cpu_sort, *_sort_arguments(call))
    return values, mass


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, t and steepness; None where ``needs`` is false."""
    found = _run(
        torch.ops.contrastloss.cpu_sort_backward,
        *_sort_arguments(call),
        grad_sorted.contiguous(),
        grad_mass.contiguous(),
        mask(needs),
    )
    rest = iter(found)
    return tuple(next(rest) if need else None for need in needs)


def _gradients(call: PairCall, found: Sequence[Tensor], needs: frozenset[str]) -> Gradients:
    """An operator's gradients; those of x and y get the dtype of x."""
    result = call.gradients(found, needs)
    if call.x.dtype == call.stat_dtype:
        return result
    x, y = (v if v is None else v.to(call.x.dtype) for v in result[:2])
    return result._replace(x=x, y=y)
