"""How a test selects an instruction set of the C++ backend."""

import contextlib

from contrastloss.backends import cpu


@contextlib.contextmanager
def using(isa):
    """Inside, the C++ backend uses this instruction set; None means the best one."""
    before, cpu.ISA = cpu.ISA, isa
    try:
        yield
    finally:
        cpu.ISA = before
