"""The operators: statistics of pair scores, computed in tiles, without the N x M matrix."""

from ..backends import (
    autocast_dtype,
    inverse_norm,
    rounding,
    stat_dtype,
    unit,
    widest,
    without_autocast,
)
from .dense import row_stats
from .gather_scores import GatherScores, gather_scores
from .listed import listed_products
from .merge import merge, merge_topk
from .pair_stats import PairStats, pair_stats
from .pair_topk import PairTopK, pair_topk
from .results import Expectation, Maximum, TopK
from .sort_network import SortNetwork, sort_network

__all__ = [
    "Expectation",
    "GatherScores",
    "Maximum",
    "PairStats",
    "PairTopK",
    "SortNetwork",
    "TopK",
    "autocast_dtype",
    "gather_scores",
    "inverse_norm",
    "listed_products",
    "merge",
    "merge_topk",
    "pair_stats",
    "pair_topk",
    "rounding",
    "row_stats",
    "sort_network",
    "stat_dtype",
    "unit",
    "widest",
    "without_autocast",
]
