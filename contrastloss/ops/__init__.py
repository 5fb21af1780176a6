"""The operators: tiled statistics of pair scores that never hold the N x M matrix."""

from .merge import merge
from .pair_stats import PairStats, pair_stats

__all__ = ["PairStats", "merge", "pair_stats"]
