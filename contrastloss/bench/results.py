"""Reads one JSON file of pytest-benchmark, and words for what is in it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .peers import OURS
from .timing import GEMM

__all__ = ["SHORT", "Results", "machine", "percent", "times", "title"]

SHORT = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Results:
    """The runs of a file and the machine that they were measured on.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON file of these benchmarks.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            self.machine: dict[str, Any] = dict(data["machine_info"])
            self.commit: dict[str, Any] = dict(data["commit_info"])
            self.date: str = data["datetime"][:10]
            #: (name, its extra_info with pytest-benchmark's own median as "seconds")
            self.named: list[tuple[str, dict[str, Any]]] = [
                (b["name"], {**b["extra_info"], "seconds": b["stats"]["median"]})
                for b in data["benchmarks"]
            ]
            self.peers: dict[str, str] = dict(self.machine["peers"])
            self.cases = [info["case"] for _, info in self.named]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("its fields are not those of these benchmarks") from error

    def of(self, *functions: str) -> list[dict[str, Any]]:
        return [info for name, info in self.named if name.partition("[")[0] in functions]

    def seconds(self, info: dict[str, Any], name: str = OURS) -> float | None:
        alone = info["seconds"] if name == OURS else None
        return info["times"].get(name, {}).get("seconds", alone)

    def efficiency(self, info: dict[str, Any], name: str = OURS) -> float:
        """The least time of its matrix products, at the rate of a large product measured in the
        same minute, divided by its time."""
        if GEMM not in info["times"]:  # a small batch
            return math.nan
        rate = info["gemm"] / info["times"][GEMM]["seconds"]
        return info["floor"] / rate / (self.seconds(info, name) or math.nan)


def times(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def percent(share: float) -> str:
    return "" if share != share else f"{share:.0%}"


def title(case: dict[str, Any]) -> str:
    return f"{case['problem']}, {case['rows']:,} x {case['d']}, {SHORT[case['dtype']]}"


def machine(results: Results, chip: str | None = None) -> str:
    """What results were measured on; ``chip`` is more than the name of its chip."""
    m = results.machine
    name = chip or m["gpu" if m["device"] == "cuda" else "processor"]
    where = name if m["device"] == "cuda" else f"{name}, {m['threads']} threads"
    return f"{where}; {m['system']}, torch {m['torch']}, Python {m['python']}"
