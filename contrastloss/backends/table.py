"""Which backend is faster on this machine: what ``python -m contrastloss tune`` has found.

A file of times has one :class:`Entry` for each backend, machine and set of versions. Two are read,
once per process and device: the user's own, and the one of the GPU's compute capability in the
wheel, ``backends/tuned``. Nothing is checked or measured here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import torch

from ..channel import INDEX
from ..program import Program
from .call import PairCall
from .machine import Stamp, sources, stamp
from .network import SortCall

__all__ = [
    "COMMAND",
    "Entry",
    "Question",
    "Table",
    "Time",
    "of",
    "path",
    "question",
    "read",
    "readable",
    "text",
]

COMMAND = "python -m contrastloss tune"
#: what wheels bring: a file for each compute capability that was measured
SHIPPED = Path(__file__).parent / "tuned"
#: how many times faster another backend has to be than the one that serves without times
GAIN = 1.1
#: kinds of channels that need exponentials of scores in both passes
_SOFTMAX = frozenset({"LSE", "EXPECT", "MAX"})


# ---- the file ------------------------------------------------------------------------------------


class Time(NamedTuple):
    """The seconds of one forward and backward pass."""

    #: of :func:`question`
    kind: str
    symmetric: bool
    dtype: str
    rows: int
    cols: int
    dim: int
    seconds: float


class Entry(NamedTuple):
    """What is known of a backend on one machine."""

    backend: str
    checked: Stamp
    #: other than ``checked`` if the backend was checked again, but not timed
    measured: Stamp
    #: why it must not be chosen: a crash, a hang or a wrong number
    failure: str | None
    times: tuple[Time, ...]


def path() -> Path:
    """The user's file."""
    if given := os.environ.get("CONTRASTLOSS_TUNED"):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "contrastloss", "tuned.json")


def read(file: Path) -> tuple[Entry, ...]:
    """The entries of a file; none if there is no such file.

    Raises:
        ValueError: it cannot be read, or does not fit the schema; the message names the place.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    return _typed(tuple[Entry, ...], found, "entries")


def _typed(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as a NamedTuple, a tuple of them, or a plain type. Numbers are positive."""
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _unfit(where, value, "a list")
        return tuple(_typed(get_args(kind)[0], v, f"{where}[{k}]") for k, v in enumerate(value))
    if fields := getattr(kind, "_fields", None):
        if not isinstance(value, dict) or value.keys() != {*fields}:
            raise _unfit(where, value, f"an object of {', '.join(fields)}")
        hints = get_type_hints(kind)
        return kind(*(_typed(hints[name], value[name], f"{where}.{name}") for name in fields))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) not in (get_args(kind) or (kind,)):
        names = [each.__name__ for each in get_args(kind) or (kind,)]
        raise _unfit(where, value, " or ".join(names))
    if kind in (int, float) and not 0 < value < math.inf:
        raise _unfit(where, value, "a positive number")
    return value


def text(entries: Iterable[Entry]) -> str:
    """The contents of a file with these entries, one in each line."""
    lines = ",\n".join(json.dumps(_plain(entry)) for entry in entries)
    return f"[\n{lines}\n]\n"


def _plain(value: Any) -> Any:
    """NamedTuples as JSON's objects."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        values = [_plain(each) for each in value]
        return values if fields is None else dict(zip(fields, values, strict=True))
    return value


def _unfit(where: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{where}: got {value!r:.60}, expected {expected}")


def readable(file: Path) -> tuple[Entry, ...]:
    """The entries of a file; none, and a warning with its path, if it does not fit the schema."""
    try:
        return read(file)
    except ValueError as error:
        warnings.warn(f"{file} is ignored: {error}", stacklevel=2)
        return ()


# ---- what is asked -------------------------------------------------------------------------------


class Question(NamedTuple):
    """What decides which backend is faster for a call."""

    kind: str
    symmetric: bool
    dtype: str
    pairs: int
    dim: int


def question(call: PairCall | SortCall, function: str) -> Question:
    """The question that a call of an operator's forward or backward function poses. Calls of other
    operators than ``pair_stats`` have the operator's name as kind."""
    operator = function.removesuffix("_forward").removesuffix("_backward")
    if isinstance(call, SortCall):
        return Question(operator, False, _name(call.x.dtype), *call.x.shape)
    kind = _kind(call.program) if operator == "pair_stats" else operator
    x, y = call.operands[:2]
    *lead, dim = x.shape
    pairs = math.prod(lead) * (x if y is None else y).shape[-2]
    return Question(kind, y is None, _name(call.compute_dtype), pairs, dim)


