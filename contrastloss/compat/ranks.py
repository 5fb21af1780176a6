"""How other libraries gather rows over ranks: with the gradient of all rows, of a rank's own, or of
none."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, distributed as dist
from torch.distributed.nn.functional import all_gather

from .hand_over import say_once

__all__ = [
    "Kept",
    "gathered",
    "needs_ranks",
    "over_ranks",
    "rank_of",
    "share_of_gradient",
    "warn_of_the_share",
]

#: whose rows keep their gradient
Kept = Literal["all", "own", "none"]


def over_ranks(gather: bool) -> bool:
    """Whether a loss that may ``gather`` has ranks to gather from, in the default group."""
    return gather and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank_of() -> int:
    """This process's place in the default group."""
    return dist.get_rank()


def needs_ranks(gather: bool) -> None:
    """Raises a ValueError for a loss that is to ``gather`` with a torch that cannot."""
    if gather and not dist.is_available():
        raise ValueError("gather_distributed: got True, expected a torch with torch.distributed")


def gathered(rows: Tensor, kept: Kept) -> Tensor:
    """The rows of all ranks of the default group, which have equally many, one rank after the
    other. The gradients of ``'all'`` are added up over ranks."""
    if kept == "all":
        found: Tensor = _ContiguousGradient.apply(torch.cat(all_gather(rows)))
        return found
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    if kept == "own":
        parts[dist.get_rank()] = rows
    return torch.cat(parts)


class _ContiguousGradient(torch.autograd.Function):
    """all_gather returns wrong gradients for some that are not contiguous (torch 2.13, gloo)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()


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
