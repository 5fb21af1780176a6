"""Generates contrastloss.functional from the declarations of the losses."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from textwrap import indent
from typing import Any

from ..losses import LOSSES, Loss, PairLoss
from ..options import declared, spelled
from .docstrings import documented

__all__ = ["functions"]

FUNCTIONS = '''"""Every loss as a function, ``clip(x, y, *, temperature=0.07, ...)``: the module's
inputs, then its options by keyword.

Written by `python -m contrastloss.testing write`; do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from torch import Tensor

from .losses.base.evaluate import evaluate
from .losses.base.pair_loss import Memory
from .memory import EmbeddingQueue

__all__ = [
    {names},
]
'''

_WITH_STATS = "tuple[Tensor, dict[str, Tensor]]"


@dataclass(frozen=True)
class _Signature:
    """The parameters of a loss's function, as source text, without ``return_stats``."""

    positional: list[str]
    keyword: list[str]
    inputs: list[str]
    named: list[str]
    options: list[str]

    @staticmethod
    def of(cls: type[Loss]) -> _Signature:
        parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
        inputs = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        named = parameters[len(inputs) :]
        options = [f for f in fields(cls) if f.name != "return_stats"]
        positional = [_stub(p.name, p.annotation, p.default) for p in inputs]
        keyword = [_stub(p.name, p.annotation, p.default) for p in named]
        keyword += [_stub(f.name, spelled(declared(cls)[f.name]), f.default) for f in options]
        passed = [p.name for p in inputs]
        if inputs[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            positional[-1], passed[-1] = f"*{positional[-1]}", f"*{passed[-1]}"
        else:
            positional.append("*")
        return _Signature(
            positional, keyword, passed, [p.name for p in named], [f.name for f in options]
        )


def functions() -> str:
    """The text of ``functional.py``, in ruff's format."""
    names = ",\n    ".join(f'"{name}"' for name in sorted(LOSSES))
    return FUNCTIONS.format(names=names) + "".join(_function(n, c) for n, c in LOSSES.items())


def _function(name: str, cls: type[Loss]) -> str:
    has = _Signature.of(cls)
    keyword, options, result = has.keyword, has.options, "Tensor"
    overloads: list[str] = []
    if issubclass(cls, PairLoss):
        keyword, options = [*keyword, "return_stats: bool = False"], [*options, "return_stats"]
        if "return_stats" not in cls.without:
            overloads = _overloads(name, has)
            result = f"{result} | {_WITH_STATS}"
    doc = indent(documented(cls), "    ").strip()
    raw = "r" if "\\" in doc else ""
    passed = f"({', '.join(has.inputs)}{',' if len(has.inputs) == 1 else ''})"
    return "\n".join([
        "",
        "",
        *overloads,
        *_def(name, [*has.positional, *keyword], f"{result}:"),
        f'    {raw}"""{doc}',
        "",
        f"    The module with the same options: :class:`contrastloss.{cls.__name__}`.",
        '    """',
        *_assigned("named", has.named),
        *_assigned("options", options),
        *_returned(f'"{name}", {passed}, named, options'),
        "",
    ])  # fmt: skip


def _overloads(name: str, has: _Signature) -> list[str]:
    """What is returned without statistics, and with them."""
    lines = []
    for flag, result in ((" = False", "Tensor"), ("", _WITH_STATS)):
        said = f"return_stats: Literal[{not flag}]{flag}"
        lines += ["@overload", *_def(name, [*has.positional, said, *has.keyword], f"{result}: ...")]
    return lines


def _returned(arguments: str) -> list[str]:
    line = f"    return evaluate({arguments})"
    return [line] if len(line) <= 100 else ["    return evaluate(", f"        {arguments}", "    )"]


def _assigned(variable: str, names: Sequence[str]) -> list[str]:
    if not names:
        return [f"    {variable}: dict[str, Any] = {{}}"]
    items = (f'        "{name}": {name},' for name in names)
    return [f"    {variable} = {{", *items, "    }"]


def _def(name: str, arguments: Sequence[str], result: str) -> list[str]:
    return [f"def {name}(", *(f"    {argument}," for argument in arguments), f") -> {result}"]


def _stub(name: str, annotation: Any, default: Any) -> str:
    if default in (MISSING, inspect.Parameter.empty):
        return f"{name}: {annotation}"
    text = f'"{default}"' if isinstance(default, str) else repr(default)
    return f"{name}: {annotation} = {text}".replace("'", '"')
