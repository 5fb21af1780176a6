"""The words of docs/performance.md: tables, sizes and cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from results import Results


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
