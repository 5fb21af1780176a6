"""Writes the pages of the public names into docs/api, which is not committed. Signatures and text
are those of the package; :mod:`tests/api` says what is public."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import inspect
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from api import MODULES, parameters
from torch.autograd import Function

from contrastloss import __main__ as command, options
from contrastloss.distributed import Strategy
from contrastloss.losses import LOSSES, Loss
from contrastloss.presets import Preset
from contrastloss.testing.docstrings import documented

ROOT = Path(__file__).parent.parent
#: files beside docs, and the names of their pages
BESIDE = {"CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
#: notebooks, whose pages have their names
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
#: the pages of the reference, in the order of the navigation
PAGES = [
    "losses", "functional", *(
        module.removeprefix("contrastloss.").replace(".", "_")
        for module in MODULES
        if module not in ("contrastloss", "contrastloss.functional", "contrastloss.losses")
    ), "commands",
]  # fmt: skip
#: methods by which a loss is defined: for those who write one
HOOKS = {
    "channels", "check", "combine", "constants", "evaluate", "example", "extra_repr", "matched",
    "negatives", "prepare", "reference", "reset_parameters", "stops_gradients",
}  # fmt: skip
#: the path of each public object, by its identity
PATHS: dict[int, str] = {}
for _module in MODULES:
    _names = vars(importlib.import_module(_module))
    for _name in _names["__all__"]:
        if callable(_names[_name]) or inspect.ismodule(_names[_name]):
            PATHS.setdefault(id(_names[_name]), f"{_module}.{_name}")


# ---- names --------------------------------------------------------------------------------------


def found(path: str) -> Any:
    """The object of a dotted path, or None."""
    module, _, rest = path, "", []
    while module:
        try:
            value: Any = importlib.import_module(module)
            break
        except ImportError:
            module, _, last = module.rpartition(".")
            rest = [last, *rest]
    else:
        return None
    for name in rest:
        if not hasattr(value, name):
            return None
        value = getattr(value, name)
    return value


def public(target: str, module: str | None, cls: str | None) -> str | None:
    """The public path of what a docstring calls ``target``."""
    places = ["", f"{module}.", f"{module}.{cls}.", "contrastloss."]
    for path in (place + target for place in places):
        if not path.startswith("contrastloss"):
            continue
        if (value := found(path)) is not None:
            if id(value) in PATHS:
                return PATHS[id(value)]
            before, _, name = path.rpartition(".")
            owner = found(before)
            if before in MODULES and name in owner.__all__:
                return path
            return f"{PATHS[id(owner)]}.{name}" if id(owner) in PATHS else path
    return None


def elsewhere(target: str) -> bool:
    """Whether it is a name of Python, torch or another library."""
    return hasattr(builtins, target) or (
        found(target) is not None and not target.startswith("contrastloss")
    )


# ---- docstrings ---------------------------------------------------------------------------------


def docstring(app: Any, what: str, name: str, value: Any, _: Any, lines: list[str]) -> None:
    """Indents what continues an entry of the section "Shape". A loss has all that its bases say."""
    call = getattr(value, "forward", value)
    names = set(inspect.signature(call).parameters) if inspect.isroutine(call) else set()
    if inspect.isclass(value) and issubclass(value, Loss):
        lines[:] = documented(value, rest=True).splitlines()
    lines[:] = shapes(lines, names | {"Loss"})


def signature(app: Any, what: str, name: str, value: Any, *_: Any) -> tuple[str, str] | None:
    """That of a loss: Sphinx would show the one of its metaclass."""
    if inspect.isclass(value) and issubclass(value, Loss):
        return typed(parameters(value)), ""
    return None


def typed(signature: str) -> str:
    """With the type of an option in place of the name that it has with its bounds."""
    hints = {**vars(options), "Strategy": Strategy}
    for name, hint in hints.items():
        if get_origin(hint) in (Annotated, Literal, Union, UnionType):
            signature = re.sub(rf"\b{name}\b", plain(hint), signature)
    return signature


def plain(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(plain, get_args(hint)))
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def shapes(lines: list[str], names: set[str]) -> Iterator[str]:
    """The lines, of which those of "Shape" that name none of ``names`` continue the entry above."""
    inside = False
    for line in lines:
        if re.fullmatch(r"\w[\w ]*:", line):
            inside = line == "Shape:"
        elif line and not line.startswith(" "):
            inside = False
        elif inside and line:
            said = re.match(r"    \*?(\w+(?:, \*?\w+)*): ", line)
            if not said or not names.issuperset(re.split(r", \*?", said[1])):
                line = "    " + line
        yield line


def comment(name: str) -> str:
    """What the package says above a constant, in lines that begin with ``#:``."""
    for file in sorted((ROOT / "contrastloss").rglob("*.py")):
        above = re.search(rf"((?:^#:.*\n)+){name}\b", file.read_text(), re.MULTILINE)
        if above:
            return " ".join(line.removeprefix("#:").strip() for line in above[1].splitlines())
    return ""


# ---- pages --------------------------------------------------------------------------------------


