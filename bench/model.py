"""What a Hopper GPU should take for the cases of the GPU benchmarks, before it has been measured.

A pass over pairs visits tiles of 128 x 128 pairs. A tile costs clocks of its products, or of what
it loads from the L2 cache if that takes longer, and, after them, of its epilogue, since one block
per multiprocessor does not overlap the two. Instructions come from the budgets of machine code
(cuda_budget.json and triton_budget.json in tests/backends), which CI checks; the chips' numbers
come from their data sheets. What is estimated says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests/backends"
BUDGET = json.loads((TESTS / "cuda_budget.json").read_text())["constant"]
TRITON = json.loads((TESTS / "triton_budget.json").read_text())["per pair"]

BLOCK, LANE_PAIRS, WARPS, ISSUED = 128, 64, 8, 4  # of a tile and a multiprocessor
#: estimated: the share of the matrix rate that warps of 32 x 64 results reach without wgmma, and
#: that Triton reaches with it
MATRIX_SHARE = {"cuda": 0.5, "triton": 0.75}
#: estimated: bytes/s that all multiprocessors together load from the L2 cache
L2 = 5.5e12
#: estimated: the share of the fp32 rate that products of numbers reach
FP32_SHARE = 0.85
#: estimated: clocks of an epilogue over its issue slots, for latencies and barriers
STALLS = 1.3
#: estimated: instructions per thread of an epilogue that do not depend on the pairs: reductions
#: over lanes and warps, statistics and bounds of the tile
FIXED = 400
#: estimated: the share of its peak that a library product reaches
LIBRARY_SHARE = 0.65
#: estimated: seconds of the device per launch, with what lies between two kernels
LAUNCH = 4e-6


@dataclass(frozen=True)
class Chip:
    """Rates of a data sheet: FLOP/s of dense products in bf16 and of fp32, bytes/s."""

    name: str
    processors: int
    clock: float
    bf16: float
    fp32: float
    memory: float

    def matrix(self, backend: str, dtype: str) -> float:
        """Multiply-adds per clock of a multiprocessor, as our products reach them. In fp32, Triton
        adds three products of TF32, which has half the rate of bf16."""
        if dtype != "float32":
            peak, share = self.bf16, MATRIX_SHARE[backend]
        elif backend == "triton":
            peak, share = self.bf16 / 2 / 3, MATRIX_SHARE[backend]
        else:
            peak, share = self.fp32, FP32_SHARE
        return peak / 2 / self.clock / self.processors * share

    def product(self, m: int, n: int, d: int, dtype: str) -> float:
        peak = self.fp32 if dtype == "float32" else self.bf16
        return 2.0 * m * n * d / (peak * LIBRARY_SHARE)


H100 = Chip("H100", 132, 1.83e9, 989e12, 67e12, 3.35e12)
H200 = Chip("H200", 132, 1.83e9, 989e12, 67e12, 4.8e12)
CHIPS = (H100, H200)


def parts(n: int, d: int) -> int:
    return -(-n // d)


def longest(row_tiles: int, col_tiles: int, blocks: int) -> int:
    """Tiles of the block with the most tiles, as csrc/cuda/grid.h spreads them."""
    return min(
        parts(row_tiles, a) * parts(col_tiles, min(col_tiles, max(blocks // a, 1)))
        for a in range(1, min(row_tiles, blocks) + 1)
    )


def tiles(chip: Chip, backend: str, m: int, n: int, d: int, dtype: str, per_pair: float) -> float:
    """Seconds of a pass over all pairs, with so many instructions per pair in the epilogue."""
    size, short = (4, "fp32") if dtype == "float32" else (2, "bf16")
    depth = 128 // size  # of a stage
    products = BLOCK * BLOCK * depth / chip.matrix(backend, dtype)
    loads = 2 * BLOCK * depth * size / (L2 / chip.processors / chip.clock)
    issues = BUDGET["per stage"][short] * WARPS / ISSUED if backend == "cuda" else 0
    epilogue = (LANE_PAIRS * per_pair + FIXED) * WARPS / ISSUED * STALLS
    clocks = parts(d, depth) * max(products, loads, issues) + epilogue
    return longest(parts(m, BLOCK), parts(n, BLOCK), chip.processors) * clocks / chip.clock


def loss(chip: Chip, backend: str, problem: str, rows: int, d: int, dtype: str) -> float:
    """Seconds of forward and backward. NT-Xent compares the rows of both views with themselves:
    tiles above the diagonal, and positives by ids."""
    symmetric = problem == "nt_xent"
    share = 0.5 if symmetric else 1.0
    if backend == "triton":
        each = [TRITON[kernel][problem] for kernel in ("forward_kernel", "h_block_kernel")]
    else:
        each = [BUDGET["per pair"] + (BUDGET["per test"] if symmetric else 0)] * 2
    passes = share * sum(tiles(chip, backend, rows, rows, d, dtype, count) for count in each)
    size = 4 if dtype == "float32" else 2
    h = share * rows * rows * size / chip.memory  # written once; products read it at their own rate
    products = 2 * share * chip.product(rows, rows, d, dtype)
    launches = {"cuda": (6, 5), "triton": (11, 8)}[backend][symmetric]
    return passes + h + products + launches * LAUNCH


def topk(chip: Chip, rows: int, cols: int, d: int, k: int, dtype: str) -> float:
    """Seconds of the k best: the products, a comparison per pair, and the lists."""
    candidates = tiles(chip, "cuda", rows, cols, d, dtype, BUDGET["per pair"])
    chunks = max(1, (cols // 4096).bit_length())
    lists = 4.0 * chunks * rows * (k + 4096) * 8 / chip.memory
    return candidates + lists + (2 * chunks + 2) * LAUNCH


def matmul_topk(chip: Chip, rows: int, cols: int, d: int, dtype: str) -> float:
    """Seconds of a product and torch.topk: estimated to read the scores four times."""
    return chip.product(rows, cols, d, dtype) + 5.0 * rows * cols * 4 / chip.memory


def sort(chip: Chip, rows: int, n: int, network: str) -> float:
    """Seconds of a sorting network with all of P, forward and backward: about 8 instructions per
    comparator, wire pair and mass, thrice (estimated), or the bytes of P."""
    layers = n if network == "odd_even" else n.bit_length() * (n.bit_length() - 1) // 2
    work = 3.0 * 8 * rows * layers * (n // 2) * (n + 1)
    lanes = 32 * ISSUED * chip.processors * chip.clock
    return max(work / lanes, 4.0 * rows * n * n * 4 / chip.memory) + 2 * LAUNCH


def predictions() -> Iterator[tuple[str, dict[str, float]]]:
    """(case, seconds by chip) of every case of the GPU benchmarks."""
    large = [(rows, d, "bfloat16") for rows in (16384, 32768, 65536) for d in (512, 1024)]
    small = [(rows, 128, dtype) for dtype in ("float32", "bfloat16") for rows in (256, 1024, 4096)]
    for problem in ("clip", "nt_xent"):
        for rows, d, dtype in large + small:
            for backend in ("cuda", "triton"):
                short = "fp32" if dtype == "float32" else "bf16"
                what = f"{problem}, {rows:,} x {d}, {short}, {backend}"
                yield what, {c.name: loss(c, backend, problem, rows, d, dtype) for c in CHIPS}
    for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
        what = f"top 100 of 200,000, 2,000 x 256, {short}"
        yield what, {c.name: topk(c, 2000, 200_000, 256, 100, dtype) for c in CHIPS}
        what = f"the same by matmul and topk, {short}"
        yield what, {c.name: matmul_topk(c, 2000, 200_000, 256, dtype) for c in CHIPS}
    for rows, n, network in ((4096, 16, "odd_even"), (4096, 16, "bitonic"), (256, 128, "odd_even")):
        what = f"{network}, {rows:,} rows of {n}"
        yield what, {c.name: sort(c, rows, n, network) for c in CHIPS}
