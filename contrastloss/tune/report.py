"""What the command prints at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table as Printed

from ..backends.choose import BACKENDS
from ..backends.machine import Stamp
from ..backends.table import Entry, Question, Table, Time
from ..bench.results import SHORT, times
from ..bench.tables import blank

__all__ = ["Outcome", "report"]


@dataclass
class Outcome:
    """What is known of a backend after its process has ended."""

    backend: str
    #: why it is missing
    absent: str | None = None
    stamp: Stamp | None = None
    #: of cases that it serves
    checks: int = 0
    times: list[Time] = field(default_factory=list)
    failure: str | None = None


def report(outcomes: Sequence[Outcome], entries: Sequence[Entry]) -> Iterator[Printed | str]:
    """A line for each backend, and the times of those that were timed, with the one that serves."""
    for found in outcomes:
        yield f"{found.backend}: {_word(found)}"
    measured = {e.backend: {t[:-1]: t.seconds for t in e.times} for e in entries if e.times}
    cases = dict.fromkeys(case for known in measured.values() for case in known)
    if not cases:
        return
    yield ""
    known, printed = Table(entries), blank("", *measured, "serves")
    for case in cases:
        seconds = {name: found[case] for name, found in measured.items() if case in found}
        default = next((name for name in BACKENDS if name in seconds and BACKENDS[name].OPEN), "")
        kind, symmetric, dtype, rows, cols, dim = case
        asked = Question(kind, symmetric, dtype, rows * cols, dim)
        printed.add_row(
            f"{kind}{', with itself' if symmetric else ''}, {rows:,} x {dim}, {SHORT[dtype]}",
            *(times(seconds[name]) if name in seconds else "" for name in measured),
            known.fastest(asked, default, tuple(seconds)),
        )
    yield printed


def _word(found: Outcome) -> str:
    if found.absent:
        return f"missing: {found.absent}"
    if found.failure:
        return f"FAILED, and is not chosen: {found.failure}"
    if not found.checks:
        return "does not serve this device"
    return f"{found.checks} checks passed, {len(found.times)} times"
