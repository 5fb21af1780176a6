"""The stubs of contrastloss.functional, from the losses' declarations."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

from ..losses import LOSSES


def stubs() -> str:
    """The text of ``functional.pyi``: every loss as a typed function, in ruff's format."""
    lines = [
        "# Written by `python -m contrastloss.testing stubs`; do not edit.",
        "from typing import Any, Literal, overload",
        "",
        "from torch import Tensor",
        "",
        "from .distributed import Strategy",
        "from .memory import EmbeddingQueue",
        "",
    ]
    for name, cls in LOSSES.items():
        parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
        inputs = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        keywords = [_stub(p.name, p.annotation, p.default) for p in parameters[len(inputs) :]]
        keywords += [
            _stub(f.name, f.type, f.default) for f in fields(cls) if f.name != "return_stats"
        ]
        for default, result in ((" = False", "Tensor"), ("", "tuple[Tensor, dict[str, Tensor]]")):
            lines += ["@overload", f"def {name}("]
            flag = f"return_stats: Literal[{not default}]{default}"
            arguments = [*(_stub(p.name, p.annotation, p.default) for p in inputs), "*", flag]
            lines += [f"    {argument}," for argument in arguments + keywords]
            lines.append(f") -> {result}: ...")
    return "\n".join(lines) + "\n"


def _stub(name: str, annotation: Any, default: Any) -> str:
    if default in (MISSING, inspect.Parameter.empty):
        return f"{name}: {annotation}"
    text = f'"{default}"' if isinstance(default, str) else repr(default)
    return f"{name}: {annotation} = {text}".replace("'", '"')
