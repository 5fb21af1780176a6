"""Mining: select informative positives and negatives, in memory O(N k).

Scores are cosines, or inner products with ``normalize=False``; nothing here carries a gradient.
Indices are padded with -1; ``tuples()`` returns them in the format of the losses of
pytorch-metric-learning. If ``k`` is at least the number of negatives, the in-batch miners find the
same sets as that library's miners with ``CosineSimilarity``; otherwise the hardest of them.

:func:`mine_files` mines a corpus on disk, of any size; ``python -m contrastloss mine`` is the same
as a command.

Arguments of the in-batch miners: z: (N, D), and labels: (N,), integers. ref, ref_labels: (M, D) and
(M,), the embeddings to mine from; None for z itself, where no row is its own positive. k: the
largest number of negatives, the most similar ones. positives: the largest number per row, the least
similar ones; None for all of them, whose number is looked up (this synchronises a GPU).
"""

from .batch import Pairs, Triplets, batch_hard, multi_similarity, pair_margin, triplet_margin
from .corpus import hard_negatives
from .job import mine_files

__all__ = [
    "Pairs",
    "Triplets",
    "batch_hard",
    "hard_negatives",
    "mine_files",
    "multi_similarity",
    "pair_margin",
    "triplet_margin",
]
