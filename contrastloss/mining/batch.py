"""Positives and negatives within a batch, by labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..channel import MAX, Test, differs, same
from ..inputs import takes
from ..ops import TopK
from ..options import Count

__all__ = [
    "Pairs",
    "Triplets",
    "batch_hard",
    "multi_similarity",
    "pair_margin",
    "triplet_margin",
]

_LABEL = "label"
_POSITIVE, _NEGATIVE = (same(_LABEL),), (differs(_LABEL),)


class Pairs(NamedTuple):
    """Positives (N, P) and negatives (N, K) of every row, hardest first, padded with -1."""

    positives: Tensor
    negatives: Tensor

    def counts(self) -> tuple[Tensor, Tensor]:
        """How many positives and how many negatives every row has, (N,) each."""
        return (self.positives >= 0).sum(1), (self.negatives >= 0).sum(1)

    def tuples(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Anchors and positives of all positive pairs, anchors and negatives of all negative
        pairs."""
        return (*_listed(self.positives), *_listed(self.negatives))


class Triplets(NamedTuple):
    """Positives (N, P) of every row, and negatives (N, P, K) for each positive, hardest first,
    padded with -1."""

    positives: Tensor
    negatives: Tensor

    def counts(self) -> Tensor:
        """How many negatives every positive has, (N, P)."""
        return (self.negatives >= 0).sum(2)

    def tuples(self) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and negatives of all triplets."""
        anchor, rank, slot = (self.negatives >= 0).nonzero(as_tuple=True)
        return anchor, self.positives[anchor, rank], self.negatives[anchor, rank, slot]


def _listed(index: Tensor) -> tuple[Tensor, Tensor]:
    anchor, slot = (index >= 0).nonzero(as_tuple=True)
    return anchor, index[anchor, slot]


_takes = takes(z="N D", labels="N int", ref="M D", ref_labels="M int")


@torch.no_grad()
@_takes
def batch_hard(
    z: Tensor,
    labels: Tensor,
    *,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Triplets:
    """The least similar positive and the most similar negative of every row: one triplet, or none
    if either is missing. Among equal scores the first one.

    Source: Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """
    batch = _Batch(z, labels, ref, ref_labels, normalize, backend)
    positive, negative = (found.index for found in batch.extremes())
    some = (positive >= 0) & (negative >= 0)
    positive, negative = (torch.where(some, index, -1) for index in (positive, negative))
    return Triplets(positive[:, None], negative[:, None, None])


@torch.no_grad()
@_takes
def triplet_margin(
    z: Tensor,
    labels: Tensor,
    k: Count,
    *,
    margin: float = 0.2,
    kind: Literal["all", "hard", "semihard", "easy"] = "all",
    positives: Count | None = None,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Triplets:
    """For every positive p of a row a: the negatives n with

    ===========  ==============================================================================
    all          ``s_ap - s_an <= margin``, the triplets that violate the margin
    hard         those of them with ``s_an >= s_ap``
    semihard     those of them with ``s_an < s_ap``
    easy         ``s_ap - s_an > margin``
    ===========  ==============================================================================

    Source: Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, 2015.
    """
    batch = _Batch(z, labels, ref, ref_labels, normalize, backend)
    scores, index = batch.positives(positives)
    lower, upper = _window(scores, margin, kind)
    negatives = index.new_full((*index.shape, k), -1)
    for rank in range(index.shape[1]):
        rows = (index[:, rank] >= 0).nonzero().squeeze(1)
        bounds = (b if b is None else b[rows, rank] for b in (lower, upper))
        negatives[rows, rank] = batch.top(k, _NEGATIVE, *bounds, rows=rows).indices
    return Triplets(index, negatives)


def _window(positive: Tensor, margin: float, kind: str) -> tuple[Tensor | None, Tensor | None]:
    """The closed bounds of a negative's score."""
    if kind == "all":
        return positive - margin, None
    if kind == "hard":
        return positive - min(margin, 0.0), None
    if kind == "semihard":
        return positive - margin, _below(positive)
    return None, _below(positive - margin)


