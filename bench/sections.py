"""Sections of docs/performance.md of their own: adapters of other libraries, and predictions."""

from __future__ import annotations

from collections.abc import Sequence

import model
from results import Results
from words import factor, size, table

from contrastloss.bench.peers import CUDA, TRITON
from contrastloss.bench.results import times, title


def libraries(results: Results) -> str:
    rows = []
    for info in results.of("bench_adapter"):
        case, found = info["case"], info["memory"]
        rows.append(
            [case["problem"], f"{case['rows']:,}", times(results.seconds(info, "ours") or 0)]
            + [factor(info, "theirs")]
            + [size(found[which]) for which in ("ours", "theirs")]
        )
    head = ["class", "rows", "adapter", "theirs / adapter", "memory, adapter", "theirs"]
    return f"""## Adapters of other libraries

The classes of `contrastloss.compat` and those that they stand for, forward and backward, fp32, rows
of 128 features, four rows a label. Above 1, the adapter is faster. Memory is in addition to inputs
and gradients; if an allocation fails within 16 GB, its size is given.

{table(head, rows)}
"""


def predicted(every: Sequence[Results]) -> str:
    found = {}
    for results in every:
        if results.machine["device"] == "cuda":
            for info in results.of("bench_kernels", "bench_backends"):
                for name in (CUDA, TRITON):
                    if (seconds := results.seconds(info, name)) is not None:
                        what = f"{title(info['case'])}, {name}"
                        found[what] = f"{times(seconds)} ({results.machine['gpu']})"
    rows = [
        [what, *(times(v) for v in seconds.values()), found.get(what, "")]
        for what, seconds in model.predictions()
    ]
    head = ["case", *(f"{chip.name}, predicted" for chip in model.CHIPS), "measured"]
    return f"""## GPUs: predictions of bench/model.py

Forward and backward, the device alone; what names no backend is the CUDA backend or torch. **No
GPU has given the predicted figures**: a model makes them from the kernels' machine code, the chips'
data sheets and estimates. They are there to be compared with what is measured, and to say which
part of the model is wrong.

{table(head, rows)}
"""
