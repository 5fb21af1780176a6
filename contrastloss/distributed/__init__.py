"""The exact loss of a batch that is spread over the ranks of a process group.

The table in docs/losses.md says which losses take ``group=`` and ``strategy=``; :func:`pair_stats`
is the operator behind them.
"""

from .collectives import log_total as log_total, softmax as softmax, total as total
from .header import describe as describe
from .peers import WORLD as WORLD, Layout as Layout, Peers as Peers
from .stats import STRATEGIES as STRATEGIES, Strategy as Strategy, pair_stats

# "name as name": what other layers use, but users should not
__all__ = ["pair_stats"]
