"""Lightly's losses of features, of nearest neighbours and of cosines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import ops
from ...channel import INDEX, LSE, MAX, SUM, differs, same
from ...losses.base.features import standardised, variance_hinge
from ...losses.base.scores import wide
from ..ranks import Kept, gathered, needs_ranks, over_ranks

__all__ = [
    "BarlowTwinsLoss",
    "HypersphereLoss",
    "KoLeoLoss",
    "NegativeCosineSimilarity",
    "SymNegCosineSimilarityLoss",
    "VICRegLoss",
    "correlation",
    "covariance",
]

_ONE = "one"
_CORRELATIONS = (
    SUM("square", pairs=(same(INDEX),), shift=_ONE),
    SUM("square", pairs=(differs(INDEX),)),
)
_SQUARES, _NEAREST, _OTHERS = (SUM("square"),), (MAX(),), (LSE(),)


def correlation(x: Tensor, y: Tensor, kept: Kept | None) -> tuple[Tensor, Tensor]:
    """Of the correlations of the features of x and y, (N, D), standardised over the batch of each
    rank: the sum of the squares of those of the same feature, less 1, and the sum of the squares of
    all others. ``kept``: those of the mean over ranks, which have equally many rows, and whose
    gradients are kept; None: of this rank alone."""
    if len(x) < 2:
        raise ValueError(f"embeddings: got {len(x)} rows, expected 2 or more")
    a, b = (standardised(wide(v), 1e-5) for v in (x, y))
    if kept:
        a, b = (gathered(v, kept) for v in (a, b))
    one = {_ONE: a.new_ones(a.shape[1])}
    own, other = ops.pair_stats(a.mT, b.mT, _CORRELATIONS, scale=1 / len(a), rows=one)
    return own.sum(), other.sum()


def covariance(x: Tensor) -> Tensor:
    """The sum of the squares of the covariances of different features, by their number, of x
    (N, ..., D); the mean over what lies between. Of one row it is NaN."""
    features = (x - x.mean(0)).movedim(0, -1)
    (squares,) = ops.pair_stats(features, None, _SQUARES, scale=1 / max(len(x) - 1, 1))
    found = squares.sum(-1).mean() / x.shape[-1]
    return found if len(x) > 1 else found * torch.nan


class BarlowTwinsLoss(nn.Module):
    r"""Drives the correlations of two views' features, standardised over the batch, to the
    identity:

    :math:`\sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \ne i} c_{ij}^2`

    ``forward(z_a, z_b)`` has two (N, D), N > 1. The D x D matrix is not stored.

    Args:
        lambda_param: lambda.
        gather_distributed: c is the mean of all ranks'; they have equally many rows.

    Source: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021.
    """

    def __init__(self, lambda_param: float = 5e-3, gather_distributed: bool = False) -> None:
        super().__init__()
        needs_ranks(gather_distributed)
        self.lambda_param = lambda_param
        self.gather_distributed = gather_distributed

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        kept: Kept | None = "all" if over_ranks(self.gather_distributed) else None
        own, other = correlation(z_a, z_b, kept)
        return own + self.lambda_param * other


class VICRegLoss(nn.Module):
    r"""Invariance of two views, a standard deviation of at least 1 per feature, and features
    without covariance:

    :math:`\lambda \operatorname{mse}(x, y) + \tfrac\mu2 [v(x) + v(y)] + \nu [c(x) + c(y)]`

    ``forward(z_a, z_b)`` has two (N, ..., D), N > 1. The D x D matrices are not stored.

    Args:
        lambda_param, mu_param, nu_param: the weights lambda, mu and nu.
        gather_distributed: variances and covariances are of the rows of all ranks, which have
            equally many; the invariance is that of this rank's.
        eps: added to variances.

    Source: Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning, 2022.
    """

    def __init__(
        self,
        lambda_param: float = 25.0,
        mu_param: float = 25.0,
        nu_param: float = 1.0,
        gather_distributed: bool = False,
        eps: float = 0.0001,
    ) -> None:
        super().__init__()
        needs_ranks(gather_distributed)
        self.lambda_param = lambda_param
        self.mu_param = mu_param
        self.nu_param = nu_param
        self.gather_distributed = gather_distributed
        self.eps = eps

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        # AssertionError, as there
        assert z_a.shape == z_b.shape, f"z_b: got shape {z_b.shape}, expected z_a's, {z_a.shape}"
        assert z_a.shape[0] > 1, f"z_a, z_b: got {z_a.shape[0]} rows, expected 2 or more"
        x, y = wide(z_a), wide(z_b)
        loss = self.lambda_param * F.mse_loss(x, y)
        for rows in (x, y):
            every = gathered(rows, "all") if over_ranks(self.gather_distributed) else rows
            hinge = variance_hinge(every.movedim(0, -2), 1.0, self.eps).mean()
            loss = loss + self.mu_param / 2 * hinge + self.nu_param * covariance(every)
        return loss


class KoLeoLoss(nn.Module):
    r"""Pushes unit vectors away from their nearest neighbours:

    :math:`-\operatorname{mean}_i \log\bigl(|x_i - x_{n(i)} + \varepsilon|_p + \varepsilon\bigr)`

    ``forward(x)`` has (N, D). The neighbour is the row of the largest cosine; one row alone is its
    own.

    Args:
        p: the norm's degree.
        eps: added to each difference and to the distance, and the least length that rows are
            divided by.

    Source: Sablayrolles et al., Spreading Vectors for Similarity Search, 2019.
    """

    def __init__(self, p: float = 2, eps: float = 1e-8) -> None:
        super().__init__()
        self.p = p
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(wide(x), dim=-1, eps=self.eps)
        (nearest,) = ops.pair_stats(x.detach(), None, _NEAREST, compute_dtype=x.dtype)
        distance = F.pairwise_distance(x, x[nearest.index.clamp_min(0)], self.p, self.eps)
        return -(distance + self.eps).log().mean()


class NegativeCosineSimilarity(nn.Module):
    """Minus the mean cosine of x0 and x1, along ``dim``; both get gradients. ``eps`` is the least
    product of their lengths."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        return -F.cosine_similarity(wide(x0), wide(x1), self.dim, self.eps).mean()


