"""Times contestants in turn, after checking their results.

A machine that slows down affects the contestant that runs at that moment. So every round runs each
contestant once, and a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from .peers import PROBLEMS, Loss

__all__ = [
    "FOLDERS",
    "GEMM",
    "GEMM_SIDE",
    "TOLERANCE",
    "Step",
    "admit",
    "errors",
    "exact",
    "gemm",
    "interleave",
    "judge",
    "reason",
    "step",
    "summary",
    "synchronise",
]

#: the folders of an absolute path at the beginning of a word or in quotes
FOLDERS = re.compile(r"""(?<![^\s'"(\[=,])(?:[A-Za-z]:|~)?[/\\](?:[^\s'"/\\]+[/\\])*""")

Step = Callable[[], tuple[Tensor, tuple[Tensor, ...]]]

GEMM = "gemm"
#: side of the square product whose rate counts as the rate of the machine
GEMM_SIDE = {"cpu": 2048, "cuda": 8192}

#: relative error of a value or gradient above which a contestant is refused. It allows rounding,
#: also of scores held in bf16, but no wrong program.
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def step(function: Loss, inputs: Sequence[Tensor]) -> Step:
    """Forward and backward. The incoming gradient is the number of rows, as with a gradient scaler:
    with the mean's 1 / rows, fp16 gradients would underflow."""
    leaves = [v.detach().requires_grad_(v.is_floating_point()) for v in inputs]
    wanted = [v for v in leaves if v.requires_grad]
    device = leaves[0].device.type

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        value = function(*leaves)
        grads = torch.autograd.grad(value, wanted, torch.full_like(value, len(leaves[0])))
        synchronise(device)
        return value.detach(), grads

    return run


def gemm(dtype: torch.dtype, device: str) -> tuple[Callable[[], None], float]:
    """A large product, and its number of operations."""
    side = GEMM_SIDE[device]
    a, b = torch.randn(2, side, side, device=device).to(dtype)

    def run() -> None:
        torch.mm(a, b)
        synchronise(device)

    run()
    return run, 2.0 * side**3


# ---- the gate -----------------------------------------------------------------------------------


def errors(got: tuple[Tensor, Sequence[Tensor]], want: tuple[Tensor, Sequence[Tensor]]) -> Any:
    """Relative errors of the value and of all gradients together, as norms."""

    def relative(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
        a, b = (torch.cat([v.double().flatten() for v in values]) for values in (found, wanted))
        return (torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b)).item()

    return {"value": relative([got[0]], [want[0]]), "gradient": relative(got[1], want[1])}


def exact(problem: str, inputs: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Dense PyTorch in fp64, a block of rows at a time."""
    subject = PROBLEMS[problem]
    doubles = [v.double() if v.is_floating_point() else v for v in inputs]
    return step(lambda *v: subject.dense(*v, **subject.options, block=1024), doubles)()


def judge(run: Step, want: Any, dtype: torch.dtype) -> dict[str, float]:
    """The errors of a contestant.

    Raises:
        ArithmeticError: they exceed the tolerance.
    """
    found = errors(run(), want)
    for what, error in found.items():
        if not error <= TOLERANCE[dtype]:
            raise ArithmeticError(f"relative error of the {what} is {error:.1e}")
    return found


def admit(
    problem: str, names: Sequence[str], inputs: Sequence[Tensor]
) -> tuple[dict[str, Step], dict[str, Any], dict[str, str]]:
    """The contestants that may be timed, their errors, and why others may not. The first must."""
    subject, want = PROBLEMS[problem], exact(problem, inputs)
    steps, error, refused = {}, {}, {}
    torch.compiler.reset()
    for name in names:
        try:
            run = step(subject.load(name, len(inputs[0]) * subject.views), inputs)
            error[name] = judge(run, want, inputs[0].dtype)
            steps[name] = run
        except Exception as problem_of_theirs:
            if name == names[0]:
                raise
            refused[name] = reason(problem_of_theirs)
    return steps, error, refused


def reason(error: Exception) -> str:
    """One line, with names of files but not their folders on this machine."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return FOLDERS.sub("", line)[:200]


# ---- the loop -----------------------------------------------------------------------------------


def interleave(
    steps: dict[str, Callable[[], Any]], *, seconds: float, least: int = 5, most: int = 300
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; every other round runs them in reverse order."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for turn in range(most):
        if turn >= least and time.perf_counter() - start > seconds:
            break
        for name in list(steps)[:: -1 if turn % 2 else 1]:
            before = time.perf_counter()
            steps[name]()
            found[name].append(time.perf_counter() - before)
    return found


def summary(times: dict[str, list[float]], ours: str) -> dict[str, dict[str, float]]:
    """For each contestant: median and quantiles of its seconds, and its time / ours."""
    found = {}
    for name, seconds in times.items():
        p20, *_, p80 = quantiles(seconds, n=5)
        ratios = [theirs / ours for theirs, ours in zip(seconds, times[ours], strict=True)]
        found[name] = {"seconds": median(seconds), "p20": p20, "p80": p80, "ratio": median(ratios)}
    return found
