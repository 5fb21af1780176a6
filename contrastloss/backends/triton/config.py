"""Tile sizes by architecture, and how program instances share the tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
import triton

from ..h_blocks import allows_tf32

if TYPE_CHECKING:
    from .operands import KernelOperands

__all__ = ["SHORT", "TABLE", "Config", "ceil_div", "choose", "classify", "grid", "precision"]


def ceil_div(n: int, size: int) -> int:
    """How many parts of a size cover n; triton.cdiv takes microseconds."""
    return -(-n // size)


@dataclass(frozen=True)
class Config:
    """``instances`` of a multiprocessor run at the same time. x and y are loaded through tensor
    descriptors ("tma"), through "pointers", or not at all: the products are a "library"'s."""

    block_m: int
    block_n: int
    block_d: int
    warps: int
    stages: int
    instances: int = 1
    how: Literal["tma", "pointers", "library"] = "pointers"

    @property
    def library(self) -> bool:
        return self.how == "library"

    def depth(self, d: int) -> int:
        """Numbers of a row per step of the products: not more than the vectors have."""
        return min(self.block_d, max(16, 1 << max(d - 1, 0).bit_length()))

    def options(self, d: int) -> dict[str, Any]:
        """The launch options."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_D": self.depth(d),
            "HOW": self.how,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,  # the default changes with Triton 3.10
        }


#: few rows, many rows, and a program of many channels
CLASSES = ("small", "large", "many")
#: (architecture, bytes per element, class) -> tiles; "any" is for architectures and classes without
#: their own row, and "cpu" Triton's interpreter. Chosen from ahead-of-time compiles: registers,
#: spills and instructions per pair. Not yet timed on any GPU.
TABLE: dict[tuple[str, int, str], Config] = {
    ("any", 2, "small"): Config(32, 32, 64, 4, 2, 2, how="library"),
    ("any", 2, "large"): Config(64, 64, 64, 8, 2, how="library"),
    ("any", 2, "many"): Config(64, 64, 64, 8, 2, how="library"),
    ("any", 4, "small"): Config(32, 32, 32, 4, 2, 2, how="library"),
    ("any", 4, "large"): Config(32, 64, 32, 8, 2, how="library"),
    ("any", 4, "many"): Config(32, 64, 32, 8, 2, how="library"),
    **{("cpu", size, of): Config(32, 32, 32, 4, 1) for size in (2, 4) for of in CLASSES},
    ("sm_80", 2, "large"): Config(128, 64, 32, 8, 3),
    ("sm_80", 4, "large"): Config(128, 64, 32, 8, 3),
    ("sm_90", 2, "small"): Config(64, 64, 64, 4, 3, 2, how="tma"),
    ("sm_90", 2, "large"): Config(128, 128, 64, 8, 3, how="tma"),
    ("sm_90", 2, "many"): Config(64, 64, 64, 8, 3, how="tma"),
    ("sm_90", 4, "small"): Config(64, 64, 32, 4, 3, 2, how="tma"),
    ("sm_90", 4, "large"): Config(128, 64, 32, 8, 3, how="tma"),
    ("sm_90", 4, "many"): Config(64, 32, 32, 4, 3, 2, how="tma"),
    ("sm_100", 2, "small"): Config(64, 64, 64, 8, 3, how="tma"),
    ("sm_100", 2, "large"): Config(128, 128, 64, 8, 3, how="tma"),
    ("sm_100", 2, "many"): Config(64, 64, 64, 8, 3, how="tma"),
    ("sm_100", 4, "large"): Config(64, 64, 32, 8, 3, how="tma"),
    ("sm_120", 2, "large"): Config(128, 64, 64, 8, 2, how="tma"),
    ("sm_120", 4, "large"): Config(64, 64, 32, 8, 2, how="tma"),
    ("gfx90a", 2, "large"): Config(64, 64, 64, 4, 2),
    ("gfx942", 2, "large"): Config(128, 128, 64, 8, 2),
}


@lru_cache(maxsize=16)
def architecture(device: torch.device) -> str:
    if device.type != "cuda":
        return "cpu" if device.type == "cpu" else "any"
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def classify(o: KernelOperands) -> tuple[str, int, str]:
    """The key of the table row for a call: few pairs, many pairs, or a program of many channels."""
    size = "small" if max(o.x.shape[1], o.y.shape[1]) <= 1024 else "large"
    if len(o.channels) > FEW:
        size = "many"
    return architecture(o.x.device), o.x.element_size(), size


#: the most channels that tiles of the class "large" hold in registers
FEW = 4


def choose(o: KernelOperands) -> Config:
    """The table's row for a call."""
    key = classify(o)
    return TABLE.get(key) or TABLE["any", key[1], key[2]]


@lru_cache(maxsize=16)
def processors(device: torch.device) -> int:
    """How many multiprocessors there are."""
    if device.type == "cpu":  # in the interpreter
        return 2
    found = triton.runtime.driver.active.utils.get_device_properties(device.index)
    return int(found["multiprocessor_count"])


def grid(m: int, n: int, config: Config, device: torch.device) -> tuple[int, int]:
    """(across, down): how many program instances share the blocks of rows and the blocks of
    columns, so that the one with the most tiles has the fewest possible. Partial results of rows
    need ``down`` slices and those of columns ``across`` slices, so of equal ones the smallest sum
    of both is chosen."""
    rows, cols = ceil_div(max(m, 1), config.block_m), ceil_div(max(n, 1), config.block_n)
    return _shares(rows, cols, config.instances * processors(device))


@lru_cache(maxsize=1024)
def _shares(rows: int, cols: int, instances: int) -> tuple[int, int]:
    def longest(across: int, down: int) -> int:
        return ceil_div(rows, across) * ceil_div(cols, down)

    shares = [(a, min(cols, instances // a)) for a in range(1, min(rows, instances) + 1)]
    return min(shares, key=lambda s: (longest(*s), sum(s)))


#: Rows of fp32 with at most as many numbers are multiplied without matrix instructions: three
#: products of TF32 leave out 2^-22 of each, which only longer sums hide.
SHORT = 32


def precision(o: KernelOperands) -> str:
    """The precision of fp32 products: plain TF32 only if the user allows it."""
    if o.x.dtype != torch.float32 or o.x.device.type != "cuda" or torch.version.hip:
        return "ieee"
    if allows_tf32():
        return "tf32"
    return "ieee" if o.x.shape[-1] <= SHORT else "tf32x3"
