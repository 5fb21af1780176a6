"""Collectives with gradients. Every rank has to call each of them, with any number of rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..ops.merge import log_sum_exp
from ..ops.second import without_second
from .peers import OVER_RANKS, TOTAL, Layout, Peers

__all__ = ["exchange", "gather", "log_total", "softmax", "total"]


def total(value: Tensor, peers: Peers) -> Tensor:
    """The sum over ranks, the same on every rank.

    Its gradient is W times the incoming one. Every rank then holds W times its share of the
    gradient, so the average over ranks, as in DDP and FSDP, is the full gradient.
    """
    return _Total.apply(value, peers)


def gather(value: Tensor, peers: Peers, layout: Layout, dtype: torch.dtype) -> Tensor:
    """The columns of all ranks, in order. They are sent in their own dtype, then cast to ``dtype``.
    Their gradients are returned in ``dtype`` and summed in it, in the order of ranks."""
    return _Gather.apply(value, peers, layout, dtype)


def exchange(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """Partial statistics per column: from (N,), those of this rank for all columns, to (W, n),
    those of every rank for this rank's columns."""
    return _Exchange.apply(value, peers, layout)


def softmax(values: Tensor, peers: Peers) -> Tensor:
    """Softmax over the last dimension, of which every rank holds a part."""
    own = values.logsumexp(-1)
    one_each = Layout((1,) * peers.world, (1,) * peers.world)
    everyone = gather(own.unsqueeze(0), peers, one_each, own.dtype)
    return torch.exp(values - log_sum_exp(everyone).unsqueeze(-1))


@torch.no_grad()
def log_total(value: Tensor, peers: Peers) -> Tensor:
    """The logarithm of the sum over ranks of the exponentials, the same on every rank, without
    gradient."""
    return peers.everyone(value.contiguous(), TOTAL).logsumexp(0)  # in the order of ranks


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers) -> Tensor:
        ctx.world = peers.world
        return peers.everyone(value, TOTAL).sum(0)  # in the order of ranks

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.world, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, peers: Peers, layout: Layout, dtype: torch.dtype
    ) -> Tensor:
        ctx.peers, ctx.layout, ctx.dtype = peers, layout, value.dtype
        return _joined(value.contiguous(), peers, layout).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = _split(grad, ctx.peers, ctx.layout).sum(0).to(ctx.dtype)
        return *without_second(OVER_RANKS, [found], [grad]), None, None, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers, layout: Layout) -> Tensor:
        ctx.peers, ctx.layout = peers, layout
        return _split(value, peers, layout)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = _returned(grad.contiguous(), ctx.peers, ctx.layout)
        return *without_second(OVER_RANKS, [found], [grad]), None, None


def _returned(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """From (W, n) to (N,): the inverse of :func:`_split`."""
    everyone = value.new_empty(sum(layout.cols))
    if peers.direct(value.device):
        peers.swap(value.unbind(), everyone.split(layout.cols), layout.tag)
        return everyone
    sizes = [layout.cols[peers.rank]] * peers.world
    dist.all_to_all_single(everyone, value.flatten(), list(layout.cols), sizes, group=peers.group)
    return everyone


def _joined(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """From (n, ...) to (N, ...): the columns of all ranks, in order."""
    sizes, largest = layout.cols, max(layout.cols)
    if peers.direct(value.device):
        whole = value.new_empty(sum(sizes), *value.shape[1:])
        peers.swap([value] * peers.world, whole.split(sizes), layout.tag)
        return whole
    if len(set(sizes)) == 1:
        return peers.everyone(value, layout.tag).flatten(0, 1)
    padded = value.new_zeros(largest, *value.shape[1:])  # the collective needs equal sizes
    padded[: value.shape[0]] = value
    parts = peers.everyone(padded, layout.tag)
    return torch.cat([parts[k, :n] for k, n in enumerate(sizes)])


def _split(value: Tensor, peers: Peers, layout: Layout) -> Tensor:
    """From (N, ...), one entry per column of all ranks, to (W, n, ...): the entries of every rank
    for the columns of this rank."""
    n, value = layout.cols[peers.rank], value.contiguous()
    parts = value.new_empty(peers.world, n, *value.shape[1:])
    if peers.direct(value.device):
        peers.swap(value.split(layout.cols), parts.unbind(), layout.tag)
        return parts
    dist.all_to_all_single(
        parts.flatten(0, 1), value, [n] * peers.world, list(layout.cols), group=peers.group
    )
    return parts
