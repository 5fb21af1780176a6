"""The tables that the command prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from .peers import DENSE, OURS
from .results import Results, machine, percent, times, title
from .timing import GEMM

__all__ = [
    "CONDITIONS",
    "blank",
    "compared",
    "differences",
    "measured",
    "over_dense",
    "programs",
    "refused",
]

#: of the machine: what times depend on
CONDITIONS = (
    *("device", "processor", "instructions", "gpu", "threads", "system"),
    *("python", "torch", "contrastloss", "backends"),
)


def blank(*head: str) -> Table:
    """An empty table whose first column is text and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left", overflow="fold")
    return table


def programs(info: dict[str, Any]) -> list[str]:
    """Those that were timed, ours first."""
    return [OURS, *(name for name in info["times"] if name not in (OURS, GEMM))]


def measured(results: Results) -> Iterator[Table | str]:
    """A table with a line for each program of each case, and what it does not say itself."""
    yield machine(results)
    yield f"backends: {', '.join(results.machine['backends'])}\n"
    table = blank("", "time", "/ ours", "GEMM", "error")
    for _, info in results.named:
        table.add_section()
        table.add_row(title(info["case"]), style="bold")
        for name in programs(info):
            table.add_row(
                f"  {name}",
                times(results.seconds(info, name) or 0.0),
                f"{info['times'][name]['ratio']:.2f}",
                percent(results.efficiency(info, name)),
                f"{max(info['errors'][name].values()):.0e}",
            )
    yield table
    yield (
        "\n/ ours: the median over rounds, each of which runs every program once; above 1, ours is "
        "faster.\nGEMM: share of the rate of a large matrix product in the same rounds.\n"
        "error: of loss or gradient, relative to fp64."
    )
    yield from refused(results)


def refused(results: Results) -> Iterator[str]:
    """A line for each program and reason, with the problems, or only some of their cases."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, info in results.named:
        for refusal in info["refused"].items():
            found.setdefault(refusal, []).append(info["case"])
    every = Counter(case["problem"] for case in results.cases)
    for (name, why), cases in found.items():
        counts = Counter(case["problem"] for case in cases)
        where = {
            case["problem"] if counts[case["problem"]] == every[case["problem"]] else title(case)
            for case in cases
        }
        yield f"Not timed: {name} ({'; '.join(sorted(where))}): {why}"


# ---- two runs -----------------------------------------------------------------------------------


def over_dense(info: dict[str, Any]) -> float | None:
    """Time of dense PyTorch / ours; None if it was refused."""
    return info["times"].get(DENSE, {}).get("ratio")


def compared(then: Results, now: Results) -> Iterator[Table | str]:
    """A table with a line for each case of both runs, and what was not the same in them."""
    yield f"Compared with {then.file.name}, {then.date}\n"
    table = blank("", "ours then", "now", "ratio", "dense then", "now", "ratio")
    before, after = ({n: i for n, i in run.named if "times" in i} for run in (then, now))
    for name in (name for name in after if name in before):
        old, info = before[name], after[name]
        cells = []
        for a, b, word in (
            (then.seconds(old), now.seconds(info), times),
            (over_dense(old), over_dense(info), "{:.2f}".format),
        ):
            cells += [word(a) if a else "", word(b) if b else ""]
            cells.append(f"{b / a:.2f}" if a and b else "")
        table.add_row(title(info["case"]), *cells)
    if table.rows:
        yield table
    yield (
        "\nours: its time; a ratio below 1 means that it became faster.\n"
        "dense: time of dense PyTorch / ours, which depends less on the machine; a ratio above 1 "
        "means that ours became faster."
    )
    if missing := len(after.keys() - before.keys()):
        yield f"{missing} of {len(after)} cases are not in {then.file.name}."
    yield from differences(then, now)


def differences(then: Results, now: Results) -> Iterator[str]:
    old, new = then.machine, now.machine
    pairs = {name: (old[name], new[name]) for name in CONDITIONS if name in old}
    for name in sorted(then.peers.keys() | now.peers.keys()):
        pairs[name] = then.peers.get(name), now.peers.get(name)
    for name, (a, b) in pairs.items():
        if a != b:
            yield f"Not the same: {name}: {a or 'none'} then, {b or 'none'} now"
