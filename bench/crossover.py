"""Where the Triton backend is faster than the reference, from results of bench/bench_gpu.py.

python bench/crossover.py bench/results/cuda-kernels.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from report import factor, title
from results import REFERENCE, Results

ADVICE = """
`slow` in contrastloss/backends/triton/__init__.py passes on every call that does not ask for Triton
by name. With these figures it can pass on those alone that are below 1 here: it sees the call's
dtypes (`call.x.dtype`, `call.compute_dtype`), its lengths (`call.length(ROW)`, `call.length(COL)`),
its depth and whether it is symmetric (`call.y is None`). Then docs/support.md, which says that
Triton is not chosen by itself, changes too."""


def main(file: str) -> None:
    results = Results(Path(file))
    print("reference's time over Triton's")
    for info in results.of("bench_backends", "bench_kernels"):
        print(f"  {title(info['case'])}: {factor(info, REFERENCE)}")
    print(ADVICE)


if __name__ == "__main__":
    main(*sys.argv[1:])
