"""What the losses of an order share: networks, and masses of ranks."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ... import ops
from ...channel import same
from ...ops.check import scalar
from ...ops.opaque import opaque
from ...ops.sort_network import check_network
from ...options import Positive
from .label_loss import largest_class, not_ignored
from .loss import RowLoss, nan_rows
from .scores import wide

__all__ = [
    "NetworkLoss",
    "SmoothRankLoss",
    "log_mass",
]

_NETWORK = ("steepness", "network", "distribution", "art_lambda")


class NetworkLoss(RowLoss):
    """Losses of what a relaxed sorting network does to scores.

    Args:
        steepness: of its comparators: a positive number, a 0-dim tensor or Parameter.
        network: ``'odd_even'`` or ``'bitonic'``.
        distribution, art_lambda: as of :func:`contrastloss.sorting.sort`.
    """

    _: KW_ONLY
    steepness: Positive | Tensor = 10.0
    network: str = "odd_even"
    distribution: str = "cauchy"
    art_lambda: float = 0.25

    def check(self) -> None:
        super().check()
        check_network(self.network, self.distribution, self.art_lambda, self.steepness)

    def sorting(self, x: Tensor) -> dict[str, Any]:
        """Options for the functions of :mod:`contrastloss.sorting` of x."""
        options = {name: getattr(self, name) for name in _NETWORK} | {"backend": self.backend}
        if not isinstance(self.steepness, Tensor):  # a graph cannot ask whether it is positive
            options["steepness"] = x.new_full((), self.steepness)
        return options


def log_mass(mass: Tensor) -> Tensor:
    """The logarithm of masses of ranks, finite and without gradient where there is none."""
    return mass.clamp_min(torch.finfo(mass.dtype).tiny).log()


#: score differences that are held at once
_HELD = 1 << 22


class SmoothRankLoss(RowLoss):
    r"""Losses of the ranks of a query's positives, every row being a query against all others:

    :math:`R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((s_{qj} - s_{qp}) / \tau\bigr),
    \qquad s_{qj} = \cos(z_q, z_j).`

    With at most K positives this takes O(N^2 K) time, and in memory some rows of differences at a
    time, which the backward pass computes again. A query without a positive costs 0 and does not
    count. The size of the largest class is looked up, which waits for a GPU.

    Args:
        ignore_index: rows with this label take no part; None: there is no such label. They have
            loss 0 and are not counted, and have no rank for any query.
    """

    temperature: Positive = 0.01
    _: KW_ONLY
    ignore_index: int | None = -100

    inputs: ClassVar[dict[str, str]] = {"z": "N D", "labels": "N int"}

    def __init_subclass__(cls, name: str | None = None) -> None:
        super().__init_subclass__(name)
        _CLASSES[cls.__qualname__] = cls

    def numbers(self) -> tuple[float, ...]:
        """The arguments of ``rows`` after the first three."""
        return ()

    @staticmethod
    def rows(ranks: Tensor, among: Tensor, found: Tensor, *numbers: float) -> Tensor:
        """(C,) losses, of ranks (C, K) among all and among the positives; ``found`` marks them."""
        raise NotImplementedError

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        z = wide(z)
        tau = scalar("temperature", self.temperature, z)
        taken = not_ignored(labels, self.ignore_index)
        options = type(self).__qualname__, [*self.numbers()], self.backend
        losses, counted = _smooth_ranks(z, labels, tau, taken, *options)
        return self.reduce(losses, counted, nan_rows(z))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs for ``forward``, for :mod:`contrastloss.testing`: classes that are mixed, and a
        row without a positive."""
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        labels[-1:] = 99
        return torch.randn(n, d, generator=generator, dtype=torch.float64), labels


#: by name, since a graph holds no classes
_CLASSES: dict[str, type[SmoothRankLoss]] = {}


@opaque(
    "smooth_ranks",
    "Tensor z, Tensor labels, Tensor tau, Tensor? taken, str loss, float[] numbers, str? backend",
    lambda z, *others: [z.new_empty(z.shape[0]), z.new_empty(z.shape[0], dtype=torch.bool)],
)
def _smooth_ranks(
    z: Tensor,
    labels: Tensor,
    tau: Tensor,
    taken: Tensor | None,
    loss: str,
    numbers: list[float],
    backend: str | None,
) -> list[Tensor]:
    """The losses of all rows, and which have positives."""
    index, unit = _positives(z, labels, taken, backend), ops.unit(z)
    n, size = index.shape

    def of(q: Tensor) -> Tensor:
        found = index[q] >= 0
        scores = unit[q].mm(unit.mT)
        own = scores.gather(1, index[q].clamp_min(0))
        others = scores.scatter(1, q.unsqueeze(1), -torch.inf)
        if taken is not None:
            others = torch.where(taken, others, -torch.inf)
        # that of the positive itself is a half
        ranks = 0.5 + _steps(others, own, tau).sum(-1)
        among = 0.5 + torch.where(found.unsqueeze(1), _steps(own, own, tau), 0.0).sum(-1)
        return _CLASSES[loss].rows(ranks, among, found, *numbers)

    parts = torch.arange(n, device=z.device).split(max(1, _HELD // max(1, n * size)))
    losses = [checkpoint(of, q, use_reentrant=False) for q in parts]
    return [torch.cat(losses), (index >= 0).any(-1)]


@torch.no_grad()
def _positives(z: Tensor, labels: Tensor, taken: Tensor | None, backend: str | None) -> Tensor:
    """Their columns, (N, K), padded with -1."""
    most = largest_class(labels if taken is None else labels[taken]) - 1
    if most < 1:
        return labels.new_full((labels.shape[0], 1), -1, dtype=torch.int64)
    rows = {"label": labels}
    index = ops.pair_topk(
        z, None, most, pairs=(same("label"),), rows=rows, cosine=True, backend=backend
    ).indices
    return index if taken is None else torch.where(taken.unsqueeze(1), index, -1)


def _steps(scores: Tensor, own: Tensor, tau: Tensor) -> Tensor:
    return ((scores.unsqueeze(1) - own.unsqueeze(2)) / tau).sigmoid()
