"""Barlow Twins."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import INDEX, SUM, differs, same
from ..options import Positive
from .base.features import standardised
from .base.loss import Loss
from .base.scores import wide

__all__ = ["BarlowTwinsLoss"]

_ONE = "one"
_CHANNELS = (
    SUM("square", pairs=(same(INDEX),), shift=_ONE),
    SUM("square", pairs=(differs(INDEX),)),
)


class BarlowTwinsLoss(Loss, name="barlow_twins"):
    r"""Barlow Twins: drives the cross-correlation of two views' features to the identity.

    :math:`\sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \ne i} c_{ij}^2, \qquad
    c_{ij} = \frac1N \sum_n \hat x_{ni} \hat y_{nj}`

    Features are standardised over the batch:
    :math:`\hat x = (x - \text{mean}) / \sqrt{\text{var} + \epsilon}`. The D x D matrix c is not
    materialised.

    Args:
        lambda_: weight of the second sum, positive; None for 1 / D (Graph Barlow Twins).
            Default: 0.005.
        eps: added to the variance, positive. Default: 1e-5.
        standardize: ``'biased'``, the variance of a BatchNorm without affine parameters;
            ``'unbiased'``, that of ``torch.std``, as in Graph Barlow Twins; or ``'none'``: x and y
            are used as they are, after a BatchNorm of the caller (BarLIP). Default: ``'biased'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). For N = 0 it is 0. For N = 1 there is no variance, and c = 0, unless ``'none'``.

    Source: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021;
    Bielak et al., Graph Barlow Twins, 2022; BarLIP: Fini et al., Improved baselines for
    vision-language pre-training, 2023.
    """

    lambda_: Positive | None = 0.005
    eps: Positive = 1e-5
    standardize: Literal["biased", "unbiased", "none"] = "biased"

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D"}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        n, d = x.shape
        if n == 0:
            return self.scaled(wide(x).sum() + wide(y).sum())
        a, b = wide(x), wide(y)
        if self.standardize != "none":
            fewer = int(self.standardize == "unbiased")
            a, b = (standardised(v, self.eps, fewer) for v in (a, b))
        a, b = a.mT, b.mT
        one = {_ONE: torch.ones(d, dtype=a.dtype, device=a.device)}
        own, other = ops.pair_stats(
            a, b, _CHANNELS, scale=1 / n, rows=one, backend=self.backend
        )  # fmt: skip
        weight = 1 / d if self.lambda_ is None else self.lambda_
        return self.scaled(own.sum() + weight * other.sum())

    @staticmethod
    def reference(
        x: Tensor, y: Tensor, *, lambda_: float | None, eps: float, standardize: str
    ) -> Tensor:
        n, d = x.shape
        if standardize != "none":
            some = standardize == "unbiased" and n > 1
            x, y = ((v - v.mean(0)) / (v.var(0, unbiased=some) + eps).sqrt() for v in (x, y))
        c = x.mT @ y / n
        off = c.square().sum() - c.diag().square().sum()
        return (1 - c.diag()).square().sum() + (1 / d if lambda_ is None else lambda_) * off
