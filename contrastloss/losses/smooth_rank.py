"""Ranks of positives by sigmoids of score differences, some rows of scores at a time."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import ops
from ..channel import same
from .check import check_labels, check_matrix, positive
from .labelled import largest_class
from .loss import RowLoss, nan_rows
from .scores import wide

__all__ = ["SmoothRankLoss"]

#: score differences that are held at once
_HELD = 1 << 22


class SmoothRankLoss(RowLoss):
    r"""Losses of the ranks of a query's positives, every row being a query against all others:

    .. math:: R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((s_{qj} - s_{qp}) / \tau\bigr),
        \qquad s_{qj} = \cos(z_q, z_j).

    With at most K positives this takes O(N^2 K) time, and in memory some rows of differences at a
    time, which the backward pass computes again. A query without a positive costs 0 and does not
    count. The size of the largest class is looked up, which waits for a GPU.
    """

    temperature: float = 0.01
    _: KW_ONLY

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.temperature, Tensor):
            raise TypeError("temperature: got a tensor, expected a float")
        positive("temperature", self.temperature)

    def rows(self, ranks: Tensor, among: Tensor, found: Tensor) -> Tensor:
        """(C,) losses, of ranks (C, K) among all and among the positives; ``found`` marks them."""
        raise NotImplementedError

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        check_matrix("z", z)
        check_labels(labels, z.shape[0], z)
        z = wide(z)
        index = self._positives(z, labels)
        n, size = index.shape
        parts = torch.arange(n, device=z.device).split(max(1, _HELD // max(1, n * size)))
        with torch.autocast(z.device.type, enabled=False):
            unit = ops.unit(z)
            losses = [checkpoint(self._part, unit, q, index[q], use_reentrant=False) for q in parts]
        return self.reduce(torch.cat(losses), (index >= 0).any(-1), nan_rows(z))

    @property
    def one_graph(self) -> bool:
        return False

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs for ``forward``, for :mod:`contrastloss.testing`: classes that are mixed, and a
        row without a positive."""
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        labels[-1:] = 99
        return torch.randn(n, d, generator=generator, dtype=torch.float64), labels

    def _positives(self, z: Tensor, labels: Tensor) -> Tensor:
        """Their columns, (N, K), padded with -1."""
        most = largest_class(labels) - 1
        if most < 1:
            return labels.new_full((len(labels), 1), -1, dtype=torch.int64)
        with torch.no_grad():
            return ops.pair_topk(
                z,
                None,
                most,
                pairs=(same("label"),),
                rows={"label": labels},
                cosine=True,
                backend=self.backend,
            ).indices

    def _part(self, unit: Tensor, q: Tensor, index: Tensor) -> Tensor:
        found = index >= 0
        scores = unit[q].mm(unit.mT)
        own = scores.gather(1, index.clamp_min(0))
        others = scores.scatter(1, q.unsqueeze(1), -torch.inf)
        # that of the positive itself is a half
        ranks = 0.5 + self._steps(others, own).sum(-1)
        among = 0.5 + torch.where(found.unsqueeze(1), self._steps(own, own), 0.0).sum(-1)
        return self.rows(ranks, among, found)

    def _steps(self, scores: Tensor, own: Tensor) -> Tensor:
        return ((scores.unsqueeze(1) - own.unsqueeze(2)) / self.temperature).sigmoid()
