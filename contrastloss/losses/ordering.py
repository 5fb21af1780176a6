"""What the losses of an order share: networks, and masses of ranks."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from ..ops.check import check_device, check_embeddings, shape
from ..ops.sort_network import check_network
from .loss import RowLoss

__all__ = [
    "NetworkLoss",
    "check_scores",
    "check_target",
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
    steepness: float | Tensor = 10.0
    network: str = "odd_even"
    distribution: str = "cauchy"
    art_lambda: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
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


def check_target(target: Tensor, x: Tensor) -> None:
    """Numbers of x's shape."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target: got {type(target).__name__}, expected a tensor")
    check_device("target", target, "x", x)
    if target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target: got dtype {target.dtype}, expected a real one")
    if target.shape != x.shape:
        raise ValueError(f"target: got shape {shape(target)}, expected x's {shape(x)}")


def check_scores(x: Tensor) -> None:
    check_embeddings("x", x)
    if not x.ndim or not x.shape[-1]:
        raise ValueError(f"x: got shape {shape(x)}, expected (..., n) with n at least 1")
