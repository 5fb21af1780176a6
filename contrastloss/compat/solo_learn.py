"""The loss functions of solo-learn (``solo.losses``), as in the last state of its repository. They
need only torch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, distributed as dist

from .. import distributed, ops
from ..channel import LSE, differs, same
from ..losses.base.features import variance_hinge
from ..losses.base.loss import softplus
from ..losses.base.scores import wide
from .labels import numbered
from .lightly.contrastive import among_stored
from .lightly.features import correlation, covariance
from .ranks import gathered, over_ranks, rank_of, warn_of_the_share

__all__ = [
    "barlow_loss_func",
    "byol_loss_func",
    "mocov2plus_loss_func",
    "simclr_loss_func",
    "vicreg_loss_func",
]

_INDEX = "index of a crop"
_CHANNELS = LSE(pairs=(same(_INDEX),)), LSE(pairs=(differs(_INDEX),))


def simclr_loss_func(z: Tensor, indexes: Tensor, temperature: float = 0.1) -> Tensor:
    r"""The loss of SimCLR and, with labels as ``indexes``, of SupCon: the mean over rows of

    :math:`-\log \frac{\sum_p e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}, \qquad
    s_{ij} = \cos(z_i, z_j) / \tau`

    where p are the other rows with the row's index. A row that has none makes the loss infinite.
    In a default process group the columns are the rows of all ranks, and the mean is that of this
    rank's rows.

    Args:
        z: (N, D), the crops of all views.
        indexes: (N,), equal for the crops of an instance or, with labels, of a class.
        temperature: tau.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    2020.
    """
    options: dict[str, Any] = {"scale": 1 / temperature, "cosine": True}
    if over_ranks(True):
        (every,) = numbered(gathered(indexes, "none"))
        ids = {_INDEX: every.chunk(dist.get_world_size())[rank_of()]}
        (positive, negative), _ = distributed.pair_stats(
            z, None, _CHANNELS, rows=ids, group=distributed.WORLD, **options
        )
    else:
        ids = {_INDEX: numbered(indexes)[0]}
        positive, negative = ops.pair_stats(z, None, _CHANNELS, rows=ids, **options)
    return softplus(negative - positive).mean()


def mocov2plus_loss_func(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.1
) -> Tensor:
    """The mean cross entropy of each query's key among it and the queue, of plain products over the
    temperature. Nothing is normalised.

    Args:
        query, key: (N, D).
        queue: (D, K).

    Source: Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020.
    """
    return among_stored(query, key, queue.mT, temperature)


def barlow_loss_func(
    z1: Tensor, z2: Tensor, lamb: float = 5e-3, scale_loss: float = 0.025
) -> Tensor:
    r"""Drives the correlations c of two views' features, standardised over the batch, to the
    identity: ``scale_loss`` times

    :math:`\sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \ne i} c_{ij}^2`

    In a default process group c is the mean of all ranks', each of its own batch. As there, other
    ranks' rows are constants then: gradients averaged over W ranks are 1/W of those of the whole
    batch, and the log says so once.

    Args:
        z1, z2: (N, D), N > 1; equally many on every rank.
        lamb: lambda.

    Source: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021.
    """
    spread = over_ranks(True)
    if spread:
        instead = "contrastloss.compat.lightly.BarlowTwinsLoss(gather_distributed=True)"
        warn_of_the_share("barlow_loss_func", dist.get_world_size(), instead)
    own, other = correlation(z1, z2, "own" if spread else None)
    return scale_loss * (own + lamb * other)


def vicreg_loss_func(
    z1: Tensor,
    z2: Tensor,
    sim_loss_weight: float = 25.0,
    var_loss_weight: float = 25.0,
    cov_loss_weight: float = 1.0,
) -> Tensor:
    """VICReg of two views (N, D): the weighted sum of their mean squared difference, of both views'
    hinges of standard deviations below 1, and of both views' covariances of different features.
    One row makes it NaN.

    Source: Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning, 2022.
    """
    x, y = wide(z1), wide(z2)
    loss = sim_loss_weight * F.mse_loss(x, y)
    for z in (x, y):
        loss = loss + var_loss_weight * variance_hinge(z, 1.0, 1e-4)
        loss = loss + cov_loss_weight * covariance(z)
    return loss


def byol_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """2 minus twice the mean cosine of the predictions p and the targets z, (N, D), which get no
    gradient. The least length that rows are divided by is 1e-8, or 1e-12 if not ``simplified``.

    Source: Grill et al., Bootstrap Your Own Latent, 2020.
    """
    p, z = wide(p), wide(z).detach()
    if simplified:
        return 2 - 2 * F.cosine_similarity(p, z, dim=-1).mean()
    return 2 - 2 * (F.normalize(p, dim=-1) * F.normalize(z, dim=-1)).sum(1).mean()
