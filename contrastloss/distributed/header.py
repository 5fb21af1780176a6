"""The header that ranks exchange before a call, and the error text if they disagree.

The header is a few integers. One of them is a hash of everything that has to be the same on all
ranks. Only if the hashes differ do the ranks exchange the hashed text, so that every rank can
report which ranks differ in what.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAILED", "apart", "describe", "digest", "disagreement", "encoded"]

#: stands in place of a hash: an error on this rank prevents the call
FAILED = 0


def describe(value: Any) -> str:
    """The text that is compared between ranks for an option or an input. For a tensor: the number
    of dimensions, the dtype and the gradient; its values and number of rows may differ."""
    if isinstance(value, Tensor):
        wanted = value.requires_grad and torch.is_grad_enabled()
        return f"{value.ndim}-D {value.dtype}{' with' if wanted else ' without'} gradient"
    if isinstance(value, nn.Module):
        return f"{value!r}, {'training' if value.training else 'evaluating'}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are the same option
    known = value is None or isinstance(value, (bool, int, float, str, torch.dtype))
    return repr(value) if known else type(value).__name__


def encoded(said: Mapping[str, str]) -> bytes:
    return json.dumps(said).encode()


def digest(text: bytes) -> int:
    return 1 + int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def disagreement(said: list[dict[str, str]], failed: list[int]) -> str:
    """The error message: the exceptions on the ranks in ``failed`` or, if there are none, the first
    entry that differs between ranks."""
    if failed:
        errors = "; ".join(f"rank {rank} raised {said[rank]['error']}" for rank in failed)
        return f"group: {errors}"
    names = {name: None for entries in said for name in entries}
    for name in names:
        ranks_by_value: dict[str, list[int]] = {}
        for rank, entries in enumerate(said):
            ranks_by_value.setdefault(entries.get(name, "None"), []).append(rank)
        if len(ranks_by_value) > 1:
            break
    found = "; ".join(f"{value} on {listed(ranks)}" for value, ranks in ranks_by_value.items())
    return f"{name}: got {found}; expected the same on every rank of the group"


def apart(preferences: list[int]) -> str:
    """That ranks choose backends differently, and which; empty if all choose alike."""
    others = [rank for rank, found in enumerate(preferences) if found != preferences[0]]
    if not others:
        return ""
    return (
        f"{listed(others)} and rank 0 choose backends by different times, of "
        "`python -m contrastloss tune`, or by CONTRASTLOSS_BACKEND: results may differ in their "
        "last bits. CONTRASTLOSS_TUNED names a file that all ranks can read"
    )


def listed(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
