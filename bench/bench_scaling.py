"""Time of CLIP for increasing numbers of rows, up to sizes that no dense program reaches."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from contrastloss import CLIPLoss
from contrastloss.bench.cases import compare
from contrastloss.bench.peers import CHECKPOINTED, DENSE, OURS, PROBLEMS
from contrastloss.bench.timing import GEMM, gemm, interleave, judge, step

D, DTYPE = 128, "float32"
BESIDE = [2048, 4096, 8192]
ALONE = [16384, 32768, 65536, 131072]


def clip_sample(x: Tensor, y: Tensor, *, scale: float, sample: Tensor) -> Tensor:
    """The sum of the losses of a few rows, with exact gradients, without scores of other rows."""
    x, y = normalize(x), normalize(y)
    by_row = cross_entropy(scale * x[sample] @ y.T, sample, reduction="sum")
    return (by_row + cross_entropy(scale * y[sample] @ x.T, sample, reduction="sum")) / 2


def judge_sample(inputs: Sequence[Tensor], size: int = 64) -> dict[str, float]:
    """Checks our CLIP at sizes that no dense program reaches: the losses of a few rows and their
    gradients for all embeddings."""
    subject = PROBLEMS["clip"]
    rows = torch.arange(0, len(inputs[0]), len(inputs[0]) // size, device=inputs[0].device)
    ours = CLIPLoss(reduction="none")
    doubles = [v.double() for v in inputs]
    want = step(lambda x, y: clip_sample(x, y, **subject.options, sample=rows), doubles)()
    return judge(step(lambda x, y: ours(x, y)[rows].sum(), inputs), want, inputs[0].dtype)


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
