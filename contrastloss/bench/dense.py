"""The losses as they are written without this library. Embeddings need not be unit vectors.

``block=None`` holds all scores at once. A number holds that many rows of scores at a time and
computes them again in the backward pass (``torch.utils.checkpoint``), another way to O(N) memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, softplus
from torch.utils.checkpoint import checkpoint

__all__ = [
    "clip",
    "info_nce",
    "nt_xent",
    "nt_xent_masked",
    "numbers",
    "over",
    "siglip",
    "supcon",
    "wide",
]


def over(rows: Callable[..., Any], z: Tensor, block: int | None) -> list[Any]:
    """``rows(part of z, its first row)`` for all of z, or for one block after the other."""
    if block is None:
        return [rows(z, 0)]
    starts = range(0, len(z), block)
    return [checkpoint(rows, z[k : k + block], k, use_reentrant=False) for k in starts]


def numbers(part: Tensor, start: int) -> Tensor:
    return torch.arange(start, start + len(part), device=part.device)


def wide(scores: Tensor) -> Tensor:
    """Scores of one block need little memory, and logsumexp of narrow ones would be inaccurate."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def clip(x: Tensor, y: Tensor, *, scale: float, block: int | None = None) -> Tensor:
    x, y = normalize(x), normalize(y)
    if block is None:
        scores, target = scale * x @ y.T, numbers(x, 0)
        return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2

    def rows(part: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        scores = wide(scale * part @ y.T)
        return scores.logsumexp(1), scores.logsumexp(0), scores.diagonal(start)

    by_row, by_col, positive = zip(*over(rows, x, block), strict=True)
    both = torch.cat(by_row) + torch.stack(by_col).logsumexp(0)
    return (both / 2 - torch.cat(positive)).mean()


def info_nce(x: Tensor, y: Tensor, *, scale: float, block: int | None = None) -> Tensor:
    x, y = normalize(x), normalize(y)

    def rows(part: Tensor, start: int) -> Tensor:
        return cross_entropy(scale * part @ y.T, numbers(part, start), reduction="none")

    return torch.cat(over(rows, x, block)).mean()


def nt_xent(x: Tensor, y: Tensor, *, scale: float, block: int | None = None) -> Tensor:
    z, n = normalize(torch.cat([x, y])), len(x)

    def rows(part: Tensor, start: int) -> Tensor:
        scores = scale * part @ z.T
        scores.diagonal(start).fill_(-torch.inf)
        positive = (numbers(part, start) + n) % (2 * n)
        return cross_entropy(scores, positive, reduction="none")

    return torch.cat(over(rows, z, block)).mean()


def nt_xent_masked(x: Tensor, y: Tensor, *, scale: float) -> Tensor:
    """The usual way: a mask removes self pairs. It copies all scores in the forward and in the
    backward pass, which filling the diagonal in place avoids."""
    z, n = normalize(torch.cat([x, y])), len(x)
    own = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    scores = (scale * z @ z.T).masked_fill(own, -torch.inf)
    return cross_entropy(scores, (numbers(z, 0) + n) % (2 * n))


def siglip(x: Tensor, y: Tensor, *, scale: float, bias: float, block: int | None = None) -> Tensor:
    x, y = normalize(x), normalize(y)

    def rows(part: Tensor, start: int) -> Tensor:
        scores = scale * part @ y.T + bias
        # softplus(-s) = softplus(s) - s for the positive: no matrix of signs
        return softplus(scores).sum(1) - scores.diagonal(start)

    return torch.cat(over(rows, x, block)).mean()


def supcon(z: Tensor, labels: Tensor, *, scale: float, block: int | None = None) -> Tensor:
    z = normalize(z)

    def rows(part: Tensor, start: int) -> tuple[Tensor, Tensor]:
        scores = scale * part @ z.T
        positive = labels[start : start + len(part), None] == labels
        positive.diagonal(start).fill_(False)
        total = torch.where(positive, scores, 0.0).sum(1)
        scores = scores.diagonal_scatter(torch.full_like(scores[:, 0], -torch.inf), start)
        count = positive.sum(1)
        return scores.logsumexp(1) - total / count.clamp_min(1), count > 0

    losses, counted = (torch.cat(v) for v in zip(*over(rows, z, block), strict=True))
    return torch.where(counted, losses, 0.0).sum() / counted.sum().clamp_min(1)
