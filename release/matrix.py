"""Tries the wheels in dist/ with old and new releases of Python, torch, Triton and numpy.

``make matrix`` runs all rows, each in a new environment that is removed afterwards, and writes
``release/matrix.json``; ``python docs/generate.py`` then writes the table in docs/support.md. A row
downloads up to 3 GB and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree  # nosec B405
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DIST, WORK = ROOT / "release/matrix.json", ROOT / "dist", ROOT / "build/matrix"

#: Python, torch and numpy; Triton is the one that this torch asks for
TORCH = (
    ("3.10", "2.10.0", "1.26.4"),
    ("3.12", "2.11.0", "2.0.2"),
    ("3.12", "2.12.1", "2.2.6"),
    ("3.11", "2.13.0", "1.26.4"),
    ("3.11", "2.13.0", "2.4.6"),
    ("3.13", "2.14.1", "2.3.5"),
)
#: Triton and numpy, with a torch that needs no Triton. The interpreter of Triton 3.6.0 converts
#: arrays to scalars in a way that numpy 2.4 refuses.
TRITON = (("3.6.0", "2.2.6"), ("3.7.1", "2.2.6"), ("3.8.0", "2.2.6"), ("3.9.0", "2.4.6"))
#: of tests/: the operators, the native libraries, and losses under torch.compile
OPERATORS = ("ops", "backends/test_cpu.py", "backends/test_cpu_numbers.py",
             "backends/test_cpu_sort.py", "backends/test_cuda_library.py",
             "backends/test_cuda_stream.py", "losses/test_default_compiler.py")  # fmt: skip
#: compiled for Hopper; and a run in the interpreter
COMPILED = ("backends/test_triton_compile.py", "-k", "sm_90 and (clip or nt_xent or sorting)")
INTERPRETED = ("backends/test_triton.py", "-k", "triton and not gradcheck and not million")
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")


@dataclass(frozen=True)
class Row:
    """What was installed, and what came of it: the numbers of tests that passed and failed."""

    python: str
    torch: str
    cuda: str | None
    numpy: str
    triton: str | None
    wheel: str
    smoke: bool
    passed: int
    failed: int


class Environment:
    """A new one with packages and a wheel of dist/; commands run in an empty folder."""

    def __init__(self, python: str, *packages: str) -> None:
        self.folder = WORK / "environment"
        shutil.rmtree(WORK, ignore_errors=True)
        (WORK / "empty").mkdir(parents=True)
        interpreter = shutil.which(f"python{python}")
        if interpreter is None:
            raise SystemExit(f"python{python}: not on the path")
        subprocess.run([interpreter, "-m", "venv", self.folder], check=True)
        tag = f"cp{python.replace('.', '')}"
        (self.wheel,) = DIST.glob(f"*-{tag}-{tag}-*.whl")
        self.install(*packages, *TOOLS)
        self.install("--no-deps", self.wheel)

    def python(self, *words: str | Path, check: bool = True, **environment: str) -> str:
        done = subprocess.run(
            [self.folder / "bin/python", *words], cwd=WORK / "empty", text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"} | environment,
            stdout=subprocess.PIPE, check=check,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-4000:], flush=True)
        return done.stdout if done.returncode == 0 else ""

    def install(self, *packages: str | Path) -> None:
        self.python("-m", "pip", "--disable-pip-version-check", "install", "--quiet", *packages)

    def tests(self, names: tuple[str, ...], **environment: str) -> tuple[int, int]:
        """How many tests passed, and how many failed."""
        report = WORK / "report.xml"  # written by pytest just before it is read
        paths = [str(ROOT / "tests" / name) if (ROOT / "tests" / name).exists() else name
                 for name in names]  # fmt: skip
        self.python(
            "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-q",
            "-n", "auto", "--dist", "loadgroup", "-p", "no:cacheprovider", "--timeout", "900",
            f"--junitxml={report}", *paths, check=False, **environment,
        )  # fmt: skip
        if not report.exists():  # the tests could not be collected
            return 0, 1
        tree = ElementTree.parse(report)  # nosec B314
        (suite,) = tree.getroot().iter("testsuite")
        count = {
            name: int(suite.get(name, 0)) for name in ("tests", "errors", "failures", "skipped")
        }
        failed = count["errors"] + count["failures"]
        return count["tests"] - failed - count["skipped"], failed

    def row(self, *counts: tuple[int, int]) -> Row:
        """What is installed, whether the smoke test works, and the sums of ``counts``."""
        smoke = self.python(ROOT / "tests/smoke.py", "reference", "cpu", check=False) != ""
        told = self.python("-c", (
            "import json, platform, torch; from importlib import metadata\n"
            "has = {d.name.lower(): d.version for d in metadata.distributions()}\n"
            "print(json.dumps([platform.python_version(), torch.__version__, torch.version.cuda, "
            "has['numpy'], has.get('triton')]))"
        ))  # fmt: skip
        passed, failed = (sum(numbers) for numbers in zip(*counts, strict=True))
        return Row(*json.loads(told), self.wheel.name, smoke, passed, failed)


def with_torch(python: str, torch: str, numpy: str) -> Row:
    there = Environment(python, f"torch=={torch}", f"numpy=={numpy}")
    return there.row(there.tests(OPERATORS))


def with_triton(triton: str, numpy: str) -> Row:
    there = Environment("3.11", "torch==2.13.0", f"numpy=={numpy}", f"triton=={triton}")
    interpreted = there.tests(INTERPRETED, TRITON_INTERPRET="1")
    return there.row(there.tests(COMPILED), interpreted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", nargs="*", help="only these releases; without any, none")
    parser.add_argument("--triton", nargs="*", help="only these releases; without any, none")
    given = parser.parse_args()
    data = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"torch": {}, "triton": {}}
    failed = 0
    calls = [("torch", with_torch, row) for row in TORCH
             if given.torch is None or row[1] in given.torch]  # fmt: skip
    calls += [("triton", with_triton, row) for row in TRITON
              if given.triton is None or row[0] in given.triton]  # fmt: skip
    for kind, run, arguments in calls:
        try:
            row = run(*arguments)
        except subprocess.CalledProcessError as error:  # what pip says is above
            print(f"{' '.join(arguments)}: {error}", flush=True)
            failed = 1
            continue
        print(row, flush=True)
        data[kind][" ".join(arguments)] = asdict(row)
        RESULTS.write_text(json.dumps(data, indent=1) + "\n")
        failed |= not row.smoke or row.failed > 0
        shutil.rmtree(WORK)
    return failed


if __name__ == "__main__":
    sys.exit(main())
