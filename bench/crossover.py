"""From results of bench/bench_gpu.py: where the Triton and CUDA backends are faster than the
reference and than each other.

python bench/crossover.py bench/results/cuda-kernels.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from results import Results
from words import factor

from contrastloss.bench.peers import CUDA, REFERENCE
from contrastloss.bench.results import title

ADVICE = """
`slow` in contrastloss/backends/cuda.py and in contrastloss/backends/triton/__init__.py is true for
every call that does not name the backend. With these figures it can be true only where another
backend is faster: it sees the call's dtypes (`call.x.dtype`, `call.compute_dtype`), its lengths
(`call.length(ROW)`, `call.length(COL)`), its depth and whether it is symmetric (`call.y is None`).
`choose.BACKENDS` tries cuda first. Then also change docs/support.md, which says that neither is
chosen automatically."""


def main(file: str) -> None:
    results = Results(Path(file))
    print("time / Triton's time: reference, CUDA C++")
    for info in results.of("bench_backends", "bench_kernels"):
        print(f"  {title(info['case'])}: {factor(info, REFERENCE)}, {factor(info, CUDA)}")
    print(ADVICE)


if __name__ == "__main__":
    main(*sys.argv[1:])
