"""Errors compared with fp64 on the same rounded embeddings, by dtype and temperature."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from contrastloss import CLIPLoss
from contrastloss.bench import dense
from contrastloss.bench.peers import DENSE, OURS, PROBLEMS
from contrastloss.bench.timing import errors, step
from contrastloss.testing import TEMPERATURES

ROWS, D = 1024, 128


@pytest.mark.quick
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def bench_accuracy(benchmark: Any, dtype: str, temperature: float, device: str) -> None:
    inputs = PROBLEMS["clip"].inputs(ROWS, D, getattr(torch, dtype), device)
    plain = partial(dense.clip, scale=1 / temperature)
    want = step(plain, [v.double() for v in inputs])()
    ours = step(CLIPLoss(temperature=temperature), inputs)
    benchmark.extra_info |= {
        "case": {"problem": "clip", "rows": ROWS, "d": D, "dtype": dtype},
        "temperature": temperature,
        "errors": {OURS: errors(ours(), want), DENSE: errors(step(plain, inputs)(), want)},
    }
    benchmark.pedantic(ours, rounds=3)
