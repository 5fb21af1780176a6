"""The adapters of contrastloss.compat beside the classes that they stand for: one batch of a size
that they are used with today, and a large one."""

from __future__ import annotations

from typing import Any

import adapters
import pytest
import torch
from adapters import ADAPTERS, OURS, THEIRS

from contrastloss.bench.timing import interleave, judge, reason, step, summary

ROWS = (256, 4096)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", ADAPTERS)
def bench_adapter(benchmark: Any, name: str, rows: int, seconds: float) -> None:
    want = step(adapters.loss(name, OURS), adapters.inputs(name, rows, torch.float64))()
    steps, errors, refused = {}, {}, {}
    for which in (OURS, THEIRS):
        try:
            run = step(adapters.loss(name, which), adapters.inputs(name, rows))
            errors[which] = judge(run, want, torch.float32)
            steps[which] = run
        except Exception as problem_of_theirs:
            if which == OURS:
                raise
            refused[which] = reason(problem_of_theirs)
    times = interleave(steps, seconds=seconds / 4, least=3)
    benchmark.extra_info |= {
        "case": {"problem": name, "rows": rows, "d": adapters.D, "dtype": "float32"},
        "times": summary(times, OURS),
        "errors": errors,
        "refused": refused,
        "memory": {which: adapters.probe(name, which, rows) for which in steps},
    }
    benchmark.pedantic(steps[OURS], rounds=3)
