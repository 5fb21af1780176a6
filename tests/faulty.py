"""Backends with one fault each, and the process in which ``tune`` runs them. A module of its own,
since that process imports it."""

import os
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from contrastloss.backends import cuda, reference
from contrastloss.backends.choose import BACKENDS
from contrastloss.tune import cases, worker

#: the environment variable with the library of the emulated CUDA kernels
EMULATION = "CONTRASTLOSS_TESTS_CUDA_HOST"
_RUNS = count()


def crashes(call):
    os.abort()


def hangs(call):
    time.sleep(1000)


def differs(call):
    """Its first value changes by a few bits from run to run."""
    first, *rest = reference.pair_stats_forward(call)
    return [first * (1 + 1e-6 * (next(_RUNS) % 2)), *rest]


def lies(*args):
    """The gradient of x is wrong by 1 %."""
    found = reference.pair_stats_backward(*args)
    return found._replace(x=found.x * 1.01)


def nan(call):
    return [value * float("nan") for value in reference.pair_stats_forward(call)]


def like_reference(**functions):
    """A backend that serves only pair_stats, on every device, with some functions of its own."""
    own = {
        "missing": lambda: None,
        "why_not": lambda call: None,
        "OPEN": False,
        "pair_stats_forward": reference.pair_stats_forward,
        "pair_stats_backward": reference.pair_stats_backward,
    }
    return SimpleNamespace(**own | functions)


FAULTS = {
    "crashes": like_reference(pair_stats_forward=crashes),
    "hangs": like_reference(pair_stats_forward=hangs),
    "differs": like_reference(pair_stats_forward=differs),
    "lies": like_reference(pair_stats_backward=lies),
}


def work(pipe, job):
    """With a small check, for the interpreter and the emulation."""
    BACKENDS.update(FAULTS)
    cases.RAGGED["cpu"] = ((34, 39, 17),)
    if EMULATION in os.environ:  # the process does not know pytest's option --cuda-host
        cuda.LIBRARY, cuda.DEVICE = Path(os.environ[EMULATION]), "cpu"
    worker.work(pipe, job)
