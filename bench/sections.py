"""Sections of docs/performance.md of their own: adapters of other libraries, ratios of losses and
of shapes, and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import model
from results import PRODUCTS, Results
from words import factor, size, table

from contrastloss.bench.peers import CUDA, DENSE, TRITON
from contrastloss.bench.results import SHORT, times, title


def libraries(results: Results) -> str:
    rows = []
    for info in results.of("bench_adapter"):
        case, found = info["case"], info["memory"]
        rows.append(
            [case["problem"], f"{case['rows']:,}", times(results.seconds(info, "ours") or 0)]
            + [factor(info, "theirs")]
            + [size(found.get(which)) for which in ("ours", "theirs")]
        )
    head = ["class", "rows", "adapter", "theirs / adapter", "memory, adapter", "theirs"]
    return f"""### Adapters of other libraries

The classes of `contrastloss.compat` and those that they stand for, forward and backward, fp32, rows
of 128 features, four rows a label. Above 1, the adapter is faster. Memory is in addition to inputs
and gradients; if an allocation fails within 16 GB, its size is given.

{table(head, rows)}
"""


def ratios(results: Results) -> str:
    rows = []
    for info in results.of("bench_beside_clip"):
        case, found = info["case"], info["times"]
        cells = [f"{info['times'][name]['ratio']:.2f}" for name in found if name != "clip"]
        rows.append([f"{case['rows']:,} x {case['d']}", times(found["clip"]["seconds"]), *cells])
    losses = [name for name in results.of("bench_beside_clip")[0]["times"] if name != "clip"]
    products = [
        [title(info["case"]), times(results.seconds(info) or 0), f"{over_products(info):.2f}"]
        for info in results.of("bench_over_products")
    ]
    return f"""### Losses beside each other

Forward and backward, fp32: the time of CLIP, and those of losses that need fewer products, divided
by it.

{table(["rows x D", "clip", *losses], rows)}

CLIP's time divided by that of four library products of its size and dtype, whose results hold all
scores.

{table(["loss, rows x D", "ours", "over four products"], products)}
"""


def over_products(info: dict[str, Any]) -> float:
    return 1.0 / float(info["times"][PRODUCTS]["ratio"])


def shapes(results: Results) -> str:
    runs = results.of("bench_shapes")
    widths = sorted({info["case"]["d"] for info in runs})
    rows: dict[str, list[str]] = {}
    for info in runs:
        case = info["case"]
        name = f"{case['rows']:,} rows, {SHORT[case['dtype']]}"
        cells = rows.setdefault(name, [""] * len(widths))
        cells[widths.index(case["d"])] = factor(info, DENSE)
    return f"""### Shapes

CLIP, forward and backward, of batches with few rows of long embeddings and with many of short ones:
dense PyTorch's time / ours.

{table(["", *(f"D = {d:,}" for d in widths)], [[name, *cells] for name, cells in rows.items()])}
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
