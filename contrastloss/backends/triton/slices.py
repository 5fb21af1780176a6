"""The slices of device memory in which program instances leave partial states of rows and columns,
and the kernel that merges them into the values of the channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import words
from .maths import NOTHING
from .states import empty, merged

__all__ = ["MERGED", "STATE", "VALUES", "add_to", "load_state", "merge_kernel", "store_state"]

#: the dtypes of a state, and those of the final values
STATE = {
    "LSE": (torch.float32, torch.float32),
    "SUM": (torch.float32,),
    "EXPECT": (torch.float32, torch.float32, torch.float32),
    "MAX": (torch.float32, torch.int32),
}
VALUES = {
    "LSE": (torch.float32,),
    "SUM": (torch.float32,),
    "EXPECT": (torch.float32, torch.float32),
    "MAX": (torch.float32, torch.int64),
}
#: positions per instance of the kernel that merges
MERGED = 256


@triton.jit
def load_state(slices, KIND: tl.constexpr, at, valid):
    """The state at these places; the empty one where they are not valid."""
    if KIND == "SUM":
        return (tl.load(slices[0] + at, mask=valid, other=0),)
    else:
        top = tl.load(slices[0] + at, mask=valid, other=NOTHING)
        if KIND == "MAX":
            return (top, tl.load(slices[1] + at, mask=valid, other=-1))
        elif KIND == "LSE":
            return (top, tl.load(slices[1] + at, mask=valid, other=0))
        else:
            return (
                top,
                tl.load(slices[1] + at, mask=valid, other=0),
                tl.load(slices[2] + at, mask=valid, other=0),
            )


@triton.jit
def store_state(slices, state, at, valid):
    for k in tl.static_range(len(state)):
        tl.store(slices[k] + at, state[k], mask=valid)


@triton.jit
def add_to(slices, KIND: tl.constexpr, state, place, valid):
    store_state(slices, merged(KIND, load_state(slices, KIND, place, valid), state), place, valid)


@triton.jit
def merge_channel(KIND: tl.constexpr, MORE: tl.constexpr, slices, more, out, z, i, n, S, T):
    """The values of one channel from S slices of its state and, with MORE, T additional slices."""
    valid = i < n
    state = empty(KIND, i.shape[0])
    for k in range(S):
        state = merged(KIND, state, load_state(slices, KIND, (z * S + k) * n + i, valid))
    if MORE:
        for k in range(T):
            state = merged(KIND, state, load_state(more, KIND, (z * T + k) * n + i, valid))
    at = z * n + i
    if KIND == "SUM":
        tl.store(out[0] + at, state[0], mask=valid)
    elif KIND == "MAX":
        tl.store(out[0] + at, state[0], mask=valid)
        tl.store(out[1] + at, state[1].to(tl.int64), mask=valid)
    else:
        some = state[1] != 0
        total = tl.where(some, state[1], 1.0)
        lse = tl.where(some, state[0] + tl.log(total), NOTHING)
        if KIND == "LSE":
            tl.store(out[0] + at, lse, mask=valid)
        else:
            tl.store(out[0] + at, tl.where(some, state[2] / total, 0.0), mask=valid)
            tl.store(out[1] + at, lse, mask=valid)


@triton.jit(do_not_specialize=["m", "n", "across", "down"])
def merge_kernel(
    by_row, by_col, out, m, n, across, down, P: tl.constexpr, SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The values of all channels from their slices."""
    blocks = tl.cdiv(tl.maximum(m, n), BLOCK)
    z = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    for c in tl.static_range(words.channels(P)):
        if SYMMETRIC or words.channel(P, c, "axis") == 0:
            merge_channel(
                words.channel(P, c, "kind"), SYMMETRIC, by_row[c], by_col[c], out[c], z, i, m, down,
                across,
            )  # fmt: skip
        else:
            merge_channel(
                words.channel(P, c, "kind"), False, by_col[c], by_row[c], out[c], z, i, n, across,
                down,
            )  # fmt: skip