def heading(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def entry(path: str, value: Any) -> list[str]:
    """The directive of a public name."""
    if inspect.isclass(value):
        own = [] if issubclass(value, Function) else [n for n in vars(value) if shown(value, n)]
        lines = [f".. autoclass:: {path}"]
        return [*lines, *([f"   :members: {', '.join(own)}", "   :undoc-members:"] * bool(own)), ""]
    if isinstance(value, Preset):
        body = re.sub(r"(?<!`)([|*])", r"\\\1", value.__doc__ or "").splitlines()
        return described("function", path, typed(parameters(value)), body)
    if inspect.isroutine(value):
        return [f".. autofunction:: {path}", ""]
    if inspect.ismodule(value):
        return []
    return described("data", path, "", [comment(path.rpartition(".")[2])])


def described(kind: str, path: str, signature: str, body: list[str]) -> list[str]:
    module, _, name = path.rpartition(".")
    head = [f".. py:{kind}:: {name}{signature}", f"   :module: {module}", ""]
    return [*head, *indented(body), ""]


def shown(cls: type, name: str) -> bool:
    """Whether a method is for those who use the class."""
    value = vars(cls)[name]
    if name.startswith("_") or name in HOOKS:
        return False
    function = getattr(value, "__func__", value)
    if isinstance(value, property):
        return bool(value.__doc__)
    return inspect.isfunction(function) and (name == "forward" or bool(function.__doc__))


def indented(lines: list[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]


def module_page(module: str) -> list[str]:
    names = vars(importlib.import_module(module))
    lines = [*heading(module.removeprefix("contrastloss.")), f".. automodule:: {module}", ""]
    # functions come first: classes are mostly what they return
    for name in sorted(names["__all__"], key=lambda name: inspect.isclass(names[name])):
        path = f"{module}.{name}"
        if PATHS.get(id(names[name]), path) == path:
            lines += entry(path, names[name])
    return lines


def losses_page() -> Iterator[tuple[str, list[str]]]:
    """A page for each name of ``contrastloss`` and of ``contrastloss.losses``, and their list."""
    top = [
        *heading("Losses and modules"),
        "Each loss is a module and a function with the same inputs and options. :doc:`/losses` has",
        "their formulas on one page, :doc:`/choosing` says which one fits your data.",
        "",
        ".. automodule:: contrastloss",
        "",
    ]
    functions = {cls: name for name, cls in LOSSES.items()}
    listed: list[str] = []
    rest: list[str] = []
    for module in ("contrastloss", "contrastloss.losses"):
        names = vars(importlib.import_module(module))
        for name in sorted(names["__all__"], key=str.lower):
            value, path = names[name], f"{module}.{name}"
            if PATHS.get(id(value), path) != path or inspect.ismodule(value):
                continue
            if module == "contrastloss":
                page = [*heading(name), *entry(path, value)]
                if value in functions:
                    function = f"contrastloss.functional.{functions[value]}"
                    said = "The loss of these inputs; the options are those above."
                    there = f"../../losses.html#{name.lower()}"
                    page += [f"`Cost, statistics and published systems <{there}>`__", ""]
                    signature = parameters(found(function))
                    page += heading("As a function", "-")
                    page += described("function", function, signature, [said])
                yield f"losses/{name}", page
                listed.append(f"   losses/{name}")
            else:
                rest += entry(path, value)
    top += [".. toctree::", "   :maxdepth: 1", "", *listed, ""]
    top += [*heading("contrastloss.losses", "-"), ".. automodule:: contrastloss.losses", ""]
    yield "losses", [*top, *rest]


def functional_page() -> list[str]:
    rows = [
        f"* :func:`contrastloss.functional.{name}`: :class:`contrastloss.{cls.__name__}`"
        for name, cls in sorted(LOSSES.items())
    ]
    return [
        *heading("functional"),
        ".. automodule:: contrastloss.functional",
        "",
        *rows,
        "",
    ]


def commands_page() -> list[str]:
    """What ``--help`` prints, in lines of one length."""
    os.environ["COLUMNS"] = "88"
    lines = [*heading("Commands"), "What ``--help`` prints.", ""]
    for words in ([], *([name] for name in ("info", "warmup", *command.EXTRAS))):
        text = help_of([*words, "--help"])
        title = " ".join(["python -m contrastloss", *words])
        lines += [
            *heading(title, "-"),
            ".. code-block:: text",
            "",
            *indented(text.splitlines()),
            "",
        ]
    return lines


def help_of(words: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command.main(words)
    return out.getvalue()


def included(file: str) -> list[str]:
    return [f"```{{include}} ../../{file}", ":relative-docs: docs/", "```"]


def notebook_page(path: Path) -> list[str]:
    """The cells of a notebook as Markdown: text, code, and what the code printed and drew."""
    lines = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        lines += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if text := "".join(output.get("text", "")):
                lines += ["```text", text.rstrip(), "```", ""]
            elif "image/png" in data:
                png = "".join(data["image/png"]).strip()
                lines += [f'<img src="data:image/png;base64,{png}" alt="{cell["id"]}">', ""]
    return lines


def write(folder: Path) -> None:
    """All pages; a file that is the same stays as it is, so that Sphinx does not read it again."""
    pages = {f"{name}.rst": lines for name, lines in losses_page()}
    pages["functional.rst"] = functional_page()
    for module in MODULES:
        name = module.removeprefix("contrastloss.").replace(".", "_")
        if f"{name}.rst" not in pages and module != "contrastloss":
            pages[f"{name}.rst"] = module_page(module)
    pages["commands.rst"] = commands_page()
    pages |= {f"{name}.md": included(file) for file, name in BESIDE.items()}
    pages |= {f"{path.stem}.md": notebook_page(path) for path in NOTEBOOKS}
    for name, lines in pages.items():
        path, text = folder / name, "\n".join(lines).rstrip() + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.rglob("*.*"):
        if str(path.relative_to(folder)) not in pages:
            path.unlink()
