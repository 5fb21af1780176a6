"""Where the relevant columns are in the ranking of every query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..inputs import takes
from ..options import Count
from .search import RELEVANT, search_for

__all__ = ["mean_average_precision", "mean_reciprocal_rank", "recall_at_k"]


@torch.no_grad()
@takes(**RELEVANT)
def recall_at_k(
    queries: Tensor,
    corpus: Tensor | None = None,
    ks: Sequence[Count] = (1, 5, 10),
    *,
    positives: Tensor | None = None,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    any_hit: bool = False,
    normalize: bool = True,
    reduction: Literal["mean", "none"] = "mean",
    backend: str | None = None,
) -> Tensor:
    r"""The share of a query's relevant columns :math:`R_i` among its k best, :math:`T_{ik}`:

    .. math:: \text{recall@}k = \operatorname{mean}_i \frac{|R_i \cap T_{ik}|}{|R_i|}

    Args:
        queries: (N, D). corpus: (M, D), or None for the other queries.
        ks: the values of k, at least one.
        positives, labels, corpus_labels, normalize, backend: see :mod:`contrastloss.metrics`.
        any_hit: count 1 if any relevant column is among the k best, else 0. This is the recall@k of
            metric learning and of image-text retrieval, and elsewhere called hit rate.
        reduction: ``'mean'`` over queries, or ``'none'``.

    Returns:
        (len(ks),), or (N, len(ks)) with ``reduction='none'``, in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    if not ks:
        raise ValueError("ks: got none, expected at least one")
    search = search_for(queries, corpus, positives, labels, corpus_labels, normalize, backend)
    values = search.values(len(ks))
    for rows in search.blocks(max(ks)):
        found = search.hits(rows, max(ks)).cumsum(1)
        found = found[:, [min(k, found.shape[1]) - 1 for k in ks]]
        share = (found > 0).to(values.dtype)
        if not any_hit:
            share = found.to(values.dtype) / search.count[rows, None]
        values[rows] = share
    return search.reduced(values, reduction)


@torch.no_grad()
@takes(**RELEVANT)
def mean_reciprocal_rank(
    queries: Tensor,
    corpus: Tensor | None = None,
    *,
    k: Count | None = None,
    positives: Tensor | None = None,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    normalize: bool = True,
    reduction: Literal["mean", "none"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """The mean of 1 / rank of the first relevant column.

    Args:
        k: None for all ranks: one more than the number of other columns that score at least as high
            as the best relevant one, counted in one more pass. Else the rank among the k best, and
            0 if no relevant column is among them.
        queries to backend: as of :func:`recall_at_k`.

    Returns:
        (), or (N,) with ``reduction='none'``, in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    search = search_for(queries, corpus, positives, labels, corpus_labels, normalize, backend)
    values = search.values()
    if k is None:
        for rows, most in search.ranked_blocks():
            own, every = search.counts(rows, most, 1)
            values[rows] = 1 / (1 + every - own).squeeze(1)
    else:
        for rows in search.blocks(k):
            hits = search.hits(rows, k)
            rank = 1 + hits.int().argmax(1)
            values[rows] = torch.where(hits.any(1), 1 / rank.to(values.dtype), 0.0)
    return search.reduced(values, reduction)


@torch.no_grad()
@takes(**RELEVANT)
def mean_average_precision(
    queries: Tensor,
    corpus: Tensor | None = None,
    *,
    k: Count | None = None,
    positives: Tensor | None = None,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    normalize: bool = True,
    reduction: Literal["mean", "none"] = "mean",
    backend: str | None = None,
) -> Tensor:
    r"""The mean of every query's average precision,

    .. math:: \text{AP}_i = \frac{1}{|R_i|} \sum_{p \in R_i}
        \frac{\#\{j \in R_i : s_{ij} \ge s_{ip}\}}{\#\{j : s_{ij} \ge s_{ip}\}}.

    Every relevant column is a threshold at which the columns of a row are counted, eight thresholds
    in one pass over the pairs. So the time grows with the number of relevant columns. Where they
    are several hundred, ``k=len(corpus)`` is faster: it sorts whole rows, some at a time, and takes
    the smaller column first among equal scores.

    Args:
        k: None for all ranks, as above. Else only the k best columns count: the sum of the
            precisions at the ranks of the relevant ones, divided by :math:`\min(k, |R_i|)`. This
            is the mAP@k of sentence-transformers' ``InformationRetrievalEvaluator``.
        queries to backend: as of :func:`recall_at_k`.

    Returns:
        (), or (N,) with ``reduction='none'``, in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    search = search_for(queries, corpus, positives, labels, corpus_labels, normalize, backend)
    values = search.values()
    if k is None:
        for rows, most in search.ranked_blocks():
            own, every = search.counts(rows, most, most)
            count = search.count[rows]
            there = torch.arange(most, device=count.device) < count[:, None]
            values[rows] = torch.where(there, own / every, 0.0).sum(1) / count
    else:
        for rows in search.blocks(k):
            hits = search.hits(rows, k)
            ranks = torch.arange(1, 1 + hits.shape[1], device=hits.device, dtype=values.dtype)
            precision = torch.where(hits, hits.cumsum(1) / ranks, 0.0)
            values[rows] = precision.sum(1) / search.count[rows].clamp_max(k)
    return search.reduced(values, reduction)
