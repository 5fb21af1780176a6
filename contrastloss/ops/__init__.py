"""The operators: tiled statistics of pair scores that never hold the N x M matrix."""

from ..backends import inverse_norm, rounding, stat_dtype, unit, widest
from .gather_scores import GatherScores, gather_scores
from .merge import merge, merge_topk
from .pair_stats import PairStats, pair_stats
from .pair_topk import PairTopK, pair_topk
from .results import TopK
from .sort_network import SortNetwork, sort_network

__all__ = [
    "GatherScores",
    "PairStats",
    "PairTopK",
    "SortNetwork",
    "TopK",
    "gather_scores",
    "inverse_norm",
    "merge",
    "merge_topk",
    "pair_stats",
    "pair_topk",
    "rounding",
    "sort_network",
    "stat_dtype",
    "unit",
    "widest",
]
