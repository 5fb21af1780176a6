"""``copies``: values that do not change when their originals are overwritten later.

A backward pass needs the values that its forward pass saw. A compiler may drop a ``clone()`` if the
original is written to only afterwards. It may also recompute values of the forward pass, from state
that has changed by then. It can do neither with an operator that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .check import plain
from .operator import define

__all__ = ["check_forward", "copies", "settled"]


def copies(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies, made in the forward pass.

    Raises:
        RuntimeError: in a backward pass, which would recompute a region from changed values.
    """
    if plain(values[0]):
        return _copies(values)
    return torch.ops.contrastloss.copies(values)


def settled(value: Tensor) -> Tensor:
    """A result that no compiler recomputes in the backward pass."""
    return value if plain(value) else torch.ops.contrastloss.copies([value])[0]


def check_forward(what: str) -> None:
    """Raise in a backward pass. An operator calls this, so a compiled call is checked when it
    runs."""
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            f"{what} in a backward pass, expected it before or after one: torch.utils.checkpoint "
            "would recompute from other values than the forward pass saw. Keep code that reads or "
            "writes a queue or a momentum encoder outside checkpointed regions"
        )


def _copies(values: Sequence[Tensor]) -> list[Tensor]:
    check_forward("state: got a read")
    return [value.clone() for value in values]


define(
    "copies",
    "(Tensor[] values) -> Tensor[]",
    _copies,
    lambda values: [torch.empty_like(v) for v in values],
)
