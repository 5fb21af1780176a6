"""Forward and backward, compared with all other programs: large and small batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from .peers import CUDA, DENSE, OURS, PROBLEMS, TRITON
from .timing import GEMM, admit, gemm, interleave, summary

__all__ = [
    "BRIEF_LARGE",
    "BRIEF_SMALL",
    "LARGE",
    "RIVALS",
    "SMALL",
    "Case",
    "bench_chosen",
    "bench_large",
    "bench_small",
    "compare",
    "label",
]

#: problem, rows, D, dtype
Case = tuple[str, int, int, str]

LARGE: list[Case] = [
    ("clip", 8192, 128, "float32"),
    ("clip", 8192, 512, "float32"),
    ("clip", 8192, 128, "bfloat16"),
    ("nt_xent", 8192, 128, "float32"),
    ("nt_xent", 8192, 128, "bfloat16"),
    ("info_nce", 4096, 128, "float32"),
    ("siglip", 4096, 128, "float32"),
    ("supcon", 4096, 128, "float32"),
]
#: the class of another library beside which small batches are timed
RIVALS = {
    "clip": "open_clip",
    "nt_xent": "lightly",
    "info_nce": "info-nce",
    "siglip": "open_clip",
}
SMALL: list[Case] = [
    (problem, rows, d, dtype)
    for problem in RIVALS
    for d, every in ((128, (32, 64, 128, 256, 512, 1024)), (512, (32, 64, 128, 512)))
    for dtype in ("float32", "bfloat16", "float16", "float64")
    for rows in every
]
#: what ``python -m contrastloss bench`` runs if nothing else is asked for: two minutes of two cores
BRIEF_LARGE = [case for case in LARGE if case[2] == 128 and case[3] == "float32"]
BRIEF_SMALL = [
    case
    for case in SMALL
    if case[0] in ("clip", "nt_xent")
    and case[1] in (64, 256, 1024)
    and case[2:] == (128, "float32")
]


def label(case: Case) -> str:
    return "-".join(map(str, case))


def compare(
    benchmark: Any,
    case: Case,
    names: list[str],
    device: str,
    seconds: float,
    beside: dict[str, Callable[[], None]] | None = None,
) -> None:
    """Time the contestants and the functions in ``beside`` in turn, then the first contestant,
    ours, once more for pytest-benchmark."""
    problem, rows, d, dtype = case
    subject, kind = PROBLEMS[problem], getattr(torch, dtype)
    inputs = subject.inputs(rows, d, kind, device)
    steps, errors, refused = admit(problem, names, inputs)
    product, operations = gemm(kind, device)
    large = rows >= 2048
    beside = (beside or {}) | ({GEMM: product} if large else {})
    times = interleave(steps | beside, seconds=seconds)
    benchmark.extra_info |= {
        "case": dict(zip(("problem", "rows", "d", "dtype"), case, strict=True)),
        "times": summary(times, names[0]),
        "errors": errors,
        "refused": refused,
        "floor": subject.gemms * 2.0 * rows * rows * d,
        "gemm": operations,
    }
    benchmark.pedantic(steps[names[0]], rounds=3 if large else 20, warmup_rounds=1)


@pytest.mark.parametrize("case", LARGE, ids=label)
def bench_large(benchmark: Any, case: Case, device: str, seconds: float) -> None:
    compare(benchmark, case, PROBLEMS[case[0]].names, device, seconds)


@pytest.mark.quick
@pytest.mark.parametrize("case", SMALL, ids=label)
def bench_small(benchmark: Any, case: Case, device: str, seconds: float) -> None:
    compare(benchmark, case, [OURS, DENSE, RIVALS[case[0]]], device, seconds / 10)


def bench_chosen(benchmark: Any, case: Case, device: str, seconds: float) -> None:
    """A batch that the user describes; the command says which there are. On a GPU, ours also by
    the backends that have to be asked for."""
    asked = [TRITON, CUDA] if device == "cuda" else []
    compare(benchmark, case, [*PROBLEMS[case[0]].names, *asked], device, seconds)
