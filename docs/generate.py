"""Makes docs/losses.md and docs/seeds.md from the losses and presets, the table of tried versions
in docs/support.md from release/matrix.json, and docs/images/tiles.svg.

python docs/generate.py            write them
python docs/generate.py --check    fail if the pages differ from what the code gives
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from cost import ROWS, STORED, cost_of
from tiles import svg
from torch import nn

import contrastloss
from contrastloss import presets
from contrastloss.losses import LOSSES, Loss, ScoreLoss

DOCS = Path(__file__).parent
ROOT = DOCS.parent
#: what losses of pair scores take, unless their formula does not allow it
SHARED = ("group", "memory", "return_stats")
#: what a call, or an option, may say of the pairs of rows and columns
SAID = (
    "negatives", "in_batch_negatives", "x_negatives", "ids", "x_ids", "row_weight", "log_q",
    "label_smoothing",
)  # fmt: skip


# ---- pages --------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def displayed(text: str) -> list[str]:
    """The formulas that are paragraphs of their own."""
    paragraphs = re.split(r"\n\s*\n", text)
    lines = ("\n".join(line.strip() for line in p.strip().splitlines()) for p in paragraphs)
    found = (re.fullmatch(r":math:`([^`]+)`", text) for text in lines)
    return [match[1] for match in found if match]


def source(text: str) -> str:
    found = re.search(r"Source: (.*?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def seeds_of(cls: type[Loss]) -> list[int]:
    return sorted(n for n in range(1, 78) if cls.__name__ in classes(names_of(n)))


def names_of(number: int) -> list[str]:
    """The presets of a system, and the other names that it needs."""
    if number in presets.OTHERS:
        return [*presets.OTHERS[number].uses]
    mine = [p for p in presets.PRESETS.values() if p.number == number]
    return list(
        dict.fromkeys([*(f"presets.{p.name}" for p in mine), *(u for p in mine for u in p.uses)])
    )


def classes(names: Sequence[str]) -> list[str]:
    """The losses that the names of a row stand for."""
    found: list[str] = []
    for name in names:
        value = resolve(name)
        if name.startswith("presets."):
            found += [
                type(m).__name__ for m in value().modules() if not isinstance(m, nn.ModuleDict)
            ]
        elif inspect.isclass(value) and issubclass(value, Loss):
            found.append(value.__name__)
    return list(dict.fromkeys(found))


def resolve(name: str) -> Any:
    """The object that a dotted name below the package stands for."""
    value: Any = contrastloss
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_of(name: str) -> str:
    """The file that tests the object of this name."""
    value = resolve(name)
    if isinstance(value, presets.Preset):
        files = sorted((ROOT / "tests/presets").glob("test_*.py"))
        found = [f for f in files if re.search(rf"presets\.{value.name}\b", f.read_text())]
        own = [f for f in found if f.name != "test_registry.py"]
        return str((own or [ROOT / "tests/presets/test_registry.py"])[0].relative_to(ROOT))
    module = value.__module__.removeprefix("contrastloss.").split(".")
    if module[0] in ("losses", "ops"):
        found = [f"tests/{module[0]}/test_{module[1]}.py", *_beside(module[1])]
    else:
        found = [f"tests/test_{module[0]}.py"]
    for path in found:
        if (ROOT / path).exists():
            return path
    raise SystemExit(f"{name}: none of {', '.join(found)} exists")


def _beside(module: str) -> list[str]:
    """The test files that mention a module, for losses that share a file with another loss."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests/losses").glob("test_*.py"))
        if re.search(rf"\b{module}\b", path.read_text())
    ]


def shared(cls: type[Loss], reasons: dict[str, int]) -> list[str]:
    """For each of ``SHARED``: "yes", the number of the reason why not, or "-" where no loss of this
    kind takes it."""
    if not issubclass(cls, ScoreLoss):
        return ["-"] * len(SHARED)
    taken = {f.name for f in fields(cls)}
    if STORED & inspect.signature(cls.forward).parameters.keys():
        taken.add("memory")
    cells = []
    for option in SHARED:
        reason = cls.without.get(option)
        if (reason is None) != (option in taken - cls.without.keys()):
            raise SystemExit(f"{cls.__name__}: takes no {option}=, expected a reason in `without`")
        if reason is None:
            cells.append("yes")
        else:
            cells.append(f"({reasons.setdefault(reason, len(reasons) + 1)})")
    return cells


def losses() -> str:
    overview, sections = [], []
    reasons: dict[str, int] = {}
    for name, cls in sorted(LOSSES.items()):
        text = inspect.cleandoc(cls.__doc__ or "")
        cost = cost_of(name, cls)
        seeds = ", ".join(map(str, seeds_of(cls)))
        units = cost.text()
        link = f"[`{cls.__name__}`](#{cls.__name__.lower()})"
        overview.append([link, f"`{name}`", units, *shared(cls, reasons), seeds])
        summary = fill(text.partition("\n\n")[0], 100)
        blocks = "\n\n".join(f"```math\n{f}\n```" for f in displayed(text))
        sections.append(
            f"### {cls.__name__}\n\n{summary}\n\n{blocks}\n\n"
            f"- Channels: {'; '.join(cost.channels) or 'none'}\n"
            f"- Cost: {units}\n"
            f"- Source: {source(text)}\n"
            f"- Systems: {seeds or 'none of docs/seeds.md'}"
        )
    head = ["loss", "function", "cost", *SHARED, "systems"]
    taken = {cls.__name__: said_of(cls) for _, cls in sorted(LOSSES.items())}
    said = [[f"`{name}`", *marks] for name, marks in taken.items() if any(marks)]
    return LOSSES_PAGE.format(
        table=table(head, overview),
        reasons="\n".join(f"{n}. {text[0].upper()}{text[1:]}." for text, n in reasons.items()),
        said=table(["loss", *[f"`{name}`" for name in SAID]], said),
        sections="\n\n".join(sections),
        rows=ROWS,
    )


