"""On a GPU: our backends, the library's products alone, compiled code and other kernels."""

from __future__ import annotations

from typing import Any

import memory
import pytest
import torch
from products import products
from results import PRODUCTS

from contrastloss.bench.cases import compare
from contrastloss.bench.peers import (
    COMPILED,
    CUDA,
    CUT_CROSS_ENTROPY,
    DENSE,
    INF_CL,
    PROBLEMS,
    REFERENCE,
    TRITON,
)
from contrastloss.bench.timing import step

#: the largest cases come last, so that a run that is out of time loses only these
LARGE = [
    (problem, rows, d, "bfloat16")
    for rows in (16384, 32768, 65536)
    for d in (512, 1024)
    for problem in ("clip", "nt_xent")
]
#: sizes around which Triton and CUDA C++ become faster than the reference and compiled code
SMALL = [
    (problem, rows, 128, dtype)
    for problem in ("clip", "nt_xent")
    for dtype in ("float32", "bfloat16")
    for rows in (256, 1024, 4096)
]


@pytest.fixture(autouse=True)
def gpu(device: str) -> None:
    if device != "cuda":
        pytest.skip("needs a GPU, and --device cuda")


@pytest.mark.parametrize("case", LARGE, ids=lambda case: "-".join(map(str, case)))
def bench_kernels(benchmark: Any, case: Any, device: str, seconds: float) -> None:
    problem, rows, d, dtype = case
    names = [TRITON, CUDA, REFERENCE, COMPILED]
    names += [name for name in (INF_CL, CUT_CROSS_ENTROPY) if name in PROBLEMS[problem].libraries]
    beside = {PRODUCTS: products(rows, d, getattr(torch, dtype), device)}
    compare(benchmark, case, names, device, seconds, beside)


def bench_million(benchmark: Any, device: str) -> None:
    """A million rows: whether the call succeeds, its time and its memory."""
    subject = PROBLEMS["clip"]
    loss = subject.load(TRITON)
    x, y = subject.inputs(1 << 20, 512, torch.bfloat16, device)
    step(loss, [x[:2048], y[:2048]])()  # compiles
    before = memory.reset_peak(device)
    _, grads = benchmark.pedantic(step(loss, [x, y]), rounds=1)
    extra = memory.peak(device) - before - sum(grad.nbytes for grad in grads)
    case = {"problem": "clip", "rows": len(x), "d": x.shape[1], "dtype": "bfloat16"}
    benchmark.extra_info |= {"case": case, "name": TRITON, "memory": {"extra": extra}}
    benchmark.extra_info |= {"inputs": x.nbytes + y.nbytes, "times": {}}


@pytest.mark.quick
@pytest.mark.parametrize("case", SMALL, ids=lambda case: "-".join(map(str, case)))
def bench_backends(benchmark: Any, case: Any, device: str, seconds: float) -> None:
    names = [TRITON, CUDA, REFERENCE, DENSE, COMPILED]
    compare(benchmark, case, names, device, seconds / 4)
