"""The stubs of contrastloss.functional, from the losses' declarations."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any

from ..losses import LOSSES, PairLoss
from ..losses.base.options import declared, spelled


def stubs() -> str:
    """The text of ``functional.pyi``: every loss as a typed function, in ruff's format."""
    lines = [
        "# Written by `python -m contrastloss.testing stubs`; do not edit.",
        "from collections.abc import Sequence",
        "from typing import Any, Literal, overload",
        "",
        "from torch import Tensor",
        "",
        "from .losses.base.pair_loss import Memory",
        "from .memory import EmbeddingQueue",
        "",
    ]
    for name, cls in LOSSES.items():
        parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
        inputs = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        keywords = [_stub(p.name, p.annotation, p.default) for p in parameters[len(inputs) :]]
        keywords += [
            _stub(f.name, spelled(declared(cls)[f.name]), f.default)
            for f in fields(cls)
            if f.name != "return_stats"
        ]
        first = [_stub(p.name, p.annotation, p.default) for p in inputs]
        if inputs[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            first[-1] = f"*{first[-1]}"
        else:
            first.append("*")
        if not issubclass(cls, PairLoss):
            lines += _def(name, first + keywords, "Tensor")
            continue
        for default, result in ((" = False", "Tensor"), ("", "tuple[Tensor, dict[str, Tensor]]")):
            flag = f"return_stats: Literal[{not default}]{default}"
            lines += ["@overload", *_def(name, [*first, flag, *keywords], result)]
    return "\n".join(lines) + "\n"


def _def(name: str, arguments: Sequence[str], result: str) -> list[str]:
    return [f"def {name}(", *(f"    {argument}," for argument in arguments), f") -> {result}: ..."]


def _stub(name: str, annotation: Any, default: Any) -> str:
    if default in (MISSING, inspect.Parameter.empty):
        return f"{name}: {annotation}"
    text = f'"{default}"' if isinstance(default, str) else repr(default)
    return f"{name}: {annotation} = {text}".replace("'", '"')
