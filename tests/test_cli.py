"""The command ``python -m contrastloss``, mostly run in separate processes."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import contrastloss
from contrastloss import backends
from contrastloss.__main__ import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs the command outside the checkout, so that the installed package is used."""
    empty = tmp_path_factory.mktemp("empty")

    def call(*arguments, blocked=()):
        block = f"import sys; sys.modules.update(dict.fromkeys({list(blocked)!r})); "
        code = block + "import runpy; runpy.run_module('contrastloss', run_name='__main__')"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=empty)

    return call


@pytest.fixture(scope="module")
def info(run):
    result = run("info")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_info_tells_versions(info):
    for version in (contrastloss.__version__, torch.__version__, platform.python_version()):
        assert version in info


def test_info_tells_of_every_backend_whether_it_is_there_and_why_not(info):
    lines = [line.split(maxsplit=1) for line in info.splitlines() if line.strip()]
    for name, reason in backends.available().items():
        assert [name, f"missing: {reason}" if reason else "available"] in lines


def test_info_tells_what_was_compiled_or_why_not(info):
    native = info.partition("native code")[2]
    try:
        from contrastloss import _build
    except ImportError:
        assert "never installed" in native
        return
    for part, reason in _build.MISSING.items():
        line = next(line for line in native.splitlines() if line.split()[0:1] == [part])
        assert line.endswith(f"missing: {reason}" if reason else "built")
    assert ("compiler" in native) is (_build.MISSING["_C"] is None)


def test_info_is_what_a_bug_report_needs(info, run, monkeypatch):
    """The versions of what computes, the machine, the settings; no path of the machine."""
    for fact in ("triton", "numpy", "processor", "threads of torch", "instruction set in use"):
        assert re.search(rf"^  {fact}  +\S", info, re.MULTILINE), fact
    assert metadata.version("numpy") in info
    assert f"{os.cpu_count()}" in re.search(r"^  cores +(\d+)$", info, re.MULTILINE)[1]
    assert str(Path(contrastloss.__file__).parent) not in info
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CONTRASTLOSS_DEBUG", "1")
    again = run("info").stdout
    assert re.search(r"^  threads of torch +1$", again, re.MULTILINE)
    assert re.search(r"^  CONTRASTLOSS_DEBUG +1$", again, re.MULTILINE)


def test_info_without_triton_and_numpy(run):
    """What is missing is said, not an error."""
    found = run("info", blocked=["triton", "numpy"])
    assert found.returncode == 0, found.stderr


def test_the_version_stands_in_one_place():
    root = Path(__file__).parents[1]
    files = [root / name for name in ("CITATION.cff", "setup.py", "contrastloss/__init__.py")]
    version = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    for file in files:
        assert version[1] not in file.read_text(), file.name
    assert f"## {version[1]} - " in (root / "CHANGELOG.md").read_text()


def test_info_needs_no_demo_package(run):
    assert run("info", blocked=["sklearn", "matplotlib", "tqdm"]).returncode == 0


def test_no_command_is_a_usage_error(run):
    result = run()
    assert result.returncode == 2
    assert "usage: python -m contrastloss" in result.stderr


@pytest.mark.parametrize(
    ("command", "package"),
    [
        ("tune", "rich"),
        ("demo", "tqdm"),
        ("bench", "pytest"),
        ("bench", "pytest_benchmark"),
        ("bench", "matplotlib"),
        ("mine", "pyarrow"),
        ("mine", "tqdm"),
    ],
)
def test_a_command_without_its_packages_names_the_extra(command, package, run):
    if command == "bench" and package == "matplotlib":
        pytest.importorskip("pytest_benchmark")
        pytest.importorskip("rich")
    result = run(command, blocked=[package])
    assert result.returncode == 1
    extra = "mining" if command == "mine" else command
    expected = f"the {command} needs {package}: pip install 'contrastloss[{extra}]'\n"
    assert result.stderr == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "-4"], "argument --rows: got -4, expected an integer of 1 to 2147483647"),
        (["--rows", "8", "0"], "argument --rows: got 0, expected an integer of 1"),
        (["--dim", "1e3"], "argument --dim: got 1e3, expected an integer of 1"),
        (["--dim", "9" * 50], f"argument --dim: got {'9' * 40}, expected an integer of 1"),
        (["--device", "gpu"], "argument --device: got gpu, expected a device of this machine: "),
    ],
)
def test_wrong_arguments_of_warmup_are_usage_errors(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["warmup", "--device", "cpu", *words])
    assert stopped.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_warmup_says_why_a_backend_cannot_serve(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["warmup", "--device", "cpu", "--backend", "cuda"])
    assert stopped.value.code == 1
    assert "warmup: backend: 'cuda' cannot serve this call: " in capsys.readouterr().err


def test_warmup_takes_a_step_of_every_shape(run):
    result = run(
        *["warmup", "--loss", "nt_xent", "--device", "cpu", "--backend", "reference"],
        *["--dtype", "float32", "--rows", "16", "32", "--dim", "8"],
    )
    assert result.returncode == 0, result.stderr
    lines = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert lines == ["nt_xent 16 x 8 float32", "nt_xent 32 x 8 float32"]
