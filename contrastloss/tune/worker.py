"""The process that runs one backend. It may crash or hang: its parent only reads what it sends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from ..backends.choose import BACKENDS
from ..backends.machine import stamp
from ..backends.table import Time
from .cases import Case, checked, timed
from .check import check, seconds

__all__ = ["Job", "Message", "work"]

#: what the error of a backend says that does not serve a call, which is no fault
_DECLINED = "cannot serve this call"


class Job(NamedTuple):
    backend: str
    #: None for the first GPU, or the CPU if there is none
    device: str | None
    dtypes: tuple[str, ...]
    #: the sizes that are timed; the usual ones if empty
    rows: tuple[int, ...]
    dims: tuple[int, ...]
    check_only: bool


class Message(NamedTuple):
    """What a worker sends: ``absent`` (why) or ``started`` (its stamp, the number of cases), then
    ``tries`` (a case) before each case and ``checked`` (None) or ``timed`` (a Time) after those
    that the backend serves, and at last ``failed`` (what, why) or ``done`` (None)."""

    word: str
    value: Any = None


def work(pipe: Connection, job: Job) -> None:
    """Run a job in this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products
    for message in _messages(job):
        pipe.send(message)
    pipe.close()


def _messages(job: Job) -> Iterator[Message]:
    try:
        device = _device(job.device)
        reason = BACKENDS[job.backend].missing()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    if reason:
        yield Message("absent", reason)
        return
    checks = list(checked(device.type, job.dtypes))
    times = [] if job.check_only else list(timed(device.type, job.dtypes, job.rows, job.dims))
    yield Message("started", (stamp(device, job.backend), len(checks) + len(times)))
    for function, cases in ((_checked, checks), (_timed, times)):
        for case in cases:
            yield Message("tries", case.label)
            try:
                answer = function(case, job.backend, device)
            except Exception as error:  # a fault of the backend, whatever it is
                if _DECLINED in str(error):
                    continue
                answer = Message("failed", f"{type(error).__name__}: {error}")
            if answer.word == "failed":
                yield answer._replace(value=f"{case.label}: {answer.value}")
                return
            yield answer
    yield Message("done")


def _device(name: str | None) -> torch.device:
    """The device, with its index; it can hold tensors."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.empty(0, device=name).device


def _checked(case: Case, backend: str, device: torch.device) -> Message:
    reason = check(case, backend, device)
    return Message("failed", reason) if reason else Message("checked")


def _timed(case: Case, backend: str, device: torch.device) -> Message:
    try:
        return Message("timed", Time(*case, seconds(case, backend, device)))
    except torch.OutOfMemoryError as error:  # nothing is known at this size
        raise RuntimeError(f"{_DECLINED}: {error}") from error
