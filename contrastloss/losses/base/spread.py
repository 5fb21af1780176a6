"""A batch that is spread over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...channel import Channel
from ...distributed import Layout, Peers, Strategy, pair_stats

__all__ = ["Spread"]


class Spread:
    """The ranks of a batch, how their columns meet, and how many rows and columns each holds."""

    def __init__(self, peers: Peers, strategy: Strategy, layout: Layout, equal_sizes: bool) -> None:
        self.peers, self.strategy, self.equal_sizes = peers, strategy, equal_sizes
        self.layout, self._passes = layout, 0

    def stats(
        self, x: Tensor, y: Tensor | None, channels: Sequence[Channel], **options: Any
    ) -> list[Any]:
        """:func:`contrastloss.distributed.pair_stats`, which gathers columns with batch
        dimensions. ``own_sizes``: the columns are of other numbers than the layout's."""
        layout = None if options.pop("own_sizes", False) else self.layout.of_pass(self._passes)
        self._passes += 1
        strategy = self.strategy if x.ndim == 2 else "gather"
        options |= {"group": self.peers, "strategy": strategy}
        options |= {"layout": layout, "equal_sizes": self.equal_sizes}
        return pair_stats(x, y, channels, **options)[0]
