"""The public interface as text: every public name with its parameters and their defaults.

A name is public if it is in ``__all__`` of a module of :data:`MODULES`. ``make api`` compares the
package with ``tests/api.txt``; ``make api RECORD=1`` writes that file, whose diff is to be reviewed
like code.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_suffix(".txt")
#: all that users may import; what lies elsewhere can change in every release
MODULES = (
    "contrastloss", "contrastloss.functional", "contrastloss.losses", "contrastloss.ops",
    "contrastloss.channel", "contrastloss.memory", "contrastloss.metrics", "contrastloss.mining",
    "contrastloss.mixing", "contrastloss.plots", "contrastloss.sorting", "contrastloss.decoding",
    "contrastloss.distributed", "contrastloss.gradcache", "contrastloss.presets",
    "contrastloss.backends", "contrastloss.testing",
    "contrastloss.compat.grad_cache", "contrastloss.compat.info_nce",
    "contrastloss.compat.lightly", "contrastloss.compat.open_clip",
    "contrastloss.compat.pytorch_metric_learning",
    "contrastloss.compat.sentence_transformers", "contrastloss.compat.solo_learn",
    "contrastloss.compat.supcontrast",
)  # fmt: skip


def lines() -> Iterator[str]:
    """A line for each name and, indented, for each method that a class adds to its bases."""
    seen: dict[int, str] = {}
    for module in MODULES:
        names = vars(importlib.import_module(module))
        for name in sorted(names["__all__"]):
            value, path = names[name], f"{module}.{name}"
            known = seen.setdefault(id(value), path) if callable(value) else path
            if known != path:
                yield f"{path} = {known}"
            elif inspect.isclass(value):
                yield from class_lines(path, value)
            elif callable(value):
                yield f"{path}{parameters(value)}"
            else:
                yield f"{path}: {kind(value)}"


def class_lines(path: str, cls: type) -> Iterator[str]:
    yield f"class {path}{parameters(cls)}"
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_"):
            continue
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function):
            yield f"    {name}{parameters(function)}"
        elif isinstance(value, property):
            yield f"    {name}: property"


def kind(value: Any) -> str:
    return "module" if inspect.ismodule(value) else type(value).__name__


def parameters(function: Any) -> str:
    """``(x: Tensor, y: Tensor, *, scale: float = 1.0)``, with types where they are written."""
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:  # of a built-in
        return "(...)"
    parts, before = [], None
    for p in found:
        if p.kind is p.KEYWORD_ONLY and before not in (p.KEYWORD_ONLY, p.VAR_POSITIONAL):
            parts.append("*")
        before = p.kind
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        typed = f": {p.annotation}" if isinstance(p.annotation, str) else ""
        default = "" if p.default is p.empty else f" = {shown(p.default)}"
        parts.append(f"{stars}{p.name}{typed}{default}")
    return f"({', '.join(parts)})"


def shown(default: Any) -> str:
    """A default without the address that functions and objects have in their repr."""
    return getattr(default, "__qualname__", None) or repr(default)


def difference() -> str:
    """The lines that the record has and the package has not, and the other way round."""
    recorded = RECORD.read_text().splitlines() if RECORD.exists() else []
    return "\n".join(difflib.unified_diff(recorded, list(lines()), "tests/api.txt", "the package",
                                          lineterm="", n=0))  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    if parser.parse_args().record:
        RECORD.write_text("\n".join(lines()) + "\n")
    found = difference()
    print(found or "the public interface is that of tests/api.txt")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
