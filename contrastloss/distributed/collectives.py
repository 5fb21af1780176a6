"""Collectives with gradients. Every one takes part on every rank, with any number of rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..ops.merge import log_sum_exp
from .peers import Layout, Peers

__all__ = ["exchange", "gather", "softmax", "total"]


def total(value: Tensor, peers: Peers) -> Tensor:
    """The sum over ranks, the same on each of them.

    Its gradient is W times the incoming one. Every rank then holds W times its share of the
    gradient, and the average over ranks, which DDP and FSDP take, is the whole gradient.
    """
    return _Total.apply(value, peers)


def gather(value: Tensor, peers: Peers, layout: Layout, dtype: torch.dtype) -> Tensor:
    """The columns of every rank in order, moved as they are and then widened to ``dtype``, in which
    their gradients travel home and are added up, in the order of ranks."""
    return _Gather.apply(value, peers, layout, dtype)


def exchange(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """From (N,), this rank's partial statistics of all columns, to (W, n), every rank's partial
    statistics of this rank's columns."""
    return _Exchange.apply(value, peers, layout)


def softmax(values: Tensor, peers: Peers) -> Tensor:
    """Over the last dimension, of which every rank holds a part."""
    own = values.logsumexp(-1)
    one_each = Layout((1,) * peers.world, (1,) * peers.world)
    everyone = gather(own.unsqueeze(0), peers, one_each, own.dtype)
    return torch.exp(values - log_sum_exp(everyone).unsqueeze(-1))


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers) -> Tensor:
        ctx.world = peers.world
        value = value.clone()
        dist.all_reduce(value, group=peers.group)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.world, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, peers: Peers, layout: Layout, dtype: torch.dtype
    ) -> Tensor:
        ctx.peers, ctx.layout, ctx.dtype = peers, layout, value.dtype
        sizes, largest = layout.cols, max(layout.cols)
        mine = value.contiguous()
        if len(set(sizes)) > 1:  # collectives want equal parts
            mine = value.new_zeros(largest, *value.shape[1:])
            mine[: value.shape[0]] = value
        parts = mine.new_empty(peers.world, largest, *value.shape[1:])
        dist.all_gather(list(parts.unbind()), mine, group=peers.group)
        if len(set(sizes)) == 1:
            return parts.flatten(0, 1).to(dtype)
        return torch.cat([parts[k, :n] for k, n in enumerate(sizes)]).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = _split(grad, ctx.peers, ctx.layout)
        return parts.sum(0).to(ctx.dtype), None, None, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers, layout: Layout) -> Tensor:
        ctx.peers, ctx.layout = peers, layout
        return _split(value, peers, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        peers, layout = ctx.peers, ctx.layout
        everyone = grad.new_empty(sum(layout.cols))
        n = layout.cols[peers.rank]
        dist.all_to_all_single(
            everyone,
            grad.contiguous().flatten(),
            list(layout.cols),
            [n] * peers.world,
            group=peers.group,
        )
        return everyone, None, None


def _split(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """From (N, ...), one row per column of every rank, to (W, n, ...), what every rank had for the
    columns of this one."""
    n = layout.cols[peers.rank]
    parts = value.new_empty(peers.world * n, *value.shape[1:])
    dist.all_to_all_single(
        parts, value.contiguous(), [n] * peers.world, list(layout.cols), group=peers.group
    )
    return parts.unflatten(0, (peers.world, n))
