"""``copies``: values that stay what they are, whatever is written over their originals later.

A backward pass needs what its forward pass saw. Compilers drop a ``clone()`` whose original is
written to only afterwards, and compute values of a forward pass anew, from what state has become by
then. They can do neither with an operator that they do not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .form import plain

__all__ = ["check_forward", "copies", "settled"]


def copies(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies, made in the forward pass.

    Raises:
        RuntimeError: in a backward pass, where a region is computed anew from other values.
    """
    if plain(values[0]):
        return _copies(values)
    return torch.ops.contrastloss.copies(values)


def settled(value: Tensor) -> Tensor:
    """A result, which no compiler computes anew in the backward pass."""
    return value if plain(value) else torch.ops.contrastloss.copies([value])[0]


def check_forward(what: str) -> None:
    """That this is no backward pass. As an operator asks, it is for the time of the call."""
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            f"{what} in a backward pass, expected before or after one: what torch.utils.checkpoint "
            "computes anew would find other values than the forward pass did. Keep what reads or "
            "writes a queue or a momentum encoder outside of checkpointed regions"
        )


def _copies(values: Sequence[Tensor]) -> list[Tensor]:
    check_forward("state: got a read")
    return [value.clone() for value in values]


def _register() -> None:
    name = "contrastloss::copies"
    tags = (torch.Tag.pt2_compliant_tag,)
    torch.library.define(name, "(Tensor[] values) -> Tensor[]", tags=tags)
    torch.library.impl(name, "CompositeExplicitAutograd", _copies)
    torch.library.register_fake(name, lambda values: [torch.empty_like(v) for v in values])


_register()
