"""The memory of this process over time, and whether it is flat."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: MB that the highest reading of the second half may lie above that of the first
ALLOWED = 8.0


class Readings:
    """Resident memory after each pass, in MB. How much of its free memory the allocator can give
    back differs from pass to pass by a fifth, so single readings and medians say little. A leak
    raises the highest ones."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []

    def take(self, minutes: float, megabytes: float | None = None) -> None:
        self.taken.append((minutes, resident() if megabytes is None else megabytes))

    @property
    def last(self) -> float:
        return self.taken[-1][1]

    def highest(self, part: int, parts: int) -> float:
        """The highest reading of one of some equal parts of the run."""
        values = [megabytes for _, megabytes in self.taken]
        return max(values[part * len(values) // parts : (part + 1) * len(values) // parts])

    @property
    def growth(self) -> float:
        return self.highest(1, 2) - self.highest(0, 2)

    @property
    def flat(self) -> bool:
        return self.growth <= ALLOWED

    def __str__(self) -> str:
        quarters = ", ".join(f"{self.highest(k, 4):.1f}" for k in range(4))
        return f"highest memory by quarter: {quarters} MB"


def resident() -> float:
    """MB of this process in memory, after the allocator has given back what is free."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
