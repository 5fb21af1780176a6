"""One warm timing of each backend, to run before anything that may fail or take long."""

from __future__ import annotations

from typing import Any

from contrastloss.bench.cases import compare
from contrastloss.bench.peers import CUDA, DENSE, REFERENCE, TRITON


def bench_first(benchmark: Any, device: str, seconds: float) -> None:
    """CLIP of 16,384 rows in bf16 on a GPU, of fewer rows elsewhere."""
    if device == "cuda":
        case, names = ("clip", 16384, 512, "bfloat16"), [REFERENCE, CUDA, TRITON, DENSE]
    else:
        case, names = ("clip", 256, 64, "float32"), [REFERENCE, DENSE]
    compare(benchmark, case, names, device, seconds)
