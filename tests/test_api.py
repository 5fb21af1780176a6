"""The public interface changes only on purpose, and every module says what it offers."""

import ast
import importlib
from pathlib import Path
from unittest import mock

import api
import pytest

import contrastloss
from contrastloss import functional, mining

PACKAGE = Path(contrastloss.__file__).parent
#: without names of their own
EMPTY = (
    "bench/__init__.py",
    "compat/__init__.py",
    "losses/base/__init__.py",
    "tune/__init__.py",
)
FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__main__.py", "_build.py")
    and path.relative_to(PACKAGE).as_posix() not in EMPTY
]


def parts(path):
    """The names of ``__all__``, or None, and those of the functions and classes of a module."""
    listed, defined = None, set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
    return listed, defined


def test_the_interface_is_the_recorded_one():
    assert api.difference() == "", "`make api RECORD=1` records a change; see docs/support.md"


def test_a_changed_default_and_a_new_name_are_seen():
    def clip(x, y, *, temperature=0.1):
        """Other parameters than the real one."""

    with mock.patch.object(functional, "clip", clip):
        changed = api.difference().splitlines()
    assert "+contrastloss.functional.clip(x, y, *, temperature = 0.1)" in changed
    (was,) = (line for line in changed if line.startswith("-contrastloss.functional.clip("))
    assert "temperature: float | Tensor = 0.07" in was
    names = mock.patch.object(mining, "__all__", [*mining.__all__, "hardest"])
    with names, mock.patch.object(mining, "hardest", lambda x: x, create=True):
        changed = api.difference().splitlines()
    assert changed[-1] == "+contrastloss.mining.hardest(x)"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_offers(path):
    listed, _ = parts(path)
    assert listed, "no __all__"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", api.MODULES)
def test_what_a_public_module_does_not_list_is_private(name):
    listed, defined = parts(Path(importlib.import_module(name).__file__))
    assert [n for n in defined if not n.startswith("_") and n not in listed] == []
