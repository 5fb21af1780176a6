"""What the losses of an order share: their options, reductions, and masses of ranks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, dataclass_transform

import torch
from torch import Tensor, nn

from .. import sorting
from ..ops.check import check_device, check_embeddings, shape
from .check import REDUCTIONS

__all__ = [
    "ORDERING",
    "NetworkLoss",
    "OrderingLoss",
    "check_count",
    "check_scores",
    "check_target",
    "log_mass",
]

#: those of :data:`contrastloss.losses.BY_NAME` that look at an order
ORDERING: dict[str, type[OrderingLoss]] = {}

_NETWORK = ("steepness", "network", "distribution", "art_lambda")


@dataclass_transform(kw_only_default=False)
@dataclass(eq=False, repr=False)
class OrderingLoss(nn.Module):
    """Base of the losses that look at the order of scores instead of their size.

    Args:
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``. The mean of nothing is 0.
        backend: the name of a backend; None chooses.

    The loss is fp32, fp64 for fp64. Nothing is exchanged between processes.
    """

    _: KW_ONLY
    reduction: Literal["mean", "sum", "none"] = "mean"
    backend: str | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderingLoss:
        self = super().__new__(cls)
        nn.Module.__init__(self)  # before the dataclass assigns Parameters
        return self

    def __init_subclass__(cls, name: str | None = None) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)
        for field in fields(cls):
            if field.name in cls.__dict__:  # a class attribute that no Parameter could take over
                delattr(cls, field.name)
        if name is not None:
            ORDERING[name] = cls

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            expected = ", ".join(REDUCTIONS)
            raise ValueError(f"reduction: got {self.reduction!r}, expected one of {expected}")

    def extra_repr(self) -> str:
        values = ((field, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{f.name}={v!r}" for f, v in values if v != f.default or not f.kw_only)

    def reduce(self, losses: Tensor) -> Tensor:
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" and losses.numel() else losses.sum()


class NetworkLoss(OrderingLoss):
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
        options = {name: getattr(self, name) for name in _NETWORK}
        if isinstance(self.steepness, Tensor):
            del options["steepness"]
            if not isinstance(self.steepness, nn.Parameter):
                value = self.steepness
                del self.steepness
                self.register_buffer("steepness", value, persistent=False)
        sorting.rank(torch.zeros(1), **options)  # which finds a wrong one

    def sorting(self, x: Tensor) -> dict[str, Any]:
        """Options for the functions of :mod:`contrastloss.sorting` of x."""
        options = {name: getattr(self, name) for name in _NETWORK} | {"backend": self.backend}
        if not isinstance(self.steepness, Tensor):  # a graph cannot ask whether it is positive
            options["steepness"] = x.new_full((), self.steepness)
        return options


def log_mass(mass: Tensor) -> Tensor:
    """The logarithm of masses of ranks, finite and without gradient where there is none."""
    return mass.clamp_min(torch.finfo(mass.dtype).tiny).log()


def check_count(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: got {type(value).__name__}, expected an int")
    if value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")


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
