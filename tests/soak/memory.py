"""The memory of this process over time, and whether it is flat."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from statistics import median

#: MB between the middles of the second and of the last quarter of a run; a leak of 1 KB per step
#: exceeds it within ten minutes
ALLOWED = 8.0


class Readings:
    """Resident memory after each pass, in MB. The first quarter of the readings is warm-up: caches
    fill, and arenas of the allocator are made."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []

    def take(self, minutes: float, megabytes: float | None = None) -> None:
        self.taken.append((minutes, resident() if megabytes is None else megabytes))

    @property
    def last(self) -> float:
        return self.taken[-1][1]

    def quarter(self, k: int) -> float:
        """The median of the k-th quarter of the readings."""
        values = [megabytes for _, megabytes in self.taken]
        return median(values[k * len(values) // 4 : (k + 1) * len(values) // 4])

    @property
    def growth(self) -> float:
        return self.quarter(3) - self.quarter(1)

    @property
    def flat(self) -> bool:
        return self.growth <= ALLOWED

    def __str__(self) -> str:
        quarters = ", ".join(f"{self.quarter(k):.1f}" for k in range(4))
        return f"medians of memory by quarter: {quarters} MB"


def resident() -> float:
    """MB of this process in memory, after the allocator has given back what is free."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
