"""Metrics of embeddings, exact, in memory O(N k): no N x M matrix is formed.

Every query i has relevant columns j of the corpus, said in one of three ways:

    =====================================  =======================================================
    nothing                                row i of the corpus, which may have more rows
    ``positives``, (N,) or (N, P), int64   these columns, padded with -1
    ``labels`` and ``corpus_labels``       the columns with the query's label
    =====================================  =======================================================

``corpus=None`` compares the queries with each other, without row i for query i; ``labels`` are then
those of both. Scores are cosines, or inner products with ``normalize=False``. A query without a
relevant column counts in no mean; with ``reduction='none'`` its value is NaN, and so is the mean of
no queries. Nothing here carries a gradient.

Ties. Metrics of the first k columns, and neighbours, take the smaller column first among equal
scores, as :func:`contrastloss.ops.pair_topk` does. Metrics over all ranks count a column that
scores the same as a relevant one as ahead of it, as scikit-learn's ``average_precision_score`` and
``label_ranking_average_precision_score`` do; so embeddings that are all the same get no credit.
Scores are the same there up to rounding, ``max(8, sqrt(D)) eps``.
"""

from .embeddings import (
    Histogram,
    Similarities,
    alignment,
    mean_similarities,
    similarity_histogram,
    uniformity,
)
from .neighbors import knn_accuracy
from .retrieval import mean_average_precision, mean_reciprocal_rank, recall_at_k

__all__ = [
    "Histogram",
    "Similarities",
    "alignment",
    "knn_accuracy",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "mean_similarities",
    "recall_at_k",
    "similarity_histogram",
    "uniformity",
]
