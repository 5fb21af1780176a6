"""The section of a loss's docstring on the options of its bases. Editors show a docstring as it is
written, so the section is in the source; ``python -m contrastloss.testing write`` keeps it true."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from textwrap import indent, wrap

from ..losses import LOSSES, Loss

__all__ = ["SHARED", "documented", "entries", "inherited", "sources"]

#: the title of the section, which comes before that on shapes
SHARED = "Shared options"


def entries(text: str, section: str) -> dict[str, str]:
    """What the entries of a section such as ``Args`` say, by name."""
    block = re.search(rf"^{section}:\n((?:    .*\n|\n)*)", text + "\n", re.MULTILINE)
    found: dict[str, str] = {}
    for entry in re.split(r"^    (?=\S)", block[1] if block else "", flags=re.MULTILINE):
        names, _, said = entry.partition(": ")
        found |= {name: " ".join(said.split()) for name in names.split(", ") if said}
    return found


def inherited(cls: type[Loss]) -> dict[str, str]:
    """What bases say of the options of a loss that its own docstring does not explain."""
    own, *bases = [entries(inspect.cleandoc(c.__doc__ or ""), "Args") for c in cls.__mro__]
    said: dict[str, str] = {}
    for base in bases:
        said = base | said
    names = [field.name for field in fields(cls) if field.init]
    return {name: said[name] for name in names if name in said and name not in own}


def documented(cls: type[Loss], rest: bool = False) -> str:
    """The docstring with that section: the first sentence on each option, or also the rest."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    doc = re.sub(rf"^{SHARED}:\n(?:    .*\n)*\n", "", doc, flags=re.MULTILINE)
    lines: list[str] = []
    for name, said in inherited(cls).items():
        said = said if rest else re.split(r"(?<=\.) ", said)[0]
        lines += wrap(f"{name}: {said}", 92, subsequent_indent="    ", break_on_hyphens=False)
    return doc.replace("\nShape:\n", f"\n{_section(lines)}Shape:\n", 1)


def _section(lines: Sequence[str]) -> str:
    return f"{SHARED}:\n" + indent("\n".join(lines), "    ") + "\n\n" if lines else ""


def sources() -> dict[Path, str]:
    """The text of each file of losses, with their docstrings as they should be."""
    root = Path(__file__).parents[2]
    texts: dict[Path, str] = {}
    for cls in LOSSES.values():
        path = root / f"{cls.__module__.replace('.', '/')}.py"
        text = texts.get(path) or path.read_text()
        start = text.index('"""', text.index(f"\nclass {cls.__name__}(")) + 3
        end = text.index('"""', start)
        doc = indent(documented(cls), "    ").strip()
        texts[path] = f"{text[:start]}{doc}\n    {text[end:]}"
    return texts
