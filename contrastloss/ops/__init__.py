"""The operators: statistics of pair scores, computed in tiles, without a large N x M matrix."""

from ..backends import (
    autocast_dtype as autocast_dtype,
    check_backend as check_backend,
    inverse_norm as inverse_norm,
    rounding as rounding,
    stat_dtype as stat_dtype,
    unit as unit,
    widest as widest,
    without_autocast as without_autocast,
)
from .dense import passing as passing, row_stats
from .gather_scores import GatherScores, gather_scores
from .listed import listed_products as listed_products
from .merge import merge, merge_topk
from .one_pass import PairLoss, Part, row_losses as row_losses
from .pair_loss import pair_loss
from .pair_stats import PairStats, pair_stats
from .pair_topk import PairTopK, pair_topk
from .results import Expectation, Maximum, TopK
from .sort_network import SortNetwork, sort_network
from .triplets import triplet_sums as triplet_sums

# "name as name": what other layers use, but users should not
__all__ = [
    "Expectation",
    "GatherScores",
    "Maximum",
    "PairLoss",
    "PairStats",
    "PairTopK",
    "Part",
    "SortNetwork",
    "TopK",
    "gather_scores",
    "merge",
    "merge_topk",
    "pair_loss",
    "pair_stats",
    "pair_topk",
    "row_stats",
    "sort_network",
]
