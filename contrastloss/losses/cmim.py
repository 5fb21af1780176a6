"""The contrastive term of cMIM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..channel import INDEX, LSE, differs
from .base.checks import check_finite, check_matrix, check_pair
from .base.loss import ScoreLoss, softplus
from .base.options import Temperature

__all__ = ["CMIMLoss"]

#: of z against itself no row meets itself; of two views, no row meets its own
_ITSELF = (LSE(),)
_VIEWS = (LSE(pairs=(differs(INDEX),)),)


class CMIMLoss(ScoreLoss, name="cmim"):
    r"""Every code is to be told from the batch's other codes, on average, without augmentation.

    .. math:: \ell_i = \log\Bigl(1 + e^{-s_{ii}} \frac{1}{N - 1} \sum_{j \ne i} e^{s_{ij}}\Bigr),
        \qquad s_{ij} = \cos(z_i, z_j) / \tau

    in which :math:`s_{ii} = 1 / \tau`; with a second view y, :math:`\cos(z_i, y_j)` takes the
    place of :math:`\cos(z_i, z_j)`. InfoNCE sums over negatives, so that its value grows with the
    batch. The other terms of cMIM, likelihoods of its encoder and decoder, are the model's.

    Args:
        temperature: tau, 0.1.

    Shape:
        z: (N, D). y: (N, D), or None. Loss: (), or (N,) for ``reduction='none'``. One row alone: 0.

    Source: Livne, cMIM: A Contrastive Mutual Information Framework for Unified Generative and
    Discriminative Representation Learning, 2025.
    """

    temperature: Temperature = 0.1

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            check_matrix("z", z)
            if self.validate:
                check_finite(z=z)
        else:
            check_pair(self, z, y, None, None, names=("z", "y"))
        scores = self.scores(z, y)
        (negative,) = scores.stats(_ITSELF if y is None else _VIEWS)
        mean = negative - math.log(max(z.shape[0] - 1, 1))
        return self.reduce(softplus(mean - scores.aligned()))

    @staticmethod
    def reference(z: Tensor, y: Tensor | None = None, *, scale: Tensor, bias: Tensor) -> Tensor:
        s = scale * (z @ (z if y is None else y).mT) + bias
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        negative = s.masked_fill(own, -torch.inf).logsumexp(1) - math.log(max(len(z) - 1, 1))
        return torch.logaddexp(negative - s.diag(), torch.zeros_like(negative))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views, as little alike as other rows are: a mean over negatives is easily beaten."""
        z, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in "zy")
        return z, 0.1 * z + y
