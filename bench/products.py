"""The library products alone of a forward and a backward pass, beside losses."""

from __future__ import annotations

from collections.abc import Callable

import torch

from contrastloss.bench.timing import synchronise


def products(rows: int, d: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """The four products of a pass that computes its scores twice."""
    x, y = torch.randn(2, rows, d, device=device).to(dtype)
    scores = x.new_empty(rows, rows)

    def run() -> None:
        for _ in range(2):
            torch.mm(x, y.T, out=scores)
        torch.mm(scores, y)
        torch.mm(scores.T, x)
        synchronise(device)

    run()
    return run
