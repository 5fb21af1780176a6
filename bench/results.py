"""What the report reads of a JSON file of pytest-benchmark, in addition to the command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from contrastloss.bench import results
from contrastloss.bench.peers import COMPILED, CUDA, OURS, PROBLEMS
from contrastloss.bench.timing import GEMM

#: library products alone, beside losses on a GPU
PRODUCTS = "four products"
#: contestants of top-k
CHUNKED, FAISS = "matmul and topk", "faiss"
#: contestants of sorting: all of P, as ours, or one vector of masses; GroCo and NT-Xent
DIFFSORT, MASSES, GROCO, NT_XENT = "diffsort", "one mass", "groco", "nt_xent"


#: the instructions that matter of a CPU, by the names of the C++ backend's code for them
INSTRUCTIONS = {
    "amx": "AMX",
    "avx512_bf16": "AVX-512 with bf16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "generic": "no vector instructions that are chosen at run time",
    "none": "without the C++ backend",
}


class Results(results.Results):
    @property
    def chip(self) -> str:
        """Of which class the chip is that these were measured on."""
        if self.machine["device"] == "cuda":
            return str(self.machine["gpu"])
        instructions = self.machine.get("instructions")  # files from before it was recorded
        named = INSTRUCTIONS.get(instructions, instructions)
        return f"{self.machine['processor']}" + (f", {named}" if named else "")

    @property
    def made(self) -> str:
        """When, and from which code."""
        changes = " with changes" if self.commit["dirty"] else ""
        return f"{self.date}, commit {self.commit['id'][:12]}{changes}"

    @property
    def kinds(self) -> set[str]:
        """The functions of its benchmarks."""
        return {name.partition("[")[0] for name, _ in self.named}

    @staticmethod
    def rival(info: dict[str, Any]) -> float:
        """The time of the fastest of dense PyTorch and other libraries' classes, divided by ours;
        compiled code is none of them."""
        others = info["times"].keys() - {OURS, GEMM, COMPILED}
        return min((info["times"][name]["ratio"] for name in others), default=math.nan)

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


def by_chip(every: Iterable[Results]) -> dict[str, list[Results]]:
    """The results of each class of chips, in their order."""
    found: dict[str, list[Results]] = {}
    for one in every:
        found.setdefault(one.chip, []).append(one)
    return found


def exponent(points: list[tuple[int, float]]) -> float:
    """k of value ~ rows^k between the first and the last point."""
    (a, low), (b, high) = points[0], points[-1]
    return math.log(high / low) / math.log(b / a)
