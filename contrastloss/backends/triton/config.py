"""Tile sizes by architecture and size class, and how programs share the tiles.

``CONTRASTLOSS_AUTOTUNE=1`` times the candidates at the first call of each class and prints the row
that would stand in the table.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import torch
import triton

from .operands import Operands

__all__ = ["CANDIDATES", "TABLE", "Config", "choose", "classify", "grid", "precision"]


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_d: int
    warps: int
    stages: int

    def options(self, d: int) -> dict[str, Any]:
        """As a launch takes them; no deeper than the vectors are long."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_D": min(self.block_d, max(16, triton.next_power_of_2(d))),
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


#: (architecture, bytes of an element, size) -> tiles. Chosen so that nothing spills; "any" serves
#: what has no row of its own. Not yet timed on any GPU.
TABLE: dict[tuple[str, int, str], Config] = {
    ("any", 2, "small"): Config(32, 32, 64, 4, 2),
    ("any", 2, "large"): Config(64, 64, 64, 8, 2),
    ("any", 4, "small"): Config(32, 32, 32, 4, 2),
    ("any", 4, "large"): Config(32, 64, 32, 8, 2),
    ("sm_90", 4, "large"): Config(64, 32, 32, 8, 2),
    ("sm_100", 4, "large"): Config(64, 64, 32, 8, 2),
    ("sm_100", 2, "small"): Config(32, 32, 32, 4, 2),
    ("gfx942", 2, "large"): Config(64, 64, 64, 4, 2),
    ("gfx942", 4, "large"): Config(32, 32, 32, 4, 2),
}
#: what autotuning tries
CANDIDATES = [
    Config(m, n, d, warps, stages)
    for m, n, warps in ((32, 64, 4), (64, 64, 4), (64, 64, 8), (128, 64, 8), (128, 128, 8))
    for d in (32, 64)
    for stages in (2, 3, 4)
]
_TUNED: dict[tuple, Config] = {}


@lru_cache(maxsize=16)
def architecture(device: torch.device) -> str:
    if device.type != "cuda":
        return "any"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def classify(o: Operands) -> tuple[str, int, str]:
    """The row of the table that a call asks for."""
    size = "small" if max(o.x.shape[1], o.y.shape[1]) <= 1024 else "large"
    return architecture(o.x.device), o.x.element_size(), size


def choose(o: Operands, kernel: str, run: Callable[[Config], Any]) -> Config:
    """The table's row for ``kernel`` ("forward" or "backward"), or the fastest candidate where
    autotuning is asked for; ``run`` makes the call with a given one."""
    key = classify(o)
    if os.environ.get("CONTRASTLOSS_AUTOTUNE") == "1" and o.x.device.type == "cuda":
        call = (kernel, *key)
        if call not in _TUNED:
            _TUNED[call] = _fastest(run)
            print(f"{kernel} {key}: Config{astuple(_TUNED[call])}", file=sys.stderr)
        return _TUNED[call]
    return TABLE.get(key) or TABLE[("any", *key[1:])]


def _fastest(run: Callable[[Config], Any]) -> Config:
    times: dict[Config, float] = {}
    for config in CANDIDATES:
        try:
            times[config] = triton.testing.do_bench(lambda c=config: run(c), warmup=5, rep=20)
        except triton.runtime.errors.OutOfResources:
            continue  # more shared memory or registers than this chip has
    return min(times, key=times.__getitem__)


@lru_cache(maxsize=16)
def processors(device: torch.device) -> int:
    """Programs that run at once."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def grid(m: int, n: int, config: Config, device: torch.device) -> tuple[int, int]:
    """(across, down): over how many programs blocks of rows and blocks of columns are spread. What
    is found of a row takes ``down`` slices, and of a column ``across``, so that both are kept near
    the root of the number of programs that there should be."""
    wanted = 2 * processors(device)
    row_blocks = max(1, triton.cdiv(m, config.block_m))
    col_blocks = max(1, triton.cdiv(n, config.block_n))
    across = min(row_blocks, math.isqrt(wanted - 1) + 1)
    down = min(col_blocks, triton.cdiv(wanted, across))
    return min(row_blocks, triton.cdiv(wanted, down)), down


def precision(o: Operands) -> str:
    """Of fp32 products: TF32 alone only where the user allows it."""
    if o.x.dtype != torch.float32 or o.x.device.type != "cuda" or torch.version.hip:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
