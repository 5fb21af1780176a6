"""The instruction sets of the C++ backend that this machine supports, and how to select one."""

import contextlib
from functools import lru_cache

import torch

from contrastloss.backends import cpu
from contrastloss.channel import LSE
from contrastloss.ops import pair_stats


@lru_cache
def present():
    """The names of the supported sets, best first; empty without the native library."""
    found = []
    for name in cpu.ISAS if cpu.missing() is None else ():
        with using(name):
            try:
                pair_stats(torch.ones(1, 1), None, (LSE(),), backend="cpu")
            except RuntimeError as error:
                if "not supported here" not in str(error):
                    raise
            else:
                found.append(name)
    return found


@contextlib.contextmanager
def using(isa):
    """Inside, the C++ backend uses this instruction set; None means the best one."""
    before, cpu.ISA = cpu.ISA, isa
    try:
        yield
    finally:
        cpu.ISA = before
