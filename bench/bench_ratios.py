"""Ratios that the numbers of matrix products promise: of our losses to each other, to library
products alone and, in every shape of a batch, to dense PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from products import products
from results import PRODUCTS

from contrastloss.bench.cases import compare
from contrastloss.bench.peers import DENSE, OURS, PROBLEMS
from contrastloss.bench.timing import admit, interleave, summary

ROWS = 8192
#: CLIP first; the others need fewer products
LOSSES = ("clip", "siglip", "info_nce")
#: few rows of LLM-size embeddings, and many of short ones; not where a pass takes ten seconds
SHAPES = [
    (rows, d)
    for rows in (32, 256, 1024, 4096)
    for d in (32, 512, 4096, 8192)
    if rows * rows * d <= 1 << 34
]


@pytest.mark.parametrize("d", [128, 512])
@pytest.mark.parametrize("rows", [ROWS])
def bench_beside_clip(benchmark: Any, rows: int, d: int, device: str, seconds: float) -> None:
    inputs = PROBLEMS["clip"].inputs(rows, d, torch.float32, device)
    steps, errors = {}, {}
    for problem in LOSSES:
        admitted, error, _ = admit(problem, [OURS], inputs)
        steps[problem], errors[problem] = admitted[OURS], error[OURS]
    benchmark.extra_info |= {
        "case": {"problem": "clip", "rows": rows, "d": d, "dtype": "float32"},
        "times": summary(interleave(steps, seconds=seconds), "clip"),
        "errors": errors,
        "refused": {},
    }
    benchmark.pedantic(steps["clip"], rounds=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "d"), [(ROWS, 512)])
def bench_over_products(
    benchmark: Any, rows: int, d: int, dtype: str, device: str, seconds: float
) -> None:
    beside = {PRODUCTS: products(rows, d, getattr(torch, dtype), device)}
    compare(benchmark, ("clip", rows, d, dtype), [OURS], device, seconds, beside)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "d"), SHAPES)
def bench_shapes(
    benchmark: Any, rows: int, d: int, dtype: str, device: str, seconds: float
) -> None:
    compare(benchmark, ("clip", rows, d, dtype), [OURS, DENSE], device, seconds / 10)
