"""Mixtures of embeddings, as further positives and negatives beside those of a batch.

Partners are drawn or mined without gradient and without an N x N matrix. Numbers are drawn by
``generator``, or are given as ``numbers``, uniform on [0, 1), of the shape that the function names:
the same numbers make the same mixtures. Nothing is synchronised.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import ops
from .channel import MAX, differs, same
from .ops.check import check_count, check_device, check_embeddings, shape

__all__ = [
    "Latents",
    "Mixtures",
    "extrapolated_positives",
    "hard_mixtures",
    "label_mixtures",
    "latent_positives",
]

_LABEL = "label"
_NEAREST = (MAX(),)
#: the least similar row of the same label, and the most similar one of another
_HARDEST = (MAX(-1.0, pairs=(same(_LABEL),)), MAX(pairs=(differs(_LABEL),)))


class Latents(NamedTuple):
    """Generated positives (N, G, D), and which of them count, (N, G)."""

    features: Tensor
    valid: Tensor


class Mixtures(NamedTuple):
    """Rows to concatenate with a batch, (M, D), their labels, (M,), and which of them are mixtures,
    (M,): where an anchor lacks a partner it stands for it itself."""

    features: Tensor
    labels: Tensor
    valid: Tensor


# ---- positives of a key --------------------------------------------------------------------------


@torch.no_grad()
def latent_positives(
    key: Tensor,
    prototypes: Tensor,
    count: int = 100,
    *,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
    backend: str | None = None,
) -> Latents:
    r"""Unit vectors on the way from each key to prototypes that are drawn at random.

    With the angle :math:`\theta` between the key k and the prototype p, and the prototype c nearest
    to k, the point at the angle :math:`\varphi` from k is as near to p as to c at

    .. math:: \tan \varphi = \frac{a \sin\theta}{a \cos\theta - b}, \qquad
        a = \langle k, c - p \rangle, \quad b = \langle p, c - p \rangle

    and angles are uniform below it; on the way to c itself, below :math:`\theta`. ``valid`` are
    those whose nearest prototype is still c: a third one may come between.

    Args:
        key: (N, D). prototypes: (K, D), e.g. centres of k-means over the queue. Of both, the
            directions count.
        count: how many per key, G.
        numbers: (N, G, 2): choose the prototype and the angle.

    Source: Shah et al., HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised
    Learning of Actions, 2023.
    """
    _check_matrix("key", key)
    _check_matrix("prototypes", prototypes, ("key", key))
    if not len(prototypes):
        raise ValueError("prototypes: got none, expected at least one")
    check_count("count", count)
    drawn, share = _uniform((len(key), count, 2), key, generator, numbers).unbind(-1)
    k, p = _unit(key), _unit(prototypes)
    chosen = _pick(drawn, len(p))
    found = _nearest(k, p, backend)[:, None]
    nearest = found.clamp_min(0)  # of NaN there is none
    near = (p[nearest] * k[:, None]).sum(-1)
    far = (p[chosen] * k[:, None]).sum(-1)
    across = p[chosen] - far[..., None] * k[:, None]  # what of p is orthogonal to k
    sine = torch.linalg.vector_norm(across, dim=-1)
    theta = torch.atan2(sine, far)
    a = (near - far).clamp_min(0)
    b = ((p[chosen] * p[nearest]).sum(-1) - 1).clamp_max(0)
    bound = torch.where(chosen == nearest, theta, torch.atan2(a * sine, a * far - b))
    angle = share * torch.minimum(bound, theta)
    some = sine > 0  # else p is k, or opposite to it, and there is no way
    angle = torch.where(some, angle, 0.0)[..., None]
    across = across / torch.where(some, sine, 1.0)[..., None]
    made = angle.cos() * k[:, None] + angle.sin() * across
    same = _nearest(made.flatten(0, 1), p, backend).view(len(k), count) == nearest
    return Latents(made.to(key.dtype), same & (found >= 0))


@torch.no_grad()
def extrapolated_positives(
    query: Tensor,
    key: Tensor,
    *,
    strength: float = 1.0,
    count: int = 1,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
) -> Tensor:
    r"""Unit vectors beyond each key, seen from its query: along :math:`k + t (k - q)` of unit
    vectors, t uniform between 0 and ``strength``.

    They are harder positives than k, and constants: what a head of the caller's makes of them may
    learn.

    Args:
        query, key: (N, D), two views of the same instances.
        strength: the largest t.
        count: how many per key, G.
        numbers: (N, G).

    Returns:
        (N, G, D).

    Source: Wu et al., Hallucination Improves the Performance of Unsupervised Visual Representation
    Learning, 2023; its non-linear head is not part of this.
    """
    _check_matrix("query", query)
    _check_matrix("key", key, ("query", query))
    if key.shape != query.shape:
        raise ValueError(f"key: got shape {shape(key)}, expected query's {shape(query)}")
    if not strength >= 0:
        raise ValueError(f"strength: got {strength}, expected a number >= 0")
    t = strength * _uniform((len(key), count), key, generator, numbers)[..., None]
    q, k = _unit(query)[:, None], _unit(key)[:, None]
    return _unit(k + t * (k - q)).to(key.dtype)


# ---- rows beside a batch -------------------------------------------------------------------------


def hard_mixtures(
    z: Tensor,
    labels: Tensor,
    *,
    least: float = 0.8,
    normalize: bool = True,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
    backend: str | None = None,
) -> Mixtures:
    r"""A hard positive and a semi-hard negative of every row.

    The hard positive is :math:`\lambda p + (1 - \lambda) n` of the least similar row p of the row's
    label and the most similar row n of another, :math:`\lambda \sim U(0, 1) = \text{Beta}(1, 1)`;
    its label is that of the larger part. The semi-hard negative is :math:`\mu o + (1 - \mu) z`,
    with a row o of another label that is drawn at random, whose label it has, and
    :math:`\mu \sim U(\text{least}, 1)`.

    Args:
        z: (N, D). Mixtures are of these rows as they come, with their gradient.
        labels: (N,), integers.
        least: the smallest share of o.
        normalize: similarities are cosines, else plain products.
        numbers: (N, 3): lambda, which row is o, and mu.

    Returns:
        2N rows: the positives, then the negatives.

    Source: Zhang et al., Unleashing the Power of Contrastive Self-Supervised Visual Models via
    Contrast-Regularized Fine-Tuning, 2021.
    """
    _check_matrix("z", z)
    _check_vector("labels", labels, z)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels: got dtype {labels.dtype}, expected an integer one")
    if not 0 <= least <= 1:
        raise ValueError(f"least: got {least}, expected a number between 0 and 1")
    n = len(z)
    mix, which, share = _uniform((n, 3), z, generator, numbers).unbind(-1)
    own = torch.arange(n, device=z.device)
    with torch.no_grad():
        found = ops.pair_stats(
            z, None, _HARDEST, rows={_LABEL: labels}, cosine=normalize, backend=backend
        )
    positive, negative = (v.index for v in found)
    other = _of_another_label(labels, which[:, None]).squeeze(1)
    hard = (positive >= 0) & (negative >= 0), other >= 0
    positive, negative, other = (torch.where(v < 0, own, v) for v in (positive, negative, other))
    share = least + (1 - least) * share
    features = [_mixed(z, mix, positive, negative), _mixed(z, share, other, own)]
    named = [torch.where(mix >= 0.5, labels, labels[negative]), labels[other]]
    return Mixtures(torch.cat(features), torch.cat(named), torch.cat(hard))


def label_mixtures(
    z: Tensor,
    y: Tensor,
    *,
    negatives: int = 1,
    positives: int = 1,
    window: float | None = None,
    generator: torch.Generator | None = None,
    numbers: Tensor | None = None,
) -> Mixtures:
    r"""Mixtures of rows with real labels: negatives with the anchor, positives without it.

    A negative of anchor i is :math:`\lambda z_i + (1 - \lambda) z_j` with a row j of another label,
    drawn at random, and :math:`\lambda \sim U(0, 1)`; its label is mixed alike. A positive is
    :math:`\mu z_j + (1 - \mu) z_k` of a row of a smaller and one of a larger label, with the
    :math:`\mu` at which the mixed label is the anchor's, :math:`y_i`. Both are drawn, ``negatives``
    and ``positives`` per anchor, where the paper has all N^2.

    Args:
        z: (N, D). Mixtures are of these rows as they come, with their gradient.
        y: (N,), of a floating dtype.
        window: labels of j and k are at most so far from the anchor's; None: anywhere.
        numbers: (N, 2 (negatives + positives)): which rows j and which lambdas of the negatives,
            which j and which k of the positives.

    Returns:
        N ``negatives`` rows, then N ``positives`` rows, anchor by anchor.

    Source: Wu et al., Mixup Your Own Pairs, 2023.
    """
    _check_matrix("z", z)
    _check_vector("y", y, z)
    if not y.is_floating_point():
        raise TypeError(f"y: got dtype {y.dtype}, expected a floating one")
    for name, value in (("negatives", negatives), ("positives", positives)):
        check_count(name, value, 0)
    if window is not None and not window > 0:
        raise ValueError(f"window: got {window}, expected a positive number or None")
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
    return Mixtures(
        torch.cat([v.flatten(0, 1) for v in features]),
        torch.cat([v.flatten() for v in named]),
        torch.cat([some.flatten(), both.flatten()]),
    )


# ---- partners ------------------------------------------------------------------------------------


def _of_another_label(labels: Tensor, which: Tensor) -> Tensor:
    """Rows of another label than each row has, chosen by numbers (N, K); -1 for none."""
    labels = labels.contiguous()
    ranked, order = labels.sort()
    start = torch.searchsorted(ranked, labels)[:, None]
    size = torch.searchsorted(ranked, labels, right=True)[:, None] - start
    others = len(labels) - size
    rank = _pick(which, others)
    rank = torch.where(rank < start, rank, rank + size)  # over the rows of the own label
    return torch.where(others > 0, _at(order, rank), -1)


def _around(y: Tensor, low: Tensor, high: Tensor, window: float | None) -> tuple[Tensor, Tensor]:
    """Rows of smaller and of larger labels than each row has, (N, K) each; -1 for none."""
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
    """One of 0 to size - 1, by numbers on [0, 1)."""
    if isinstance(size, int):
        return (numbers * size).long().clamp(0, size - 1)
    return torch.minimum((numbers * size).long(), size - 1).clamp_min(0)


def _at(order: Tensor, rank: Tensor) -> Tensor:
    """``order[rank]``, of ranks that may lie beyond it where nothing is chosen."""
    return order[rank.clamp(max=max(len(order) - 1, 0))] if len(order) else rank


def _mixed(z: Tensor, share: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``share`` of rows ``one`` of z and the rest of rows ``other``."""
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


# ---- checks --------------------------------------------------------------------------------------


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
        raise ValueError("numbers: got some beside a generator, expected only one of them")
    if not isinstance(numbers, Tensor) or not numbers.is_floating_point():
        got = numbers.dtype if isinstance(numbers, Tensor) else type(numbers).__name__
        raise TypeError(f"numbers: got {got}, expected a floating tensor")
    if numbers.shape != size:
        raise ValueError(f"numbers: got shape {shape(numbers)}, expected {size}")
    check_device("numbers", numbers, "the embeddings", like)
    return numbers.to(dtype)


def _check_matrix(name: str, value: Tensor, like: tuple[str, Tensor] | None = None) -> None:
    check_embeddings(name, value, like)
    extent = "D" if like is None else like[1].shape[1]
    if value.ndim != 2 or value.shape[1] != (value.shape[1] if like is None else extent):
        raise ValueError(f"{name}: got shape {shape(value)}, expected (N, {extent})")


def _check_vector(name: str, value: Tensor, rows: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")
    if value.shape != rows.shape[:1]:
        raise ValueError(f"{name}: got shape {shape(value)}, expected ({len(rows)},)")
    check_device(name, value, "z", rows)
