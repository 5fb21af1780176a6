"""Statistics of scores that lie one row's after the other's, of rows with different numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends.reference.maths import psi
from ..channel import EXPECT, LSE, MAX, SUM, Channel
from .dense import check_plain, exponent
from .results import Expectation, Maximum, TopK

__all__ = ["padded", "segment_stats", "segment_topk"]


def segment_stats(
    scores: Tensor,
    owner: Tensor,
    n: int,
    channels: Sequence[Channel],
    rows: Mapping[str, Tensor] | None = None,
) -> list[Any]:
    """The results of :func:`~contrastloss.ops.row_stats` for n rows, of scores (M,).

    Args:
        owner: (M,), int64 and ascending, the row of each score.
        channels, rows: as for ``row_stats``. An index of ``MAX`` counts within its row.
    """
    check_plain(channels)
    segments = _Segments(owner, n, _places(owner, n))
    return [_statistic(channel, scores, segments, rows or {}) for channel in channels]


def segment_topk(scores: Tensor, owner: Tensor, n: int, k: int, largest: bool = True) -> TopK:
    """The k best scores of each row, best first, and their places within it; padded with -inf and
    -1."""
    keys = (scores if largest else -scores).detach()
    keys = torch.where(keys.isnan(), -torch.inf, keys)
    order = keys.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    within = _places(owner, n)  # a row's ranks take the places of its scores
    slot = torch.where(within < k, owner * k + within, n * k)  # the last slot is thrown away
    index = torch.full((n * k + 1,), -1, device=owner.device)
    index = index.scatter(0, slot, within[order])[: n * k].view(n, k)
    values = torch.full((n * k + 1,), -torch.inf, dtype=scores.dtype, device=scores.device)
    values = values.scatter(0, slot, scores[order])[: n * k].view(n, k)
    none = (values == -torch.inf) | values.isnan()
    return TopK(torch.where(none, -torch.inf, values), torch.where(none, -1, index))


def padded(scores: Tensor, owner: Tensor, n: int) -> Tensor:
    """Scores as a matrix of n rows, -inf where a row has no more of them. Its width is looked up,
    which synchronises a GPU."""
    place = _places(owner, n)
    width = int(place.max()) + 1 if len(place) else 0
    return scores.new_full((n, width), -torch.inf).index_put((owner, place), scores)


def _places(owner: Tensor, n: int) -> Tensor:
    """The place of each score within its row."""
    first = torch.searchsorted(owner, torch.arange(n, device=owner.device))
    return torch.arange(owner.shape[0], device=owner.device) - first[owner]


class _Segments:
    """Sums and maxima of the values of each row."""

    def __init__(self, owner: Tensor, n: int, within: Tensor) -> None:
        self.owner, self.n, self.within = owner, n, within

    def total(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.n).index_add(0, self.owner, values)

    def most(self, values: Tensor) -> Tensor:
        none = torch.full((self.n,), -torch.inf, dtype=values.dtype, device=values.device)
        return none.scatter_reduce(0, self.owner, values.detach(), "amax")

    def least(self, places: Tensor) -> Tensor:
        none = torch.full((self.n,), torch.iinfo(places.dtype).max, device=places.device)
        return none.scatter_reduce(0, self.owner, places, "amin")


def _statistic(
    channel: Channel, scores: Tensor, segments: _Segments, rows: Mapping[str, Tensor]
) -> Any:
    owner, missing = segments.owner, scores == -torch.inf
    s = torch.where(missing, 0.0, scores)
    if isinstance(channel, (LSE, EXPECT)):
        z = torch.where(missing, -torch.inf, exponent(channel, s))
        top = segments.most(z)
        shift = torch.where(top == -torch.inf, 0.0, top)
        e = torch.exp(z - shift[owner])
        total = segments.total(e)
        empty = total == 0
        lse = torch.where(empty, -torch.inf, torch.where(empty, 1.0, total).log() + shift)
        if isinstance(channel, LSE):
            return lse
        return Expectation(segments.total(e * s) / torch.where(empty, 1.0, total), lse)
    if isinstance(channel, SUM):
        u = s if channel.shift is None else s - rows[channel.shift].expand(segments.n)[owner]
        return segments.total(torch.where(missing, 0.0, psi(channel.psi, channel.sign * u)))
    assert isinstance(channel, MAX)
    signed = torch.where(missing, -torch.inf, channel.sign * scores)
    top = segments.most(signed)
    hit = ((signed == top[owner]) & ~missing) | signed.isnan()
    place = torch.where(hit, segments.within, torch.iinfo(torch.int64).max)
    index = segments.least(place)
    some = index != torch.iinfo(torch.int64).max
    # the value of the first hit alone gets the gradient
    chosen = segments.within == torch.where(some, index, -1)[owner]
    value = torch.where(some, segments.total(torch.where(chosen, signed, 0.0)), -torch.inf)
    return Maximum(value, torch.where(some & ~value.isnan(), index, -1))
