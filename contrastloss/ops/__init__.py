"""The operators: tiled statistics of pair scores that never hold the N x M matrix."""

from ..backends.reference import inverse_norm
from .merge import merge
from .pair_stats import PairStats, pair_stats

__all__ = ["PairStats", "inverse_norm", "merge", "pair_stats"]
