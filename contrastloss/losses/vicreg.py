"""VICReg: variance-invariance-covariance regularisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import SUM
from ..options import NonNegative, Positive
from .base.features import variance_hinge
from .base.loss import Loss
from .base.scores import at_least_one, wide

__all__ = ["VICRegLoss"]

_SQUARES = (SUM("square"),)


class VICRegLoss(Loss, name="vicreg"):
    r"""VICReg: invariance between views, a minimum variance per feature, decorrelated features.

    :math:`\lambda\, \frac{1}{N D} \sum_{n d} (x_{nd} - y_{nd})^2 +
    \mu\, [v(x) + v(y)] + \nu\, [c(x) + c(y)]`

    :math:`v(z) = \frac1D \sum_d \Bigl[\gamma - \sqrt{\operatorname{Var}(z_d) + \epsilon}\Bigr]_+,
    \qquad c(z) = \frac1D \sum_{i \ne j} \operatorname{Cov}(z)_{ij}^2`

    with unbiased variances and covariances. This is the paper's Algorithm 1. Its equation for the
    invariance term does not divide by D (``invariance=25 * D``), and the released code halves the
    variance terms (``variance=12.5``). The D x D covariance matrix is not materialised.

    Args:
        invariance: lambda >= 0. Default: 25.
        variance: mu >= 0. Default: 25.
        covariance: nu >= 0. Default: 1.
        gamma: minimum standard deviation of a feature, positive. Default: 1.
        eps: added to variances, positive. Default: 1e-4.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). For N = 0 it is 0. For N = 1 variances and covariances are 0.

    Source: Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning, 2022.
    """

    invariance: NonNegative = 25.0
    variance: NonNegative = 25.0
    covariance: NonNegative = 1.0
    gamma: Positive = 1.0
    eps: Positive = 1e-4

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D"}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = wide(x), wide(y)
        if x.shape[0] == 0:
            return self.scaled(x.sum() + y.sum())
        loss = self.invariance * (x - y).square().mean()
        for z in (x, y):
            loss = loss + self.variance * variance_hinge(z, self.gamma, self.eps)
            if self.covariance:
                loss = loss + self.covariance * self._covariance(z)
        return self.scaled(loss)

    def _covariance(self, z: Tensor) -> Tensor:
        n, d = z.shape
        features = (z - z.mean(0)).mT
        scale = 1 / at_least_one(n - 1)
        (squares,) = ops.pair_stats(features, None, _SQUARES, scale=scale, backend=self.backend)
        return squares.sum() / d

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        invariance: float,
        variance: float,
        covariance: float,
        gamma: float,
        eps: float,
    ) -> Tensor:
        loss = invariance * torch.nn.functional.mse_loss(x, y)
        for z in (x, y):
            cov = torch.cov(z.mT, correction=min(1, len(z) - 1)).reshape(z.shape[1], z.shape[1])
            loss = loss + variance * torch.relu(gamma - (cov.diag() + eps).sqrt()).mean()
            off = cov.square().sum() - cov.diag().square().sum()
            loss = loss + covariance * off / z.shape[1]
        return loss