def said_of(cls: type[Loss]) -> list[str]:
    """For each of ``SAID``: whether it is an argument of calls, or an option."""
    taken = {*inspect.signature(cls.forward).parameters, *(f.name for f in fields(cls))}
    return ["yes" if name in taken - cls.without.keys() else "" for name in SAID]


def seeds() -> str:
    rows = []
    for number, system, _, source, verified in presets.table():
        needed = names_of(number)
        names = list(dict.fromkeys([*needed, *classes(needed)]))
        tests = dict.fromkeys(f"[{Path(t).name}](../{t})" for t in map(test_of, names))
        said = "" if number in presets.OTHERS else "yes" if verified else "**no**"
        cells = [str(number), system, ", ".join(f"`{n}`" for n in names), said, source]
        rows.append([*cells, ", ".join(tests), notes(number)])
    head = ["#", "system", "public name(s)", "verified", "released code", "test", "note"]
    return SEEDS_PAGE.format(table=table(head, rows))


def notes(number: int) -> str:
    """The notes of a system's presets, and what is a guess."""
    if number in presets.OTHERS:
        return presets.OTHERS[number].note
    mine = [p for p in presets.PRESETS.values() if p.number == number]
    found = [p.note for p in mine] + [f"**guess**: {p.guess}" for p in mine if p.guess]
    return "; ".join(dict.fromkeys(filter(None, found)))


LOSSES_PAGE = """\
# Losses

Written by `python docs/generate.py` from the losses themselves; do not edit.

The unit of cost is the product of an N x D by a D x N matrix. The table gives forward + backward
for the default options on N = {rows} instances: two views are 2N rows, three views 3N, a queue has
2N columns, a series 3 or 5 steps. A symmetric problem computes half of its scores. The backward
pass computes the scores again and takes one product for each side that needs a gradient. "one
pass": on CPU tensors the forward pass finds the gradients too, where that saves products
([architecture.md](architecture.md)). "none": the loss does not compute the scores of all pairs.
"D x D": the pairs are pairs of features. "systems": the numbers of
[published systems](seeds.md) that use the loss.

Losses of pair scores take three options, unless their formula does not allow it. `group=` spreads
the batch over processes ([distributed.md](distributed.md)). `memory=` takes embeddings of earlier
batches as additional columns; some losses have a `queue` or `bank` for them. `return_stats=`
returns statistics of positives and negatives. A number is that of the reason below the table. "-":
it is no loss of pair scores with a temperature.

{table}

{reasons}

## What a call may say

`negatives` come with `negatives_mask`, `negatives_offsets` and `negatives_ids`, and those of losses
with `log_q` with `negatives_log_q`; `x_ids` come with `y_ids`, and `positives` in their place.
[choosing.md](choosing.md) shows when to use which. A loss without a row here takes none of them.

{said}

## Each loss

{sections}
"""

SEEDS_PAGE = """\
# Published systems

Written by `python docs/generate.py` from `contrastloss.presets`; do not edit.

77 published systems of contrastive learning, and the parts of this package that they need. Names
are attributes of `contrastloss`. A preset returns a loss with the system's options or, if the
system adds up several losses, a `ModuleDict` of them. "verified": value and gradients were compared
with a dense formula of the released code, in the test of the row. Where it is not, the note says
what is a guess, and `verified=False` is shown by the preset and its losses. Without "verified": the
system has no loss of embeddings here. `contrastloss.presets.table()` returns the list.

{table}
"""


def support() -> str:
    """The page as it is, with the table of release/matrix.json between its marks."""
    text = (DOCS / "support.md").read_text()
    begin, end = "<!-- matrix:begin -->", "<!-- matrix:end -->"
    before, _, rest = text.partition(begin)
    data = json.loads((ROOT / "release/matrix.json").read_text())
    rows = []
    for row in (row for kind in ("torch", "triton") for row in data[kind].values()):
        versions = [row["python"], row["torch"], row["cuda"] or "none", row["numpy"], row["triton"]]
        smoke = "works" if row["smoke"] else "FAILS"
        counts = [str(row["passed"]), str(row["failed"])]
        rows.append([*(v or "none" for v in versions), smoke, *counts])
    head = ["Python", "torch", "CUDA of torch", "numpy", "Triton", "smoke test", "tests passed"]
    return f"{before}{begin}\n\n{table([*head, 'failed'], rows)}\n\n{end}{rest.partition(end)[2]}"


PAGES = {
    DOCS / "losses.md": losses,
    DOCS / "seeds.md": seeds,
    DOCS / "support.md": support,
    DOCS / "images/tiles.svg": svg,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    check = parser.parse_args().check
    torch.manual_seed(0)
    stale = []
    for path, page in PAGES.items():
        text = page()
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what the code gives; run python docs/generate.py")


if __name__ == "__main__":
    main()