@lru_cache(maxsize=4096)
def _kind(program: Program) -> str:
    """``labels`` where pairs are looked at one by one, by ids or by a second product; otherwise
    ``softmax`` or, without exponentials of scores, ``sums``."""
    if program.ids - {INDEX} or program.forms:
        return "labels"
    return "softmax" if program.features & _SOFTMAX else "sums"


@lru_cache(maxsize=32)
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- the answer ----------------------------------------------------------------------------------


class Table:
    """The times of all backends on one device. Empty, and false, where nothing is known."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = tuple(entries)
        failed = {e.backend for e in entries if e.failure is not None}
        #: backends that automatic choice leaves out; the specification always serves
        self.failed = failed - {"reference"}
        #: backends that were checked and timed
        self.timed = {e.backend for e in entries if e.times} - failed
        #: the seconds of each backend by size, (pairs, dim), for each kind of call
        self.points: dict[tuple, dict[tuple[int, int], dict[str, float]]] = {}
        for entry in entries:
            for t in entry.times:
                sizes = self.points.setdefault((t.kind, t.symmetric, t.dtype), {})
                sizes.setdefault((t.rows * t.cols, t.dim), {})[entry.backend] = t.seconds
        known = sorted((e.backend, e.failure is None, e.times) for e in entries)
        #: the same on ranks that choose the same; 0 where nothing is known
        self.digest = 0
        if known:
            word = hashlib.sha256(repr(known).encode()).digest()[:7]
            self.digest = 1 + int.from_bytes(word, "big")
        #: :meth:`fastest` of recent questions
        self.recall = lru_cache(maxsize=1024)(self.fastest)

    def __bool__(self) -> bool:
        return self.digest != 0

    def fastest(self, asked: Question, default: str, able: tuple[str, ...]) -> str:
        """Which of ``able``, all of which can serve the call, has the shortest time at the nearest
        size; ``default`` where it is hardly slower, or where there are no times."""
        sizes = {
            size: {name: times[name] for name in able if name in times}
            for size, times in self.points.get(asked[:3], {}).items()
        }
        sizes = {size: times for size, times in sizes.items() if times}
        if not sizes:
            return default
        times = sizes[min(sizes, key=lambda size: _distance(size, asked[3:]))]
        best = min(times, key=times.__getitem__)
        return best if times.get(default, math.inf) >= GAIN * times[best] else default


def _distance(size: Sequence[int], other: Sequence[int]) -> float:
    """Of two sizes, in log scale."""
    pairs = zip(size, other, strict=True)
    return math.hypot(*[math.log(max(a, 1) / max(b, 1)) for a, b in pairs])


# ---- the table of a device -----------------------------------------------------------------------

_TABLES: dict[torch.device, Table] = {}


def of(device: torch.device) -> Table:
    """What is known of a device."""
    found = _TABLES.get(device)
    if found is None:
        found = _TABLES[device] = Table(_entries(device))
    return found


def _entries(device: torch.device) -> list[Entry]:
    """The user's entries for a device, else those of the wheel."""
    file = path()
    entries = readable(file)
    now = {e.backend: stamp(device, e.backend) for e in entries}
    here = {e.backend: e for e in entries if e.checked[:3] == now[e.backend][:3]}
    found = {e.backend: e for e in entries if e.checked == now[e.backend]}
    old = {name: e.checked.differences(now[name]) for name, e in here.items() if name not in found}
    if old:
        _warn(file, f"does not serve, as it was written with {_listed(old)}", "--check-only")
    old = {name: e.measured.differences(now[name]) for name, e in found.items()}
    if old := {name: what for name, what in old.items() if what}:
        _warn(file, f"serves with times that were measured with {_listed(old)}", "")
    return [*found.values()] or _shipped(device)


def _listed(differences: dict[str, str]) -> str:
    """What differs, with the backends that it concerns."""
    names: dict[str, list[str]] = {}
    for name, what in differences.items():
        names.setdefault(what, []).append(name)
    return "; ".join(f"{what} ({', '.join(who)})" for what, who in names.items())


def _warn(file: Path, what: str, option: str) -> None:
    warnings.warn(f"{file} {what}: run `{f'{COMMAND} {option}'.strip()}`", stacklevel=2)


def _shipped(device: torch.device) -> list[Entry]:
    """The wheel's entries for a GPU's capability, as far as the code is what was measured."""
    if device.type != "cuda":
        return []
    capability = stamp(device, "reference").capability
    entries = readable(SHIPPED / f"{capability}.json")
    return [e for e in entries if e.checked.sources == sources(e.backend)]
