"""Mixtures of embeddings, as additional positives and negatives for a batch.

Partners are drawn or mined without gradient and without an N x N matrix. Random numbers are drawn
from ``generator``, or given as ``numbers``, uniform on [0, 1), with the shape stated by each
function: the same numbers give the same mixtures. There is no host synchronisation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import ops
from .channel import MAX, differs, same
from .inputs import takes
from .options import Count, Fraction, NonNegative, NonNegativeInt, Positive, shape

__all__ = [
    "Latents",
    "Mixtures",
    "hallucinated_queries",
    "hard_mixtures",
    "label_mixtures",
    "latent_positives",
]

_LABEL = "label"
_NEAREST = (MAX(),)
#: the least similar row of the same label, and the most similar one of another
_HARDEST = (MAX(-1.0, pairs=(same(_LABEL),)), MAX(pairs=(differs(_LABEL),)))


class Latents(NamedTuple):
    """Generated positives (N, G, D), and which of them are valid, (N, G)."""

    features: Tensor
    valid: Tensor


class Mixtures(NamedTuple):
    """Rows to concatenate with a batch, (M, D), their labels, (M,), and which of them are mixtures,
    (M,): an anchor without a partner is mixed with itself. A mixture has the share ``share``, (M,),
    of a row whose label is ``parts[:, 0]``; the rest is of a row whose label is ``parts[:, 1]``."""

    features: Tensor
    labels: Tensor
    valid: Tensor
    share: Tensor
    parts: Tensor


# ---- positives of a key, queries -----------------------------------------------------------------


@torch.no_grad()
@takes(key="N D", prototypes="K>=1 D", numbers="N G 2 float")
def latent_positives(
    key: Tensor,
    prototypes: Tensor,
    count: Count = 100,
    *,
    least: Fraction = 0.0,
    nearest: bool = True,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
    backend: str | None = None,
) -> Latents:
    r"""Unit vectors on the arc from each key to randomly drawn prototypes.

    Let :math:`\theta` be the angle between the key k and the drawn prototype p, and c the prototype
    nearest to k. The point of the arc at angle :math:`\varphi` from k is equally near to p and c if

    :math:`\tan \varphi = \frac{a \sin\theta}{a \cos\theta - b}, \qquad
    a = \langle k, c - p \rangle, \quad b = \langle p, c - p \rangle`

    Angles are drawn uniformly below this, from ``least`` times it on; if p is c itself, below
    :math:`\theta`. The released code has ``least=0.2, nearest=False``. A vector is
    ``valid`` if its nearest prototype is still c: a third prototype may be nearer.

    Args:
        key: (N, D). prototypes: (K, D), e.g. centres of k-means over the queue. Only the
            directions of both matter.
        count: how many per key, G.
        least: the least share of the largest angle, from 0 to 1. Default: 0.
        nearest: whether p may be c. Default: True.
        numbers: (N, G, 2): choose the prototype and the angle.

    Source: Shah et al., HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised
    Learning of Actions, 2023.
    """
    drawn, share = _uniform((len(key), count, 2), key, generator, numbers).unbind(-1)
    k, p = _unit(key), _unit(prototypes)
    found = _nearest(k, p, backend)[:, None]
    own = found.clamp_min(0)  # a NaN key has no nearest prototype
    if nearest:
        chosen = _pick(drawn, len(p))
    else:
        chosen = _pick(drawn, max(len(p) - 1, 1))
        chosen = (chosen + (chosen >= own)).clamp_max(len(p) - 1)
    near = (p[own] * k[:, None]).sum(-1)
    far = (p[chosen] * k[:, None]).sum(-1)
    across = p[chosen] - far[..., None] * k[:, None]  # the part of p orthogonal to k
    sine = torch.linalg.vector_norm(across, dim=-1)
    theta = torch.atan2(sine, far)
    a = (near - far).clamp_min(0)
    b = ((p[chosen] * p[own]).sum(-1) - 1).clamp_max(0)
    bound = torch.where(chosen == own, theta, torch.atan2(a * sine, a * far - b))
    angle = (least + (1 - least) * share) * torch.minimum(bound, theta)
    some = sine > 0  # else p is k or -k, and no arc is defined
    angle = torch.where(some, angle, 0.0)[..., None]
    across = across / torch.where(some, sine, 1.0)[..., None]
    made = angle.cos() * k[:, None] + angle.sin() * across
    same = _nearest(made.flatten(0, 1), p, backend).view(len(k), count) == own
    return Latents(made.to(key.dtype), same & (found >= 0))


@takes(query="N D", key="N D", numbers="1 float")
def hallucinated_queries(
    query: Tensor,
    key: Tensor,
    *,
    strength: NonNegative = 0.1,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
) -> Tensor:
    r"""What Hallucinator's network makes a second query of: :math:`[q; q + r (q - k)]`, with a unit
    vector k, and r uniform between 0 and ``strength``, the same one for all rows.

    The network, three layers from 2 D numbers to D, is the caller's. What it returns is a query of
    the same key: like q, it has negatives of its own and a gradient.

    Args:
        query: (N, D), as the encoder gives it, not normalised.
        key: (N, D), a constant, of which only the directions matter.
        strength: the largest r.
        numbers: (1,).

    Returns:
        (N, 2 D).

    Source: Wu et al., Hallucination Improves the Performance of Unsupervised Visual Representation
    Learning, 2023, as released.
    """
    r = strength * _uniform((1,), key, generator, numbers)
    q = _wide(query)
    beyond = q + r * (q - _unit(key.detach()))
    return torch.cat([query, beyond.to(query.dtype)], 1)


# ---- additional rows for a batch -----------------------------------------------------------------


@takes(z="N D", labels="N int", numbers="N 3 float")
def hard_mixtures(
    z: Tensor,
    labels: Tensor,
    *,
    least: Fraction = 0.8,
    normalize: bool = True,
    released: bool = False,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
    backend: str | None = None,
) -> Mixtures:
    r"""A hard positive and a semi-hard negative for every row.

    The hard positive is :math:`\lambda p + (1 - \lambda) n`, where p is the least similar row with
    the row's label, n the most similar row with another label, and
    :math:`\lambda \sim U(0, 1) = \text{Beta}(1, 1)`; its label is that of the larger part. The
    semi-hard negative is :math:`\mu o + (1 - \mu) z`, where o is a randomly drawn row with another
    label, and :math:`\mu \sim U(\text{least}, 1)`; its label is that of o.

    The system's cross entropy of a classifier's scores for mixtures is, row by row, ``share`` times
    that of the labels ``parts[:, 0]`` plus ``1 - share`` times that of ``parts[:, 1]``.

    Args:
        z: (N, D). These rows are mixed as they are, with gradients.
        labels: (N,), integers.
        least: the smallest share of o.
        normalize: True: similarities are cosines; False: inner products.
        released: as in the authors' code. o is any row, each of them once; mu is the larger of
            ``least`` and U(0, 1). Mixtures have one label only if their parts and shares are equal,
            and the label of a row only if both parts have it; all others have labels beyond the
            batch's. Rows that are no candidates for p or n are not left out, but have similarity 0,
            and p = row 0 stands for none: without negative similarities, as of features behind a
            ReLU, p is mostly the row itself. The batch goes with them as ``z.detach()``.
        numbers: (N, 3): lambda, which row is o, and mu.

    Returns:
        2N rows: the positives, then the negatives.

    Source: Zhang et al., Unleashing the Power of Contrastive Self-Supervised Visual Models via
    Contrast-Regularized Fine-Tuning, 2021; the authors' Core-tuning.
    """
    mix, which, share = _uniform((len(z), 3), z, generator, numbers).unbind(-1)
    own = torch.arange(len(z), device=z.device)
    with torch.no_grad():
        found = ops.pair_stats(
            z, None, _HARDEST, rows={_LABEL: labels}, cosine=normalize, backend=backend
        )
    if released:
        positive, negative = _masked_partners(labels, *found)
        other, share = which.argsort(), share.clamp_min(least)
        valid = torch.cat([positive != negative, other != own])
    else:
        positive, negative = found[0].index, found[1].index
        other = _of_another_label(labels, which[:, None]).squeeze(1)
        share = least + (1 - least) * share
        valid = torch.cat([(positive >= 0) & (negative >= 0), other >= 0])
    positive, negative, other = (torch.where(v < 0, own, v) for v in (positive, negative, other))
    share = torch.cat([mix, share])
    one, two = torch.cat([positive, other]), torch.cat([negative, own])
    parts = torch.stack([labels[one], labels[two]], 1)
    if released:
        named = _soft_classes(labels, share, parts)
    else:
        named = torch.where(torch.cat([mix >= 0.5, own >= 0]), parts[:, 0], parts[:, 1])
    return Mixtures(_mixed(z, share, one, two), named, valid, share, parts)


@takes(z="N D", y="N float", numbers="N G float")
def label_mixtures(
    z: Tensor,
    y: Tensor,
    *,
    negatives: NonNegativeInt = 1,
    positives: NonNegativeInt = 1,
    window: Positive | None = None,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
) -> Mixtures:
    r"""Mixtures of rows with real-valued labels. Negatives contain the anchor, positives do not.

    A negative of anchor i is :math:`\lambda z_i + (1 - \lambda) z_j`, where j is a randomly drawn
    row with another label and :math:`\lambda \sim U(0, 1)`; its label is mixed in the same way. A
    positive is :math:`\mu z_j + (1 - \mu) z_k`, where j has a smaller and k a larger label, and
    :math:`\mu` makes the mixed label equal to the anchor's, :math:`y_i`. ``negatives`` and
    ``positives`` of them are drawn per anchor; the paper uses all N^2.

    Args:
        z: (N, D). These rows are mixed as they are, with gradients.
        y: (N,), of a floating dtype.
        window: the largest distance of the labels of j and k from the anchor's; None: no limit.
        numbers: (N, 2 (negatives + positives)): choose the rows j, then the lambdas, of the
            negatives; then the rows j, then the rows k, of the positives.

    Returns:
        N * ``negatives`` rows, then N * ``positives`` rows, anchor by anchor.

    Source: Wu et al., Mixup Your Own Pairs, 2023.
    """
    n, sizes = len(z), [negatives, negatives, positives, positives]
    which, share, low, high = _uniform((n, sum(sizes)), z, generator, numbers).split(sizes, 1)
    own, real = torch.arange(n, device=z.device)[:, None], _wide(y.detach())
    partner = _of_another_label(real, which)
    some = partner >= 0
    partner = torch.where(some, partner, own)
    mixed = torch.lerp(real[partner], real[:, None].expand_as(partner), share.to(real.dtype))
    below, above = _around(real, low, high, window)
    both = (below >= 0) & (above >= 0)
    below, above = (torch.where(both, v, own) for v in (below, above))
    span = torch.where(both, real[above] - real[below], 1.0)
    part = (real[above] - real[:, None]) / span
    features = [_mixed(z, share, own.expand_as(partner), partner), _mixed(z, part, below, above)]
    named = [mixed.to(y.dtype), y.detach()[:, None].expand_as(below)]
    mixed_rows = [(own.expand_as(partner), partner), (below, above)]
    return Mixtures(
        torch.cat([v.flatten(0, 1) for v in features]),
        torch.cat([v.flatten() for v in named]),
        torch.cat([some.flatten(), both.flatten()]),
        torch.cat([share.flatten(), part.flatten()]),
        torch.cat([y.detach()[torch.stack(v, -1).flatten(0, 1)] for v in mixed_rows]),
    )


# ---- partners ------------------------------------------------------------------------------------


def _of_another_label(labels: Tensor, which: Tensor) -> Tensor:
    """For each row, rows with another label, chosen by numbers (N, K); -1 if there are none."""
    labels = labels.contiguous()
    ranked, order = labels.sort()
    start = torch.searchsorted(ranked, labels)[:, None]
    size = torch.searchsorted(ranked, labels, right=True)[:, None] - start
    others = len(labels) - size
    rank = _pick(which, others)
    rank = torch.where(rank < start, rank, rank + size)  # skip the rows with the same label
    return torch.where(others > 0, _at(order, rank), -1)


def _masked_partners(labels: Tensor, far: Any, near: Any) -> tuple[Tensor, Tensor]:
    """For each row, its hardest positive and negative among similarities in which rows that are no
    candidates have 0; of equal ones the first. A positive that is row 0 is replaced by the row.

    Args:
        far: minus the similarity with the least similar row of its label, and that row.
        near: the similarity with the most similar row of another label, and that row.
    """
    own = torch.arange(len(labels), device=labels.device)
    ranked, order = labels.sort(stable=True)
    alike = order[torch.searchsorted(ranked, labels.contiguous())]  # the first one of its label
    first = labels[:1]
    strange = torch.cat([torch.where(labels != first, own, len(own)), own.new_full((1,), len(own))])
    unlike = torch.where(labels == first, torch.minimum(own, strange.amin()), 0)
    chosen = []
    for best, masked in ((far, unlike), (near, alike)):
        tied = torch.where(best.value == 0, torch.minimum(best.index, masked), masked)
        chosen.append(torch.where(best.value > 0, best.index, tied))
    return torch.where(chosen[0] == 0, own, chosen[0]), chosen[1]


def _soft_classes(labels: Tensor, share: Tensor, parts: Tensor) -> Tensor:
    """Labels of mixtures, equal where their soft labels are: the label of a mixture of one label,
    others beyond all labels."""
    one, two = parts.to(torch.int64).unbind(1)
    share = torch.where(one <= two, share, 1 - share)
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    order = torch.arange(len(one), device=one.device)
    for key in (share, high, low):
        order = order[key[order].argsort(stable=True)]
    ranked = [key[order] for key in (share, high, low)]
    new = torch.stack([key[1:] != key[:-1] for key in ranked]).any(0)
    group = torch.cat([order.new_zeros(len(order[:1])), new.cumsum(0)])
    beyond = labels.max().long() + 1 if len(labels) else 0
    return torch.where(low == high, low, beyond + torch.empty_like(order).scatter(0, order, group))


def _around(y: Tensor, low: Tensor, high: Tensor, window: float | None) -> tuple[Tensor, Tensor]:
    """For each row, rows with smaller and with larger labels, (N, K) each; -1 if there are none."""
    y = y.contiguous()
    ranked, order = y.sort()
    start, end = (torch.searchsorted(ranked, y, right=side)[:, None] for side in (False, True))
    first, last = torch.zeros_like(start), torch.full_like(end, len(y))
    if window is not None:
        first = torch.searchsorted(ranked, y - window)[:, None]
        last = torch.searchsorted(ranked, y + window, right=True)[:, None]
    found = []
    for numbers, begin, size in ((low, first, start - first), (high, end, last - end)):
        rank = begin + _pick(numbers, size)
        found.append(torch.where(size > 0, _at(order, rank), -1))
    return found[0], found[1]


def _pick(numbers: Tensor, size: Tensor | int) -> Tensor:
    """Map numbers in [0, 1) to integers from 0 to size - 1."""
    if isinstance(size, int):
        return (numbers * size).long().clamp(0, size - 1)
    return torch.minimum((numbers * size).long(), size - 1).clamp_min(0)


def _at(order: Tensor, rank: Tensor) -> Tensor:
    """``order[rank]``; ranks may be out of range where the result is not used."""
    return order[rank.clamp(max=max(len(order) - 1, 0))] if len(order) else rank


def _mixed(z: Tensor, share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``share * z[one] + (1 - share) * z[other]``."""
    share = share.to(_wide(z).dtype)[..., None]
    return (share * z[one] + (1 - share) * z[other]).to(z.dtype)


def _nearest(x: Tensor, prototypes: Tensor, backend: str | None) -> Tensor:
    found = ops.pair_stats(x, prototypes, _NEAREST, compute_dtype=x.dtype, backend=backend)
    return found[0].index


def _unit(x: Tensor) -> Tensor:
    x = _wide(x)
    return ops.unit(x)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# ---- random numbers -----------------------------------------------------------------------------


def _uniform(
    size: tuple[int, ...],
    like: Tensor,
    generator: torch.Generator | None,
    numbers: Tensor | None,
) -> Tensor:
    dtype = _wide(like[:0]).dtype
    if numbers is None:
        return torch.rand(size, generator=generator, dtype=dtype, device=like.device)
    if generator is not None:
        raise ValueError("numbers: got numbers and a generator, expected only one of them")
    if numbers.shape != size:
        raise ValueError(f"numbers: got shape {shape(numbers)}, expected {size}")
    return numbers.to(dtype)
