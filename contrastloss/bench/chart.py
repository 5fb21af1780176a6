"""The picture that the command draws."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from .results import Results, machine, times, title
from .tables import programs

__all__ = ["MARKERS", "draw"]

MARKERS = "os^vD<>PX*"


def draw(results: Results, file: Path) -> None:
    """Every program's time / ours, a line for each case."""
    infos = [info for _, info in results.named]
    figure = Figure(figsize=(8, 1.5 + 0.35 * len(infos)), dpi=120, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(name for info in infos for name in programs(info)))
    for k, name in enumerate(names):
        found = [(info["times"][name]["ratio"], y) for y, info in enumerate(infos)
                 if name in info["times"]]  # fmt: skip
        axes.plot(*zip(*found, strict=True), MARKERS[k % len(MARKERS)], label=name)
    labels = [f"{title(i['case'])}\nours: {times(results.seconds(i) or 0.0)}" for i in infos]
    axes.set_yticks(range(len(infos)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log")
    axes.set_xlabel("time / ours; to the right of 1, ours is faster", fontsize=8)
    axes.set_title(machine(results), fontsize=8)
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    figure.savefig(file)