class SymNegCosineSimilarityLoss(nn.Module):
    """Half the sum of minus the mean cosines of p0 and z1 and of p1 and z0; z gets no gradient.
    Their releases of today no longer have it.

    ``forward(out0, out1)`` has two pairs, (z0, p0) and (z1, p1), of (..., D).

    Source: Chen and He, Exploring Simple Siamese Representation Learning, 2021.
    """

    def forward(self, out0: tuple[Tensor, Tensor], out1: tuple[Tensor, Tensor]) -> Tensor:
        (z0, p0), (z1, p1) = out0, out1
        cosine = NegativeCosineSimilarity(dim=-1)
        return (cosine(p0, z1.detach()) + cosine(p1, z0.detach())) / 2


class HypersphereLoss(nn.Module):
    r"""Alignment of two views x and y of unit length, and uniformity of each:

    :math:`\operatorname{mean}_i |x_i - y_i|^\alpha + \tfrac\lambda2 [U(x) + U(y)], \qquad
    U(z) = \log \operatorname{mean}_{i < j} e^{-t |z_i - z_j|^2}`

    ``forward(z_a, z_b)`` has two (N, D). One row alone has no pairs and loss NaN.

    Args:
        t: scale of the Gaussian kernel.
        lam: lambda.
        alpha: exponent of the distance.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, 2020.
    """

    def __init__(self, t: float = 1.0, lam: float = 1.0, alpha: float = 2.0) -> None:
        super().__init__()
        self.t = t
        self.lam = lam
        self.alpha = alpha

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        x, y = (F.normalize(wide(z)) for z in (z_a, z_b))
        alignment = (x - y).norm(dim=1).pow(self.alpha).mean()
        return alignment + self.lam * (self._uniformity(x) + self._uniformity(y)) / 2

    def _uniformity(self, z: Tensor) -> Tensor:
        bias = -self.t * z.square().sum(1)
        (rows,) = ops.pair_stats(
            z, None, _OTHERS, scale=2 * self.t, row_bias=bias, col_bias=bias, compute_dtype=z.dtype
        )
        pairs = torch.as_tensor(float(len(z) * (len(z) - 1)), dtype=z.dtype, device=z.device)
        return rows.logsumexp(0) - pairs.log()
