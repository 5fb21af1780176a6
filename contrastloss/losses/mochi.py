"""Hard negative mixing (MoCHi)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .. import ops
from ..channel import Channel
from ..options import Count, NonNegativeInt, Temperature
from .base.blocks import Block, Ids
from .base.scores import Scores, wide
from .moco import MoCoLoss

__all__ = ["MoCHiLoss"]

#: limit on the elements of gathered embeddings in memory at once
_GATHERED = 1 << 22
#: limit on the scores of mixtures in memory at once
_HELD = 1 << 19


class MoCHiLoss(MoCoLoss, name="mochi"):
    r"""MoCHi: MoCo with additional negatives, mixed for each query from its hardest negatives.

    With :math:`n, n'` drawn from the ``hardest`` stored keys nearest to the query q, and
    :math:`\alpha \sim U(0, 1)`, :math:`\beta \sim U(0, \tfrac12)`,

    :math:`h = \frac{\alpha n + (1 - \alpha) n'}{\|\alpha n + (1 - \alpha) n'\|}
    \quad\text{(mixed of them)}, \qquad
    h' = \frac{\beta q + (1 - \beta) n}{\|\beta q + (1 - \beta) n\|}
    \quad\text{(mixed\_with\_query)}`

    are added to the denominator of :class:`~contrastloss.MoCoLoss`. Embeddings are normalised
    first, unless ``normalize=False``. Mixtures are constants: no gradient flows through h and h'
    to q, to the weights, or to the mixed keys. Mixtures are never materialised, since their scores
    follow from those of their parts. Large batches are processed some rows at a time, and the
    backward pass computes these parts again. Keys and weights are drawn from torch's global
    generator of the device. The statistics of ``return_stats`` cover the stored keys only.

    Args:
        temperature: tau, positive. Default: 0.2.
        hardest: number of stored keys to mix, those with the largest scores; at least 1.
            Default: 1024.
        mixed: number of mixtures of two keys per query; 0 for none. Default: 1024.
        mixed_with_query: number of mixtures of a key with the query; 0 for none. Default: 128.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: distributes the queries over ranks, for the mean and its gradient.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        Same as :class:`~contrastloss.MoCoLoss`.

    Source: Kalantidis et al., Hard Negative Mixing for Contrastive Learning, 2020.
    """

    temperature: Temperature = 0.2
    hardest: Count = 1024
    mixed: NonNegativeInt = 1024
    mixed_with_query: NonNegativeInt = 128

    @property
    def stops_gradients(self) -> bool:
        return True  # the mixtures

    def draw(self, count: int, device: torch.device) -> Tensor:
        """Uniform random numbers for ``count`` queries. The first 2 ``mixed`` +
        ``mixed_with_query`` numbers of a row choose keys; the others are mixing weights."""
        numbers = 3 * self.mixed + 2 * self.mixed_with_query
        return torch.rand(count, numbers, dtype=torch.float32, device=device)

    def blocks(self, stored: Block) -> tuple[Block, ...]:
        if not self.mixed + self.mixed_with_query or not stored.columns.shape[0]:
            return (stored,)
        return stored, _Mixtures(stored, self)

    def logits(self, scores: Scores, stored: Block) -> Tensor:
        """Scores of the mixtures, (N, S); -inf for a query without keys."""
        plain, scale = scores.plain(), scores.inverse_temperature
        scale = scale if scores.row_scale is None else scores.row_scale[:, None]
        x, y = wide(scores.x), wide(stored.columns).detach()  # mixtures are constants
        with torch.no_grad():
            chosen, weights = self._choose(plain, stored)
        scored = plain.gather(chosen, y)
        some = chosen[:, :1] >= 0
        scored = torch.where(some, scored, 0.0)
        mixed = scale * self._mix(x, y, chosen, scored, weights.to(scored.dtype))
        mixed = mixed if scores.bias is None else mixed + scores.bias
        return torch.where(some, mixed, -torch.inf)

    def _choose(self, scores: Scores, stored: Block) -> tuple[Tensor, Tensor]:
        """The queue positions of the keys to mix, and their mixing weights."""
        nearest = stored.topk(scores, self.hardest, (), {}, None).indices
        found = (nearest >= 0).sum(-1, keepdim=True)
        uniform = self.draw(nearest.shape[0], nearest.device)
        places, weights = uniform.tensor_split([2 * self.mixed + self.mixed_with_query], -1)
        rank = torch.minimum((places * found).long(), found - 1)
        return nearest.gather(-1, rank.clamp_min(0)), weights

    def _mix(self, x: Tensor, y: Tensor, chosen: Tensor, scored: Tensor, weights: Tensor) -> Tensor:
        """Scores of the mixtures, not yet scaled, from the scores of their parts."""
        sizes = [self.mixed, self.mixed, self.mixed_with_query]
        (i, j, k), (one, two, single) = (v.split(sizes, -1) for v in (chosen, scored))
        alpha, beta = weights.split(sizes[1:], -1)
        beta = beta / 2
        y = ops.unit(y) if self.normalize else y
        squares, between = (y * y).sum(-1), _products(y, i, j)
        norm = _inverse_norm(alpha, squares[i], squares[j], between)
        pairs = (alpha * one + (1 - alpha) * two) * norm
        # <q, q'> with the constant q' that was mixed; a unit vector q gets no gradient from it
        x = ops.unit(x.detach()) if self.normalize else x
        own = (x * x.detach()).sum(-1, keepdim=True)
        norm = _inverse_norm(beta, own.detach(), squares[k], single.detach())
        return torch.cat([pairs, (beta * own + (1 - beta) * single) * norm], -1)

    @staticmethod
    def reference(  # type: ignore[override]
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        hardest: int,
        mixed: int,
        mixed_with_query: int,
        uniform: Tensor,
    ) -> Tensor:
        """``uniform`` is the tensor that :meth:`draw` returned."""
        best = (query @ queue.mT).argsort(dim=-1, descending=True, stable=True)[:, :hardest]
        sizes = [mixed, mixed, mixed_with_query, mixed, mixed_with_query]
        *places, alpha, beta = uniform.to(query.dtype).split(sizes, -1)
        chosen = [queue.detach()[best.gather(-1, (u * best.shape[-1]).long())] for u in places]
        alpha, beta, q = alpha[..., None], beta[..., None] / 2, query.detach()[:, None]
        h = torch.cat(
            [
                alpha * chosen[0] + (1 - alpha) * chosen[1],
                beta * q + (1 - beta) * chosen[2],
            ],
            1,
        )
        mixtures = torch.einsum("nd,nkd->nk", query, F.normalize(h, dim=-1))
        positive = (query * key).sum(1, keepdim=True)
        logits = scale * torch.cat([positive, query @ queue.mT, mixtures], 1) + bias
        return logits.logsumexp(1) - logits[:, 0]


class _Mixtures(Block):
    """Mixtures of each row's hardest stored keys, as columns that are never materialised."""

    SYNTHETIC = True

    def __init__(self, stored: Block, loss: MoCHiLoss) -> None:
        super().__init__(stored.columns)
        self.stored, self.loss = stored, loss

    def size(self, scores: Scores) -> int:
        return self.loss.mixed + self.loss.mixed_with_query

    def stats(
        self, scores: Scores, channels: Sequence[Channel], rows: Ids, cols: Ids | None
    ) -> list[Any]:
        n, loss = scores.x.shape[0], self.loss
        step = max(1, _HELD // (2 * loss.mixed + loss.mixed_with_query))

        def of(part: slice) -> list[Any]:
            logits = loss.logits(scores.part(part), self.stored.part(part))
            return ops.row_stats(logits, channels)

        if n <= step:
            return of(slice(None))
        # some rows at a time; the backward pass recomputes the scores of each part
        parts = [slice(start, start + step) for start in range(0, n, step)]
        found = [checkpoint(of, part, use_reentrant=False) for part in parts]
        return [joined(values) for values in zip(*found, strict=True)]


def joined(values: Sequence[Any]) -> Any:
    """Concatenate the values of a channel for parts of the rows."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return type(values[0])(*map(torch.cat, zip(*values, strict=True)))


def _products(y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """``<y_i, y_j>`` for pairs of positions, (N, S), computed some rows at a time."""
    rows = max(1, _GATHERED // max(1, i.shape[-1] * y.shape[-1]))
    parts = zip(i.split(rows), j.split(rows), strict=True)
    return torch.cat([(y[a] * y[b]).sum(-1) for a, b in parts])


def _inverse_norm(share: Tensor, square: Tensor, other: Tensor, product: Tensor) -> Tensor:
    """``1 / |share a + (1 - share) b|`` from ``|a|^2``, ``|b|^2`` and ``<a, b>``. Where a and b
    cancel, the norm is bounded below by its rounding error."""
    apart = share**2 * square + (1 - share) ** 2 * other
    whole = apart + 2 * share * (1 - share) * product
    floor = (4 * torch.finfo(apart.dtype).eps * apart).clamp_min(1e-24)
    return torch.maximum(whole, floor).rsqrt()
