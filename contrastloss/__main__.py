"""``python -m contrastloss``: ``info`` on this installation, ``demo`` of what it is for."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from collections.abc import Iterable
from types import ModuleType

import torch

from . import __version__, backends

DEMO_EXTRA = "pip install 'contrastloss[demo]'"


def optional(name: str) -> ModuleType | None:
    """A module of this package that the build may have left out."""
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        return None


def native() -> dict[str, str]:
    """What was compiled, or why it was not."""
    build, module = optional("_build"), optional("_C")
    facts = {}
    if build is None:
        facts["build"] = "this source tree was never installed (pip install -e .)"
    for part, reason in (build.MISSING if build else {}).items():
        facts[part] = "missing: " + reason if reason else "built"
    if module is not None:
        for name, value in module.build_info().items():
            shown = " ".join(value) or "none" if isinstance(value, tuple) else str(value)
            facts[name.replace("_", " ")] = shown
        facts["this CPU has"] = " ".join(module.cpu_capability()) or "nothing that is looked for"
    return facts


def section(title: str, facts: Iterable[tuple[str, str]]) -> str:
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in facts)])


def info() -> str:
    """Versions, backends and native parts, as text."""
    versions = {
        "contrastloss": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    present = {
        name: f"missing: {reason}" if reason else "available"
        for name, reason in backends.available().items()
    }
    parts = {"versions": versions, "backends": present, "native code": native()}
    return "\n\n".join(section(title, facts.items()) for title, facts in parts.items())


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m contrastloss", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, backends and native parts of this installation")
    demo = commands.add_parser("demo", help=f"train on a small data set ({DEMO_EXTRA})")
    if arguments[:1] != ["demo"]:
        parser.parse_args(arguments)
        print(info())
        return 0
    try:
        module = importlib.import_module(f"{__package__}.demo")
        module.add_arguments(demo)
        return module.main(parser.parse_args(arguments)) or 0
    except ModuleNotFoundError as error:
        if str(error.name).startswith(str(__package__)):
            raise
        parser.exit(1, f"the demo needs {error.name}: {DEMO_EXTRA}\n")


if __name__ == "__main__":
    sys.exit(main())
