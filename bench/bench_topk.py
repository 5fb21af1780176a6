"""The best columns of every row, compared with a loop over torch.topk and faiss' exact index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from results import CHUNKED, FAISS
from torch import Tensor

from contrastloss.bench.peers import OURS
from contrastloss.bench.timing import GEMM, gemm, interleave, reason, summary
from contrastloss.ops import pair_topk

#: queries, columns, D, k, dtype
CASES = [
    (2_000, 200_000, 256, 100, "float32"),
    (2_000, 200_000, 256, 10, "float32"),
    (2_000, 200_000, 256, 1000, "float32"),
    (2_000, 200_000, 256, 100, "bfloat16"),
    (100, 200_000, 256, 100, "float32"),
    (16_384, 16_384, 128, 32, "float32"),
]
#: columns that the loop over torch.topk scores at a time
STEP = 8192

Search = Callable[[], tuple[Tensor, Tensor]]


def chunked(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, index = (x @ y[:STEP].mT).topk(k)
    for start in range(STEP, len(y), STEP):
        values, found = (x @ y[start : start + STEP].mT).topk(min(k, len(y) - start))
        values, order = torch.cat([best, values], 1).topk(k)
        index = torch.cat([index, found + start], 1).gather(1, order)
        best = values
    return best, index


def faiss(x: Tensor, y: Tensor, k: int) -> Search:
    import faiss

    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise NotImplementedError("fp32 on a CPU only")
    faiss.omp_set_num_threads(torch.get_num_threads())
    index, queries = faiss.IndexFlatIP(x.shape[1]), x.numpy()
    index.add(y.numpy())

    def search() -> tuple[Tensor, Tensor]:
        values, found = index.search(queries, k)
        return torch.from_numpy(values), torch.from_numpy(found)

    return search


def inputs(m: int, n: int, d: int, dtype: str, device: str) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    x, y = (torch.randn(rows, d, generator=made) for rows in (m, n))
    return tuple(torch.nn.functional.normalize(v).to(device, getattr(torch, dtype)) for v in (x, y))


def judge(found: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], tolerance: float) -> float:
    """The largest error of a score.

    Raises:
        ArithmeticError: it exceeds the tolerance, or a column was returned whose score differs by
            more than the tolerance from that of the right column.
    """
    error = (found[0].double() - want[0].double()).abs().max().item()
    if not error <= tolerance:
        raise ArithmeticError(f"error of a score is {error:.1e}")
    apart = found[1] != want[1]
    gaps = (found[0][apart].double() - want[0][apart].double()).abs()
    if gaps.numel() and not gaps.max() <= tolerance:
        raise ArithmeticError("another column is found")
    return error


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def bench_topk(benchmark: Any, case: Any, device: str, seconds: float) -> None:
    m, n, d, k, dtype = case
    x, y = inputs(m, n, d, dtype, device)
    contestants: dict[str, Callable[[], Search]] = {
        OURS: lambda: lambda: tuple(pair_topk(x, y, k)),
        CHUNKED: lambda: lambda: chunked(x, y, k),
        FAISS: lambda: faiss(x, y, k),
    }
    want = chunked(x.double(), y.double(), k)
    # the loop rounds scores to bf16, which may change their order
    tolerance = 2e-6 if dtype == "float32" else 4e-3
    steps, errors, refused = {}, {}, {}
    for name, make in contestants.items():
        try:
            steps[name] = make()
            errors[name] = judge(steps[name](), want, tolerance)
        except Exception as problem_of_theirs:
            if name == OURS:
                raise
            steps.pop(name, None)
            refused[name] = reason(problem_of_theirs)
    product, operations = gemm(x.dtype, device)
    times = interleave(steps | {GEMM: product}, seconds=seconds)
    benchmark.extra_info |= {
        "case": {"problem": f"top {k} of {n:,}", "rows": m, "d": d, "dtype": dtype, "k": k},
        "times": summary(times, OURS),
        "errors": errors,
        "refused": refused,
        "floor": 2.0 * m * n * d,
        "gemm": operations,
    }
    benchmark.pedantic(steps[OURS], rounds=3)
