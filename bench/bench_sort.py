"""Differentiable sorting compared with diffsort, forward and backward; GroCo with NT-Xent."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import memory
import pytest
import torch
from results import DIFFSORT, GROCO, MASSES, NT_XENT
from torch import Tensor

import contrastloss
from contrastloss.bench.peers import CUDA, OURS, TRITON
from contrastloss.bench.timing import interleave, reason, summary
from contrastloss.ops import sort_network

#: rows, n, network
CASES = [
    (4096, 16, "odd_even"),
    (4096, 16, "bitonic"),
    (256, 128, "odd_even"),
]
STEEPNESS = 10.0

Sort = Callable[[Tensor], tuple[Tensor, ...]]
Step = Callable[[], tuple[Tensor, ...]]


def matrices(x: Tensor, network: str, backend: str | None = None) -> Sort:
    """Sorted rows and the whole matrix P, as diffsort returns them."""
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        values, mass = sort_network(
            x, identity, steepness=STEEPNESS, network=network, backend=backend
        )
        return values, mass.mT

    return run


def masses(x: Tensor, network: str) -> Sort:
    """Sorted rows and the mass of the upper half of the ranks, the most common use of P."""
    upper = torch.arange(x.shape[1], device=x.device) >= x.shape[1] // 2

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        t = upper.to(x.dtype).unsqueeze(0)
        values, mass = sort_network(x, t, steepness=STEEPNESS, network=network)
        return values, mass

    return run


def diffsort(x: Tensor, network: str) -> Sort:
    from diffsort import DiffSortNet

    return DiffSortNet(network, x.shape[1], steepness=STEEPNESS, device=x.device)


CONTESTANTS = {OURS: matrices, MASSES: masses, DIFFSORT: diffsort}
#: on a GPU, as long as neither is chosen automatically
NAMED = {name: partial(matrices, backend=name) for name in (TRITON, CUDA)}


def step(run: Sort, x: Tensor, device: str) -> Step:
    """Forward, and backward with fixed gradients of both results."""
    leaf = x.detach().requires_grad_()
    made = torch.Generator().manual_seed(0)
    weights = [torch.randn(v.shape, generator=made).to(v) for v in run(leaf)]

    def go() -> tuple[Tensor, ...]:
        found = run(leaf)
        (grad,) = torch.autograd.grad(found, leaf, weights)
        if device == "cuda":
            torch.cuda.synchronize()
        return (*(v.detach() for v in found), grad)

    return go


def peak(name: str, rows: int, n: int, network: str) -> int:
    """Peak memory of a forward and backward pass on the CPU, in its own process (see memory.py)."""
    command = [sys.executable, __file__, name, str(rows), str(n), network]
    environment = os.environ | memory.MALLOC
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def bench_sort(benchmark: Any, case: Any, device: str, seconds: float) -> None:
    rows, n, network = case
    x = torch.randn(rows, n, generator=torch.Generator().manual_seed(0)).to(device)
    steps = {}
    want, refused, errors = step(matrices(x.double(), network), x.double(), device)(), {}, {}
    for name, make in (CONTESTANTS | (NAMED if device == "cuda" else {})).items():
        if name == MASSES:  # it has another result
            continue
        try:
            run = step(make(x, network), x, device)
            found = run()
            errors[name] = max(
                ((a.double() - b).abs().max() / b.abs().max()).item()
                for a, b in zip(found, want, strict=True)
            )
            if not errors[name] <= 1e-3:
                raise ArithmeticError(f"relative error is {errors[name]:.1e}")
            steps[name] = run
        except Exception as problem_of_theirs:
            if name == OURS:
                raise
            refused[name] = reason(problem_of_theirs)
    steps[MASSES] = step(masses(x, network), x, device)
    times = interleave(steps, seconds=seconds, least=3)
    benchmark.extra_info |= {
        "case": {"problem": network, "rows": rows, "d": n, "dtype": "float32"},
        "times": summary(times, OURS),
        "errors": errors,
        "refused": refused,
        "memory": {name: peak(name, *case) for name in steps} if device == "cpu" else {},
    }
    benchmark.pedantic(steps[OURS], rounds=3)


def bench_groco(benchmark: Any, device: str, seconds: float) -> None:
    """GroCo with ten negatives compared with NT-Xent, on two views of 4,096 rows."""
    made = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4096, 128, generator=made).to(device)
    z[1] = z[0] + 0.5 * z[1]
    losses = {
        OURS: lambda z: (contrastloss.GroCoLoss(topk_neg=10)(z),),
        NT_XENT: lambda z: (contrastloss.NTXentLoss()(z[0], z[1]),),
    }
    steps = {name: step(loss, z, device) for name, loss in losses.items()}
    assert all(math.isfinite(run()[0].item()) for run in steps.values())
    times = interleave(steps, seconds=seconds)
    benchmark.extra_info |= {
        "case": {"problem": GROCO, "rows": 4096, "d": 128, "dtype": "float32"},
        "times": summary(times, OURS),
    }
    benchmark.pedantic(steps[OURS], rounds=3)


def main(name: str, rows: str, n: str, network: str) -> None:
    torch.set_num_threads(2)
    make = CONTESTANTS[name]
    small, x = torch.randn(4, int(n)), torch.randn(int(rows), int(n))
    step(make(small, network), small, "cpu")()  # the first call loads libraries and starts threads
    run = step(make(x, network), x, "cpu")
    before = memory.reset_peak("cpu")
    run()
    print(memory.peak("cpu") - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
