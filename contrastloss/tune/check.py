"""Checks and times one case of one backend, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor

from ..testing.compare import excess
from .cases import LOSSES, Case, Inputs, results, step

__all__ = ["check", "seconds"]

#: relative errors that are allowed in addition to twice those of the reference in the same dtype. A
#: sum that is wrong by 1 % exceeds them.
FLOOR = {"float64": 1e-12, "float32": 2e-5, "float16": 5e-4, "bfloat16": 1e-3}
#: passes that are timed at least, and the seconds that they take at least
PASSES, SECONDS = 5, 0.1


def check(case: Case, backend: str, device: torch.device) -> str | None:
    """What is wrong with a backend's results; None: two runs give the same bits, and they are as
    near to those of the reference in fp64 as rounding allows."""
    given = case.inputs(device)
    for run in (results, step) if case.kind in LOSSES else (results,):
        wrong = _wrong(run, case, given, backend)
        if wrong:
            return wrong
    return None


def _wrong(run: Callable[..., list[Tensor]], case: Case, given: Inputs, backend: str) -> str | None:
    with _deterministic():
        found, again = (run(case, given, backend) for _ in range(2))
    if not all(map(_same_bits, found, again)):
        return "two runs of the same call differ"
    plain = run(case, given, "reference")
    exact = run(case, given.exact(), "reference")
    if case.kind == "pair_topk":  # which of two nearly equal scores comes first is rounding
        for values in (found, plain, exact):
            values[1] = _at(given, values[1])
    errors = excess(found, plain, exact, FLOOR[case.dtype])
    wrong = [error for error in errors if not error <= 1]
    return f"wrong: {wrong[0]:.3g} times the error that rounding allows" if wrong else None


@contextmanager
def _deterministic() -> Iterator[None]:
    """Without those of torch's operators that differ from run to run; new memory holds NaN."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _at(given: Inputs, index: Tensor) -> Tensor:
    """The exact scores of the columns that were found."""
    return (given.x.double()[:, None] * given.columns.double()[index]).sum(-1)


def seconds(case: Case, backend: str, device: torch.device) -> float:
    """The median time of a forward and backward pass."""
    given = case.inputs(device)
    found: list[float] = []
    step(case, given, backend)  # allocates, and may compile
    while len(found) < PASSES or sum(found) < SECONDS:
        _finish(device)
        began = time.perf_counter()
        step(case, given, backend)
        _finish(device)
        found.append(time.perf_counter() - began)
    return median(found)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
