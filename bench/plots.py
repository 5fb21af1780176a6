"""Plots of time, memory and share of the GEMM rate over the number of rows."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from results import Results

from contrastloss.bench.peers import CHECKPOINTED, DENSE, OURS

MARKERS = {OURS: "o", DENSE: "s", CHECKPOINTED: "^"}


def draw(results: Results, file: Path) -> None:
    mpl.rcParams |= {"svg.hashsalt": "contrastloss", "svg.fonttype": "none", "font.size": 9}
    figure, (time, memory, share) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for name, marker in MARKERS.items():
        points = list(results.scaling(name))
        rows = [n for n, _, _ in points]
        time.plot(rows, [s for _, s, _ in points], marker=marker, label=name)
        share.plot(rows, [100 * e for _, _, e in points], marker=marker)
        known = results.extra("clip", name)
        memory.plot([n for n, _ in known], [extra / 1e6 for _, extra in known], marker=marker)
    time.set(title="time, s", yscale="log")
    memory.set(title="memory beyond inputs and gradients, MB", yscale="log")
    share.set(title="share of the GEMM rate, %", ylim=(0, 100))
    time.legend(frameon=False)
    for axes in (time, memory, share):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda rows, _: f"{rows / 1024:g}k")
        axes.set_xlabel("N")
        axes.grid(alpha=0.3)
    figure.suptitle("CLIP, forward and backward, fp32, D = 128")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
