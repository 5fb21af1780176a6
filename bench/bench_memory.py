"""Memory in addition to inputs and gradients, each contestant in its own process."""

from __future__ import annotations

from typing import Any

import memory
import pytest
import torch

from contrastloss.bench.peers import (
    CACHED,
    CHECKPOINTED,
    COMPILED,
    DENSE,
    LINEAR,
    LINEAR_BLOCKS,
    OURS,
)

#: problem, contestant and rows; at the largest sizes the others only show how much they ask for
CASES = [
    *(("clip", OURS, rows) for rows in (1024, 4096, 16384, 65536, 131072)),
    *(("clip", DENSE, rows) for rows in (1024, 4096, 16384, 65536)),
    *(("clip", CHECKPOINTED, rows) for rows in (1024, 4096, 16384)),
    *(("clip", name, 4096) for name in (COMPILED, "open_clip")),
    *(("nt_xent", name, 8192) for name in (OURS, DENSE, COMPILED, CHECKPOINTED, "lightly")),
    *(("nt_xent", "pytorch-metric-learning", rows) for rows in (256, 512, 8192)),
    ("nt_xent", OURS, 256),
    *(("info_nce", name, 8192) for name in (OURS, DENSE, LINEAR, LINEAR_BLOCKS, CACHED)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def bench_memory(benchmark: Any, case: Any, device: str) -> None:
    problem, name, rows = case
    what = {"problem": problem, "rows": rows, "d": 128, "dtype": "float32"}
    found: dict[str, Any] = {}

    def run() -> None:
        found.update(
            memory.probe(**what, name=name, device=device, threads=torch.get_num_threads())
        )

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {"case": what, "name": name, "memory": found}
