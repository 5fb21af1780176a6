"""Strategies for all targets: sizes near block boundaries, backends and threads, memory layouts."""

import contextlib

import torch
from hypothesis import strategies as st
from instructions import using
from layouts import column_major

from contrastloss.backends import cpu, reference
from contrastloss.backends.choose import BACKENDS

#: sizes of micro-tiles, vectors, tile registers, tiles and row blocks
UNITS = (2, 3, 4, 6, 8, 12, 16, 32, 64, 192, 384)


@contextlib.contextmanager
def running(isa, threads):
    """Inside, the C++ backend uses this instruction set and number of threads."""
    had = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with using(isa):
            yield
    finally:
        torch.set_num_threads(had)


def borders(most, least=0):
    """The multiples of every unit, and their neighbours."""
    near = {k * u + e for u in UNITS for k in range(1, most // u + 1) for e in (-1, 0, 1)}
    return sorted(k for k in near if least <= k <= most)


def sizes(most, least=0):
    """Small sizes, and sizes near multiples of every unit."""
    return st.integers(least, min(most, 40)) | st.sampled_from(borders(most, least))


@st.composite
def places(draw, operator):
    """A backend with the operator, an instruction set and a number of threads."""
    names = [
        name
        for name in ("cpu", "cpu", "cpu", "reference")
        if hasattr(BACKENDS[name], operator) and BACKENDS[name].missing() is None
    ]
    name = draw(st.sampled_from(names))
    isa = draw(st.sampled_from(cpu.instruction_sets())) if name == "cpu" else None
    return name, isa, draw(st.sampled_from([1, 1, 1, 2, 3]))


@contextlib.contextmanager
def at(place, block=None):
    """Inside, calls run at ``place``; the reference computes ``block`` scores at a time."""
    _, isa, threads = place
    whole = reference.block.block_elements
    if block is not None:
        reference.block.block_elements = lambda device: block
    try:
        with running(isa, threads):
            yield
    finally:
        reference.block.block_elements = whole


LAYOUTS = {
    "contiguous": lambda v: v,
    "transposed": column_major,
    "every other": lambda v: v.repeat_interleave(2, -1)[..., ::2],
    "part of a row": lambda v: torch.cat([v, v, v], -1)[..., v.shape[-1] : 2 * v.shape[-1]],
    "off its alignment": lambda v: torch.cat([v.flatten()[:0].new_zeros(1), v.flatten()])[1:].view(
        v.shape
    ),
}
layouts = st.sampled_from(sorted(LAYOUTS))


def on_a_grid(value):
    """Round to multiples of 1/8. Products and sums of a few of them are exact in every dtype, so
    that ties, kinks and bounds are the same in fp32 and in fp64."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return (value.double() * 8).round().div(8).to(value.dtype)
