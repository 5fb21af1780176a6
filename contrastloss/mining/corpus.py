"""Negatives in a corpus, around the positives' scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..inputs import takes
from ..ops import TopK
from ..options import Count, NonNegativeInt, Seed

__all__ = ["csr", "hard_negatives", "highest"]


@torch.no_grad()
@takes(queries="N D", corpus="M D", positives="N int | N P int", ignore="N int | N L int")
def hard_negatives(
    queries: Tensor,
    corpus: Tensor,
    positives: Tensor,
    k: Count,
    *,
    skip: NonNegativeInt = 0,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    ignore: Tensor | None = None,
    sample: float | None = None,
    seed: Seed | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> TopK:
    """The k columns of the corpus most similar to each query, without its positives and without
    columns so similar that they may be positives: scores and indices (N, k), padded with -inf and
    -1.

    The rules are those of sentence-transformers' ``mine_hard_negatives``; all bounds are closed.
    With q the smallest score of the query's positives, a negative scores at most
    ``q - absolute_margin``, at most ``q - |q| relative_margin`` and at most ``max_score``, and at
    least ``min_score``. A score may exceed a margin's bound by rounding, 8 eps, so a copy of the
    positive is found with a margin of 0. A query without positives gets no negatives if a margin
    is given.

    Args:
        queries: (N, D). corpus: (M, D).
        positives: (N,) or (N, P), int64, columns of the corpus, padded with -1.
        skip: leave out this many of the best negatives (``range_min``).
        ignore: (N, L), int64, other columns to leave out, padded with -1.
        sample, seed: draw negatives without replacement, with probabilities proportional to
            ``exp(sample * score)``; see :func:`contrastloss.ops.pair_topk`. 0 draws uniformly.
    """
    positives = _listed_by_row(positives)
    excluded = positives if ignore is None else torch.cat([positives, _listed_by_row(ignore)], 1)
    options: dict[str, Any] = {"cosine": normalize, "backend": backend}
    upper: Tensor | float | None = max_score
    if absolute_margin is not None or relative_margin is not None:
        scores = ops.gather_scores(queries, corpus, positives, **options)
        lengths = None
        if not normalize:
            lengths = corpus.to(scores.dtype).norm(dim=1)[positives]
        margins = absolute_margin, relative_margin
        upper = highest(queries, scores, lengths, positives >= 0, *margins)
        upper = upper if max_score is None else upper.clamp_max(max_score)
    bounds: dict[str, Any] = {"lower": min_score, "upper": upper}
    chosen: dict[str, Any] = {"skip": skip, "ignore": csr(excluded), "sample": sample}
    return ops.pair_topk(queries, corpus, k, **bounds, **chosen, seed=seed, **options)


def highest(
    queries: Tensor,
    scores: Tensor,
    lengths: Tensor | None,
    given: Tensor,
    absolute: float | None,
    relative: float | None,
) -> Tensor:
    """The largest allowed score of each query's negatives, from the scores (N, P) of those
    positives that are ``given`` and, where scores are no cosines, their ``lengths``; more by what
    another order of the same products may make of it."""
    slack: Tensor | float = ops.rounding(queries)
    if lengths is not None:
        longest = torch.nn.functional.pad(lengths.masked_fill(~given, 0.0), (0, 1)).amax(1)
        slack = slack * longest * queries.to(scores.dtype).norm(dim=1)
    return _bound(scores, given, absolute, relative) + slack


def _bound(scores: Tensor, given: Tensor, absolute: float | None, relative: float | None) -> Tensor:
    scores = torch.nn.functional.pad(torch.where(given, scores, torch.inf), (0, 1), value=torch.inf)
    least = bound = scores.amin(1)
    if absolute is not None:
        bound = least - absolute
    if relative is not None:
        bound = torch.minimum(bound, least - least.abs() * relative)
    return torch.where(given.any(1), bound, -torch.inf)


def csr(index: Tensor) -> tuple[Tensor, Tensor]:
    """The CSR format, offsets and entries, of a padded index."""
    some = index >= 0
    return torch.nn.functional.pad(some.sum(1).cumsum(0), (1, 0)), index[some]


def _listed_by_row(index: Tensor) -> Tensor:
    """An index as (N, P)."""
    return (index if index.ndim > 1 else index.unsqueeze(1)).long()
