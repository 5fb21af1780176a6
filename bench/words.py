"""The words of docs/performance.md: tables, times, sizes and cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from results import Results

SHORT = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def percent(share: float) -> str:
    return "" if share != share else f"{share:.0%}"


def size(memory: dict[str, int] | None) -> str:
    if memory is None:
        return ""
    if "asked" in memory:
        return f"fails: asks for {memory['asked'] / 1e9:.4g} GB"
    return f"{memory['extra'] / 1e6:,.0f} MB"


def factor(info: dict[str, Any], name: str) -> str:
    found = info["times"].get(name)
    return f"{found['ratio']:.2f}" if found else "refused" if name in info["refused"] else ""


def image(results: Results) -> str:
    return f"images/performance-{results.file.stem}.svg"


def title(case: dict[str, Any]) -> str:
    return f"{case['problem']}, {case['rows']:,} x {case['d']}, {SHORT[case['dtype']]}"


def machine(results: Results) -> str:
    m = results.machine
    where = m["gpu"] if m["device"] == "cuda" else f"{m['processor']}, {m['threads']} threads"
    return f"{where}; {m['system']}, torch {m['torch']}, Python {m['python']}"
