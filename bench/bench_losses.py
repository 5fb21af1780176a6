"""The cases of the package, which are also those of ``python -m contrastloss bench``."""

from __future__ import annotations

from typing import Any

from contrastloss.bench.cases import bench_large, bench_small, compare
from contrastloss.bench.peers import DENSE, OURS

__all__ = ["bench_cubic", "bench_large", "bench_small"]


def bench_cubic(benchmark: Any, device: str, seconds: float) -> None:
    """The largest NT-Xent with which the class of pytorch-metric-learning is run."""
    names = [OURS, DENSE, "pytorch-metric-learning"]
    compare(benchmark, ("nt_xent", 256, 128, "float32"), names, device, seconds / 4)
