"""What ranks tell each other before a call, and how they are told apart where they disagree.

Numbers of a fixed length go first, one of them a hash of all that has to be the same. Only if the
hashes differ does the text follow from which they are made, so that every rank can say who differs
in what.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAILED", "describe", "digest", "disagreement", "encoded"]

#: in place of a hash: this rank could not make the call
FAILED = 0


def describe(value: Any) -> str:
    """What is compared of an option or an input. Of a tensor only what needs no look at its
    values; how many rows it has is its rank's own affair."""
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
    """Why the ranks cannot go on: those of ``failed`` raised what they said, or else the first
    thing of which they said different things."""
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


def listed(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