@torch.no_grad()
@_takes
def multi_similarity(
    z: Tensor,
    labels: Tensor,
    k: Count,
    *,
    epsilon: float = 0.1,
    positives: Count | None = None,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Pairs:
    """Negatives with a score above that of the least similar positive minus epsilon, and positives
    with a score below that of the most similar negative plus epsilon.

    Source: Wang et al., Multi-Similarity Loss with General Pair Weighting, 2019.
    """
    batch = _Batch(z, labels, ref, ref_labels, normalize, backend)
    easiest, hardest = batch.extremes()
    upper, lower = _below(hardest.value + epsilon), _above(-easiest.value - epsilon)
    return Pairs(
        batch.positives(positives, upper=upper).indices,
        batch.top(k, _NEGATIVE, lower).indices,
    )


@torch.no_grad()
@_takes
def pair_margin(
    z: Tensor,
    labels: Tensor,
    k: Count,
    *,
    pos_margin: float,
    neg_margin: float,
    positives: Count | None = None,
    ref: Tensor | None = None,
    ref_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Pairs:
    """Positives with a score below ``pos_margin`` and negatives with a score above
    ``neg_margin``."""
    batch = _Batch(z, labels, ref, ref_labels, normalize, backend)
    lower, upper = _above(batch.vector(neg_margin)), _below(batch.vector(pos_margin))
    return Pairs(
        batch.positives(positives, upper=upper).indices,
        batch.top(k, _NEGATIVE, lower).indices,
    )


class _Batch:
    """A batch with labels, and the embeddings to mine from."""

    def __init__(
        self,
        z: Tensor,
        labels: Tensor,
        ref: Tensor | None,
        ref_labels: Tensor | None,
        normalize: bool,
        backend: str | None,
    ) -> None:
        if (ref is None) != (ref_labels is None):
            given, missing = ("ref", "ref_labels") if ref_labels is None else ("ref_labels", "ref")
            raise ValueError(f"{missing}: got None with {given}, expected both or neither")
        self.z, self.labels, self.ref = z, labels, ref
        self.ref_labels = labels if ref_labels is None else ref_labels
        self.options: dict[str, Any] = {"cosine": normalize, "backend": backend}

    def vector(self, value: float) -> Tensor:
        dtype = torch.float64 if self.z.dtype == torch.float64 else torch.float32
        return torch.full((len(self.z),), value, dtype=dtype, device=self.z.device)

    def extremes(self) -> Sequence[Any]:
        """Minus the smallest score of a positive, and the largest score of a negative, with
        positions."""
        channels = (MAX(sign=-1.0, pairs=_POSITIVE), MAX(pairs=_NEGATIVE))
        return ops.pair_stats(
            self.z,
            self.ref,
            channels,
            rows={_LABEL: self.labels},
            cols={_LABEL: self.ref_labels},
            **self.options,
        )

    def positives(self, count: int | None, upper: Tensor | None = None) -> TopK:
        """The least similar positives of every row."""
        if count is None:
            sizes = torch.unique(self.ref_labels, return_counts=True)[1]
            largest = int(sizes.max()) if len(sizes) else 0
            count = max(largest - (self.ref is None), 1)
        return self.top(count, _POSITIVE, None, upper, largest=False)

    def top(
        self,
        k: int,
        pairs: tuple[Test, ...],
        lower: Tensor | None = None,
        upper: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        largest: bool = True,
    ) -> TopK:
        """The best columns of every row, or of the given ``rows``. With ``rows``, self pairs are
        not excluded: for negatives, whose labels differ."""
        x, labels, y = self.z, self.labels, self.ref
        if rows is not None:
            x, labels, y = x[rows], labels[rows], x if y is None else y
        bounds: dict[str, Any] = {"lower": lower, "upper": upper}
        ids: dict[str, Any] = {"rows": {_LABEL: labels}, "cols": {_LABEL: self.ref_labels}}
        return ops.pair_topk(x, y, k, largest=largest, pairs=pairs, **bounds, **ids, **self.options)


def _below(value: Tensor) -> Tensor:
    return torch.nextafter(value, torch.full_like(value, -torch.inf))


def _above(value: Tensor) -> Tensor:
    return torch.nextafter(value, torch.full_like(value, torch.inf))
