"""Time of CLIP for increasing numbers of rows, up to sizes that no dense program reaches."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
import torch

from contrastloss.bench.cases import compare
from contrastloss.bench.peers import CHECKPOINTED, DENSE, OURS, PROBLEMS
from contrastloss.bench.timing import GEMM, gemm, interleave, judge_sample, step

D, DTYPE = 128, "float32"
BESIDE = [2048, 4096, 8192]
ALONE = [16384, 32768, 65536, 131072]


@pytest.mark.parametrize("rows", BESIDE)
def bench_beside_dense(benchmark: Any, rows: int, device: str, seconds: float) -> None:
    names = [OURS, DENSE, CHECKPOINTED]
    compare(benchmark, ("clip", rows, D, DTYPE), names, device, seconds / 2)


@pytest.mark.parametrize("rows", ALONE)
def bench_alone(benchmark: Any, rows: int, device: str) -> None:
    subject, kind = PROBLEMS["clip"], getattr(torch, DTYPE)
    inputs = subject.inputs(rows, D, kind, device)
    product, operations = gemm(kind, device)
    benchmark.extra_info |= {
        "case": {"problem": "clip", "rows": rows, "d": D, "dtype": DTYPE},
        "errors": {OURS: judge_sample(inputs)},
        "floor": subject.gemms * 2.0 * rows * rows * D,
        "gemm": operations,
    }
    products = interleave({GEMM: product}, seconds=1)
    benchmark.pedantic(step(subject.ours, inputs), rounds=1)
    products[GEMM] += interleave({GEMM: product}, seconds=1)[GEMM]
    benchmark.extra_info["times"] = {GEMM: {"seconds": median(products[GEMM])}}
