"""The exact loss of a batch that is spread over the ranks of a process group.

The table in docs/losses.md says which losses take ``group=`` and ``strategy=``; :func:`pair_stats`
is the operator behind them.
"""

from .collectives import softmax, total
from .header import describe
from .peers import WORLD, Layout, Peers
from .stats import STRATEGIES, Strategy, pair_stats

__all__ = [
    "STRATEGIES",
    "WORLD",
    "Layout",
    "Peers",
    "Strategy",
    "describe",
    "pair_stats",
    "softmax",
    "total",
]
