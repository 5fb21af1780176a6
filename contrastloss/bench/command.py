"""Forward and backward passes of losses beside dense PyTorch and the classes of other libraries, as
far as they are installed. Every program's results are compared with fp64 before it is timed."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from pytest_benchmark import plugin as pytest_benchmark
from rich.console import Console

from .. import arguments
from . import cases, plugin
from .cases import Case
from .chart import draw
from .peers import PROBLEMS
from .results import SHORT, Results
from .tables import compared, measured
from .timing import GEMM_SIDE

__all__ = ["add_arguments", "main"]

#: of what the user leaves out when describing batches
ROWS, DIM, DTYPE = 4096, 128, "float32"
MEMORY = Path("/proc/meminfo")
BRIEF = {"bench_large": cases.BRIEF_LARGE, "bench_small": cases.BRIEF_SMALL}
ALL = {"bench_large": cases.LARGE, "bench_small": cases.SMALL}


def place(text: str) -> str:
    if text not in GEMM_SIDE:
        raise argparse.ArgumentTypeError(f"got {text}, expected {' or '.join(GEMM_SIDE)}")
    return arguments.device(text).type


def earlier(text: str) -> Results:
    """The results in a file of this name; read before anything is measured."""
    try:
        return Results(Path(text))
    except OSError as error:
        reason = error.strerror
    except ValueError as error:
        reason = str(error)
    raise argparse.ArgumentTypeError(
        f"got {text}, expected a JSON file that this command wrote: {reason}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    many = arguments.integer(1)
    here, threads = "cuda" if torch.cuda.is_available() else "cpu", torch.get_num_threads()
    add = parser.add_argument
    add("--device", type=place, default=here, help="cpu or cuda; here: %(default)s")
    add("--threads", type=many, default=threads, help="threads of torch; here: %(default)s")
    add("--seconds", type=many, default=2, help="time for a comparison, %(default)s")
    add("--compiled", action="store_true", help="also torch.compile, which may take minutes a case")
    which = parser.add_argument_group("cases", "without these, some that take two minutes")
    add = which.add_argument
    names = list(PROBLEMS)
    add("--loss", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    add("--rows", nargs="+", type=arguments.integer(2), metavar="N", help=f"of a batch, {ROWS}")
    add("--dim", nargs="+", type=many, metavar="D", help=f"length of embeddings, {DIM}")
    dtypes = list(SHORT)
    add("--dtype", nargs="+", choices=dtypes, metavar="DTYPE", help=f"{', '.join(dtypes)}; {DTYPE}")
    add("--all", action="store_true", help="the cases of losses in docs/performance.md")
    add = parser.add_argument_group("files").add_argument
    picture = arguments.output("png", "jpg", "pdf", "svg")
    add("--json", type=arguments.output("json"), default="bench.json", help="results, %(default)s")
    add("--plot", type=picture, default="bench.png", help="a picture of them, %(default)s")
    add("--compare", type=earlier, metavar="JSON", help="results of an earlier run")
    parser.set_defaults(error=parser.error)


class Described:
    """Gives the batches that the user described to ``bench_chosen``."""

    def __init__(self, given: argparse.Namespace) -> None:
        sizes = given.rows or [ROWS], given.dim or [DIM], given.dtype or [DTYPE]
        self.cases: list[Case] = [
            (loss, rows - rows % PROBLEMS[loss].views, dim, dtype)
            for loss, rows, dim, dtype in product(given.loss, *sizes)
        ]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if metafunc.function is cases.bench_chosen:
            metafunc.parametrize("case", self.cases, ids=cases.label)


def selected(given: argparse.Namespace) -> list[str]:
    """What is to run, by pytest's names."""
    if given.rows or given.dim or given.dtype:
        return ["bench_chosen"]
    return [
        f"{function}[{cases.label(case)}]"
        for function, every in (ALL if given.all else BRIEF).items()
        for case in every
        if case[0] in given.loss
    ]


@contextmanager
def limited(device: str) -> Iterator[None]:
    """On Linux, a program that asks for more memory than is free gets an error, and is refused.
    Otherwise the system might end the whole run. CUDA's allocator gives errors by itself."""
    if device == "cuda" or not MEMORY.exists():
        yield
        return
    import resource

    (free,) = re.findall(r"MemAvailable:\s+(\d+) kB", MEMORY.read_text())
    (used,) = re.findall(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = (int(free) + int(used)) << 10
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def measure(given: argparse.Namespace, file: Path) -> int:
    """Run pytest, which writes the file unless every case fails; its exit status. No settings and
    plugins of the current folder or of other packages take part."""
    here = Path(cases.__file__)
    options = ["-c", os.devnull, f"--rootdir={here.parent}", "--noconftest", "--assert=plain"]
    options += ["--disable-plugin-autoload", "-p", "no:cacheprovider", "--import-mode=importlib"]
    options += ["--no-header", "--tb=short", "-v", "--benchmark-quiet", f"--benchmark-json={file}"]
    options += [f"--benchmark-storage=file://{file.parent}"]
    options += [f"--{name}={getattr(given, name)}" for name in ("device", "threads", "seconds")]
    options += ["--without-compiled"] * (not given.compiled)
    plugins: list[Any] = [pytest_benchmark, plugin, Described(given)]
    # pytest shows names relative to the current folder
    with inside(here.parent), limited(given.device):
        return pytest.main([*options, *(f"{here}::{name}" for name in selected(given))], plugins)


def main(given: argparse.Namespace) -> int:
    """The exit status is pytest's: 0 if everything was measured, whatever the figures are."""
    if given.all and (given.rows or given.dim or given.dtype):
        given.error("argument --all: got it with sizes, expected either --all or sizes and dtypes")
    if given.compare and given.compare.file.resolve() == given.json.resolve():
        given.error(f"argument --json: got {given.json}, expected another file than --compare's")
    with TemporaryDirectory() as folder:
        file = Path(folder, "bench.json")
        status = measure(given, file)
        if not file.exists():
            return int(status)
        results = Results(file)
        shutil.copyfile(file, given.json)
    console = Console(markup=False, highlight=False)
    for part in measured(results):
        console.print(part, soft_wrap=isinstance(part, str))
    if given.compare:
        console.print()
        for part in compared(given.compare, results):
            console.print(part, soft_wrap=isinstance(part, str))
    draw(results, given.plot)
    print(f"\nresults: {given.json}, picture: {given.plot}")
    return int(status)
