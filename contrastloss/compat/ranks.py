"""How other libraries gather rows over ranks: with the gradient of all rows, of a rank's own, or of
none."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, distributed as dist
from torch.distributed.nn.functional import all_gather

from .hand_over import say_once

__all__ = ["Kept", "gathered", "share_of_gradient", "warn_of_the_share"]

#: whose rows keep their gradient
Kept = Literal["all", "own", "none"]


def gathered(rows: Tensor, kept: Kept) -> Tensor:
    """The rows of all ranks of the default group, which have equally many, one rank after the
    other. The gradients of ``'all'`` are added up over ranks."""
    if kept == "all":
        return torch.cat(all_gather(rows))
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    if kept == "own":
        parts[dist.get_rank()] = rows
    return torch.cat(parts)


class _Share(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, share: float) -> Tensor:
        ctx.share = share
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.share, None


def share_of_gradient(value: Tensor, share: float) -> Tensor:
    """The value itself, whose gradient is multiplied by ``share``."""
    found: Tensor = _Share.apply(value, share)
    return found


def warn_of_the_share(name: str, world: int, instead: str) -> None:
    """Says once that a library's own convention makes gradients 1/W of the whole batch's."""
    if world > 1:
        say_once(
            f"{name}: as in its library, gradients averaged over the {world} ranks are 1/{world} "
            f"of those of the whole batch; {instead} gives the whole"
        )
