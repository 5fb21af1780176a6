"""Tile sizes by architecture and size class, and how program instances share the tiles.

``CONTRASTLOSS_AUTOTUNE=1`` times the candidates at the first call of each class and prints the row
for the table.
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

from ..h_blocks import allows_tf32
from .operands import KernelOperands

__all__ = ["CANDIDATES", "TABLE", "Config", "choose", "classify", "grid", "precision"]


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_d: int
    warps: int
    stages: int

    def options(self, d: int) -> dict[str, Any]:
        """The launch options. BLOCK_D is not larger than the vectors need."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_D": min(self.block_d, max(16, triton.next_power_of_2(d))),
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


#: (architecture, bytes per element, size) -> tiles. Chosen so that no registers spill; "any" is for
#: architectures without their own row. Not yet timed on any GPU.
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
#: the configurations that autotuning tries
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


def classify(o: KernelOperands) -> tuple[str, int, str]:
    """The key of the table row for a call."""
    size = "small" if max(o.x.shape[1], o.y.shape[1]) <= 1024 else "large"
    return architecture(o.x.device), o.x.element_size(), size


def choose(o: KernelOperands, kernel: str, run: Callable[[Config], Any]) -> Config:
    """The table's row for ``kernel`` ("forward" or "backward"), or the fastest candidate if
    autotuning is enabled; ``run`` makes the call with a given configuration."""
    key = classify(o)
    if os.environ.get("CONTRASTLOSS_AUTOTUNE") == "1" and o.x.device.type == "cuda":
        call = (kernel, *key)
        if call not in _TUNED:
            _TUNED[call] = _fastest(run)
            print(f"{kernel} {key}: Config{astuple(_TUNED[call])}", file=sys.stderr)
        return _TUNED[call]
    common = ("any", *key[1:])
    return TABLE.get(key) or TABLE[common]


def _fastest(run: Callable[[Config], Any]) -> Config:
    times: dict[Config, float] = {}
    for config in CANDIDATES:
        try:
            times[config] = triton.testing.do_bench(lambda c=config: run(c), warmup=5, rep=20)
        except triton.runtime.errors.OutOfResources:
            continue  # needs more shared memory or registers than this chip has
    return min(times, key=times.__getitem__)


@lru_cache(maxsize=16)
def processors(device: torch.device) -> int:
    """How many program instances run concurrently."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def grid(m: int, n: int, config: Config, device: torch.device) -> tuple[int, int]:
    """(across, down): how many program instances share the blocks of rows and the blocks of
    columns. Partial results of rows need ``down`` slices and those of columns ``across`` slices, so
    both are kept near the square root of the number of instances."""
    wanted = 2 * processors(device)
    row_blocks = max(1, triton.cdiv(m, config.block_m))
    col_blocks = max(1, triton.cdiv(n, config.block_n))
    across = min(row_blocks, math.isqrt(wanted - 1) + 1)
    down = min(col_blocks, triton.cdiv(wanted, across))
    return min(row_blocks, triton.cdiv(wanted, down)), down


def precision(o: KernelOperands) -> str:
    """The precision of fp32 products: plain TF32 only if the user allows it."""
    if o.x.dtype != torch.float32 or o.x.device.type != "cuda" or torch.version.hip:
        return "ieee"
    return "tf32" if allows_tf32() else "tf32x3"
