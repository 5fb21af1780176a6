"""Checks the backends of this machine against the reference in fp64, times them, and writes what it
found to a file that later decides which backend serves a call. Each backend has a process of its
own; this one opens no GPU."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from .. import arguments
from ..backends import table
from ..backends.choose import BACKENDS
from ..backends.machine import Stamp, sources
from ..backends.table import Entry
from .file import save
from .report import Outcome, report
from .worker import Job, Message, work

__all__ = ["add_arguments", "ask", "entry", "main"]

DTYPES = ("bfloat16", "float16", "float32", "float64")
#: seconds until a process sends its first message; it has to import torch
START = 300
#: what a process runs for a job
WORK: Callable[..., None] = work


def place(text: str) -> str:
    """The name of a device that backends may serve; whether it is there, only a worker can see."""
    try:
        if torch.device(text).type in ("cpu", "cuda"):
            return text
    except RuntimeError:
        pass
    raise argparse.ArgumentTypeError(f"got {text}, expected cpu, cuda or cuda:0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    add, many = parser.add_argument, arguments.integer(1)
    add("--device", type=place, help="cpu or cuda; the first GPU if there is one")
    add("--check-only", action="store_true", help="check again, and keep the times of the file")
    add("--timeout", type=many, default=600, help="seconds after which a case hangs, %(default)s")
    add = parser.add_argument_group(
        "times", "without these, the usual ones of a device"
    ).add_argument
    add("--rows", nargs="+", type=many, default=[], metavar="N", help="of a batch")
    add("--dim", nargs="+", type=many, default=[], metavar="D", help="length of embeddings")
    some = DTYPES[:3]
    add("--dtype", nargs="+", choices=DTYPES, default=some, metavar="DTYPE", help=", ".join(DTYPES))
    parser.set_defaults(error=parser.error)


def ask(job: Job, seconds: int, heard: Callable[[Message], None]) -> Outcome:
    """Run a job in a process of its own; its end, or ``seconds`` without a message, is a failure.
    ``heard`` gets every message."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=WORK, args=(there, job), daemon=True)
    process.start()
    there.close()
    found, doing, patience = Outcome(job.backend), "its start", START
    try:
        while here.poll(patience):
            message: Message = here.recv()
            heard(message)
            patience = seconds
            if message.word == "tries":
                doing = message.value
            elif not _noted(found, message):
                process.join(seconds)
                return found
        found.failure = f"{doing}: no answer in {patience} seconds"
    except (EOFError, ConnectionError):
        process.join(seconds)
        found.failure = f"{doing}: its process ended {_ending(process.exitcode)}"
    finally:
        process.kill()
        process.join()
    found.times = []
    return found


def _noted(found: Outcome, message: Message) -> bool:
    """Add what a message says; whether another one follows."""
    word, value = message
    if word == "started":
        found.stamp = value[0]
    elif word == "checked":
        found.checks += 1
    elif word == "timed":
        found.times.append(value)
    elif word == "absent":
        found.absent = value
    elif word == "failed":
        found.failure, found.times = value, []
    return word in ("started", "checked", "timed")


def _ending(code: int | None) -> str:
    return f"by {signal.Signals(-code).name}" if code and code < 0 else f"with status {code}"


def entry(found: Outcome, stamp: Stamp, check_only: bool, old: Sequence[Entry]) -> Entry | None:
    """What the file is to say of a backend; None if it cannot serve this device. With
    ``check_only`` the times are those of an older entry."""
    if found.absent or not (found.checks or found.failure):
        return None
    now = found.stamp or stamp._replace(sources=sources(found.backend))
    times, measured = tuple(found.times), now
    if check_only and not found.failure:
        same = [e for e in old if e.backend == found.backend and e.checked[:3] == now[:3]]
        for older in sorted(same, key=lambda e: e.checked == now):  # the last one is the best
            times, measured = older.times, older.measured
    return Entry(found.backend, now, measured, found.failure, times)


def _ask_all(given: argparse.Namespace, console: Console) -> Iterator[Outcome]:
    """The outcomes of all backends, the reference first, with a line of progress for each."""
    sizes = tuple(given.dtype), tuple(given.rows), tuple(given.dim)
    with Progress(console=console) as bar:
        for name in sorted(BACKENDS, key=lambda name: name != "reference"):
            task = bar.add_task(name, total=None)

            def heard(message: Message, name: str = name, task: TaskID = task) -> None:
                if message.word == "started":
                    bar.update(task, total=message.value[1])
                elif message.word == "tries":
                    bar.update(task, description=f"{name}: {message.value}", advance=1)

            job = Job(name, given.device, *sizes, given.check_only)
            yield ask(job, given.timeout, heard)
            bar.update(task, description=name, total=1, completed=1)


def main(given: argparse.Namespace) -> int:
    """The exit status: 1 if a backend failed."""
    if (rank := os.environ.get("RANK", "0")) != "0":
        given.error(f"environment variable RANK: got {rank}, expected 0: one process tunes")
    console, file = Console(highlight=False, markup=False), table.path()
    try:
        save(file, [])  # fails now, not after minutes
    except OSError as error:
        given.error(f"CONTRASTLOSS_TUNED: got {file}, expected a file that can be written: {error}")
    outcomes: list[Outcome] = []
    for found in _ask_all(given, console):
        outcomes.append(found)
        if reason := outcomes[0].absent or outcomes[0].failure:
            given.error(f"argument --device: got {given.device}; the reference fails: {reason}")
    old = table.readable(file)
    stamp = outcomes[0].stamp
    assert stamp is not None
    made = [entry(found, stamp, given.check_only, old) for found in outcomes]
    entries = [e for e in made if e is not None]
    save(file, entries)
    for part in report(outcomes, entries):
        console.print(part, soft_wrap=isinstance(part, str))
    console.print(f"\nwritten: {file}", soft_wrap=True)
    return 1 if any(found.failure for found in outcomes) else 0
