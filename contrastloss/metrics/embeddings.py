"""How the scores of positive and of negative pairs are distributed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE
from ..inputs import takes
from ..options import Count, Positive
from .search import RELEVANT, search_for

__all__ = [
    "Histogram",
    "Similarities",
    "alignment",
    "mean_similarities",
    "similarity_histogram",
    "uniformity",
]


class Similarities(NamedTuple):
    """The mean scores of relevant pairs and of all others, () each; NaN for no pairs."""

    positive: Tensor
    negative: Tensor


class Histogram(NamedTuple):
    """Edges of bins, (bins + 1,), and how many relevant pairs and others are in each, (bins,),
    int64."""

    edges: Tensor
    positives: Tensor
    negatives: Tensor


@torch.no_grad()
@takes(x="N D", y="N D")
def alignment(x: Tensor, y: Tensor, *, alpha: Positive = 2.0) -> Tensor:
    r""":math:`\operatorname{mean}_i |x_i - y_i|^\alpha` of unit vectors; (), NaN without rows.
    A zero vector is orthogonal to all others.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, 2020.
    """
    dtype, widest = ops.stat_dtype(x), ops.widest(x)
    square = (ops.unit(x.to(dtype)) - ops.unit(y.to(dtype))).square().sum(1)
    for v in (x, y):
        square = square + (ops.inverse_norm(v) == 0)
    return square.to(widest).pow(0.5 * alpha).mean().to(dtype)


@torch.no_grad()
@takes(z="N D")
def uniformity(z: Tensor, *, t: Positive = 2.0, backend: str | None = None) -> Tensor:
    r""":math:`\log \operatorname{mean}_{i \ne j} e^{-t |z_i - z_j|^2}` of unit vectors, in one pass
    over the pairs; (), NaN for fewer than two rows.

    It is 0 if all rows are the same, and smaller the more evenly they cover the sphere. Source: as
    of :func:`alignment`.
    """
    n = len(z)
    if n < 2:
        return z.new_full((), torch.nan, dtype=ops.stat_dtype(z))
    (rows,) = ops.pair_stats(z, None, (LSE(),), scale=2 * t, cosine=True, backend=backend)
    pairs = math.log(n) + math.log(n - 1)
    return (rows.to(ops.widest(z)).logsumexp(0) - pairs - 2 * t).to(rows.dtype)


@torch.no_grad()
@takes(**RELEVANT)
def mean_similarities(
    queries: Tensor,
    corpus: Tensor | None = None,
    *,
    positives: Tensor | None = None,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Similarities:
    """The mean score of the pairs of queries and relevant columns, and that of all other pairs, in
    one pass over the pairs.

    Args:
        queries to backend: as of :func:`recall_at_k`.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    search = search_for(queries, corpus, positives, labels, corpus_labels, normalize, backend)
    sums = zip(search.totals("id", (0.0,)), search.pairs(), strict=True)
    means = [total[0] / (count or torch.nan) for total, count in sums]
    return Similarities(*(mean.to(search.dtype) for mean in means))


@torch.no_grad()
@takes(**RELEVANT)
def similarity_histogram(
    queries: Tensor,
    corpus: Tensor | None = None,
    bins: Count = 50,
    *,
    low: float = -1.0,
    high: float = 1.0,
    positives: Tensor | None = None,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Histogram:
    """How many pairs of queries and relevant columns, and how many others, have scores in each of
    ``bins`` bins of equal width. Eight edges are counted in one pass over the pairs.

    Args:
        low, high: the outermost edges. A bin is open at its lower edge and closed at its upper one;
            scores beyond ``low`` and ``high`` are in the first and last bin.
        queries to backend: as of :func:`recall_at_k`.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    if not low < high:
        raise ValueError(f"high: got {high}, expected more than low={low}")
    search = search_for(queries, corpus, positives, labels, corpus_labels, normalize, backend)
    edges = [low + (high - low) * k / bins for k in range(bins + 1)]
    above = search.totals("step", edges[1:-1])
    counts = []
    for count, size in zip(above, search.pairs(), strict=True):
        inner = count.round().long()
        down = torch.cat([inner.new_full((1,), size), inner, inner.new_zeros(1)])
        # rounding may place a relevant pair at an edge in either bin
        counts.append((-down.diff()).clamp_min(0))
    return Histogram(search.values().new_tensor(edges), *counts)
