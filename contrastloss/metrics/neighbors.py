"""Classification by the nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..inputs import takes
from ..options import Count, Positive
from .search import ENTRIES, RELEVANT, LabelSearch

__all__ = ["knn_accuracy"]


@torch.no_grad()
@takes(**{name: RELEVANT[name] for name in ("queries", "labels", "corpus", "corpus_labels")})
def knn_accuracy(
    queries: Tensor,
    labels: Tensor,
    corpus: Tensor | None = None,
    corpus_labels: Tensor | None = None,
    *,
    k: Count = 20,
    temperature: Positive | None = None,
    normalize: bool = True,
    backend: str | None = None,
) -> Tensor:
    r"""The share of queries whose label is that of most of their k nearest columns.

    Args:
        queries: (N, D). corpus: (M, D), or None for the other queries (leave-one-out).
        labels, corpus_labels: (N,) and (M,), integers.
        k: how many neighbours vote; all columns, if there are fewer. Default: 20.
        temperature: None for one vote each, else tau: votes weigh :math:`e^{s_{ij} / \tau}`, as in
            Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
            2018, with 0.07.
        normalize, backend: see :mod:`contrastloss.metrics`.

    Among labels with the same votes the smallest one counts, as in scikit-learn. A query without
    any neighbour counts as wrong.

    Returns:
        (), in fp32 (fp64 for fp64); NaN without queries.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    search = LabelSearch(queries, corpus, labels, corpus_labels, normalize, backend)
    right = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    if len(search.corpus):
        for rows in torch.arange(len(queries), device=queries.device).split(max(1, ENTRIES // k)):
            found = search.nearest(rows, k)
            predicted = _elected(found, search.corpus_labels, temperature)
            right[rows] = (predicted == search.labels[rows]) & (found.indices[:, 0] >= 0)
    return right.to(search.widest).mean().to(search.dtype)


def _elected(found: ops.TopK, labels: Tensor, temperature: float | None) -> Tensor:
    """The label with the most votes of every row's neighbours. Votes of one label lie side by side
    after sorting, so that memory is that of the neighbours, whatever the number of labels is."""
    there = found.indices >= 0
    weight = there.to(found.values.dtype)
    if temperature is not None:
        excess = (found.values - found.values[:, :1]) / temperature
        weight = torch.where(there, excess.exp(), 0.0)
    candidates, order = labels[found.indices.clamp_min(0)].sort(dim=1, stable=True)
    new = candidates.diff(dim=1) != 0
    run = torch.nn.functional.pad(new.cumsum(1), (1, 0))
    votes = torch.zeros_like(weight).scatter_add(1, run, weight.gather(1, order))
    best = votes.argmax(1, keepdim=True)
    first = (run < best).sum(1, keepdim=True)
    return candidates.gather(1, first).squeeze(1)
