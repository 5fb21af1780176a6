"""What the report reads of a JSON file of pytest-benchmark, in addition to the command."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from contrastloss.bench import results
from contrastloss.bench.peers import CUDA, PROBLEMS

#: library products alone, beside losses on a GPU
PRODUCTS = "four products"
#: contestants of top-k
CHUNKED, FAISS = "matmul and topk", "faiss"
#: contestants of sorting: all of P, as ours, or one vector of masses; GroCo and NT-Xent
DIFFSORT, MASSES, GROCO, NT_XENT = "diffsort", "one mass", "groco", "nt_xent"


class Results(results.Results):
    def find(self, function: str, **case: Any) -> dict[str, Any] | None:
        """The run of a case, by any of its fields."""
        found = (info for info in self.of(function) if case.items() <= info["case"].items())
        return next(found, None)

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
