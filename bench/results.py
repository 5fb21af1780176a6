"""Reads one JSON file of pytest-benchmark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers import CHECKPOINTED, COMPILED, CUDA, DENSE, OURS, PROBLEMS, REFERENCE, TRITON
from timing import PRODUCTS

__all__ = [
    "CHECKPOINTED",
    "COMPILED",
    "CUDA",
    "DENSE",
    "OURS",
    "REFERENCE",
    "TRITON",
    "Results",
]


class Results:
    def __init__(self, file: Path) -> None:
        self.file = file
        data = json.loads(file.read_text())
        self.machine: dict[str, Any] = data["machine_info"]
        self.commit: dict[str, Any] = data["commit_info"]
        self.date: str = data["datetime"][:10]
        #: (function, its extra_info with pytest-benchmark's own median as "seconds")
        self.runs = [
            (
                b["fullname"].partition("::")[2].partition("[")[0],
                b["extra_info"] | {"seconds": b["stats"]["median"]},
            )
            for b in data["benchmarks"]
        ]

    def of(self, *functions: str) -> list[dict[str, Any]]:
        return [info for name, info in self.runs if name in functions]

    def find(self, function: str, **case: Any) -> dict[str, Any] | None:
        """The run of a case, by any of its fields."""
        found = (info for info in self.of(function) if case.items() <= info["case"].items())
        return next(found, None)

    # ---- speed ----------------------------------------------------------------------------------

    def seconds(self, info: dict[str, Any], name: str = OURS) -> float | None:
        alone = info["seconds"] if name == OURS else None
        return info["times"].get(name, {}).get("seconds", alone)

    def efficiency(self, info: dict[str, Any], name: str = OURS) -> float:
        """The least time of its matrix products, at the rate of a large product measured in the
        same minute, divided by its time."""
        if "gemm" not in info["times"]:  # a small batch
            return math.nan
        rate = info["gemm"] / info["times"]["gemm"]["seconds"]
        return info["floor"] / rate / (self.seconds(info, name) or math.nan)

    @staticmethod
    def best(info: dict[str, Any]) -> float:
        """The time of the faster one of Triton and CUDA C++, divided by Triton's."""
        return min(1.0, info["times"].get(CUDA, {}).get("ratio", 1.0))

    @staticmethod
    def over_products(info: dict[str, Any]) -> float:
        """Our time divided by that of the products alone, of which a problem may need half."""
        problem = PROBLEMS[info["case"]["problem"]]
        return 4 / problem.gemms / info["times"][PRODUCTS]["ratio"]

    def scaling(self, name: str) -> Iterator[tuple[int, float, float]]:
        """Rows, seconds and efficiency of CLIP."""
        for info in self.of("bench_beside_dense", "bench_alone"):
            if (seconds := self.seconds(info, name)) is not None:
                yield info["case"]["rows"], seconds, self.efficiency(info, name)

    # ---- memory ---------------------------------------------------------------------------------

    def memory(self, problem: str) -> dict[str, dict[int, dict[str, int]]]:
        """Contestant -> rows -> result of its memory probe."""
        found: dict[str, dict[int, dict[str, int]]] = {}
        for info in self.of("bench_memory"):
            if info["case"]["problem"] == problem:
                found.setdefault(info["name"], {})[info["case"]["rows"]] = info["memory"]
        return found

    def extra(self, problem: str, name: str) -> list[tuple[int, int]]:
        """Rows, and bytes in addition to inputs and gradients, of passes that succeeded."""
        probes = self.memory(problem).get(name, {})
        return [(rows, probe["extra"]) for rows, probe in probes.items() if "extra" in probe]


def exponent(points: list[tuple[int, float]]) -> float:
    """k of value ~ rows^k between the first and the last point."""
    (a, low), (b, high) = points[0], points[-1]
    return math.log(high / low) / math.log(b / a)
