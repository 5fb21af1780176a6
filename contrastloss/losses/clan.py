"""CLAN: contrastive learning with augmented negative pairs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..channel import SUM, Channel
from ..options import Fraction, Positive
from .base.loss import Loss
from .base.scores import Scores, wide

__all__ = ["CLANLoss"]

_ONE, _NEAR, _EDGE, _FAR = "one", "near", "edge", "far"


class CLANLoss(Loss, name="clan"):
    r"""CLAN: attracts the rows of one class and repels augmented negatives.

    With :math:`d(a, b) = (1 - \cos(a, b)) / 2` and :math:`h_{ij} = [m - d(z_i, z'_j)]_+`,

    :math:`\alpha \frac{\sum_{i \ne j} d(z_i, z_j)}{\#\{d(z_i, z_j) > \epsilon\}} +
    (1 - \alpha) \frac{\sum_{ij} h_{ij}}{\#\{h_{ij} > \epsilon\}}`

    where :math:`z'` are the negatives, augmentations that change the class. The counts get no
    gradient. A term with count 0 is 0.

    Args:
        alpha: weight of the attraction, from 0 to 1. Default: 0.5.
        margin: m, positive. At 1 no pair is excluded; the released training script has 0.5.
            Default: 1.
        squared: whether d and h are squared, before counting. Default: False.
        eps: epsilon, positive. Default: 1e-6.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        z: (N, D), the rows of one class.
        negatives: (M, D). z and negatives both get gradients.
        Loss: ().

    Source: Wilkie et al., Contrastive Self-Supervised Network Intrusion Detection using Augmented
    Negative Pairs, 2025.
    """

    alpha: Fraction = 0.5
    margin: Positive = 1.0
    squared: bool = False
    eps: Positive = 1e-6

    #: the gradients of the attraction and of the repulsion by near negatives mostly cancel
    WIDE_PRODUCTS = True

    inputs: ClassVar[dict[str, str]] = {"z": "N D", "negatives": "M D"}

    def prepare(self) -> None:
        super().prepare()
        pull, push = ("square", "relu2") if self.squared else ("id", "relu")
        # d > eps means cos < 1 - 2 eps; h > eps means cos > 1 - 2 (m - eps)
        self._pull: tuple[Channel, ...] = (
            SUM(psi=pull, sign=-1, shift=_ONE),
            SUM(psi="step", sign=-1, shift=_NEAR),
        )
        self._push: tuple[Channel, ...] = (SUM(psi=push, shift=_EDGE), SUM(psi="step", shift=_FAR))
        least = self.eps**0.5 if self.squared else self.eps
        self._shifts = {
            _ONE: 1.0,
            _NEAR: 1 - 2 * least,
            _EDGE: 1 - 2 * self.margin,
            _FAR: 1 - 2 * (self.margin - least),
        }

    def forward(self, z: Tensor, negatives: Tensor) -> Tensor:
        z = wide(z)  # so that the gradients of both terms are added in fp32
        attract = self._mean(z, None, self._pull)
        repel = self._mean(z, negatives, self._push)
        return self.scaled(self.alpha * attract + (1 - self.alpha) * repel)

    def _mean(self, z: Tensor, y: Tensor | None, channels: tuple[Channel, ...]) -> Tensor:
        names = [c.shift for c in channels if isinstance(c, SUM) and c.shift]
        rows = {
            n: torch.full((z.shape[0],), self._shifts[n], dtype=z.dtype, device=z.device)
            for n in names
        }
        scores = Scores(z, y, scale=1.0, wide_products=self.WIDE_PRODUCTS, backend=self.backend)
        total, count = scores.stats(channels, rows, {})
        count = count.sum()
        mean = total.sum() / count.clamp_min(1) / (4 if self.squared else 2)
        return torch.where(count > 0, mean, 0.0 * total.sum())  # NaN is not counted, but kept

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows, and the same rows with noise as negatives."""
        z, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        return z, z + noise

    @staticmethod
    def reference(
        z: Tensor, negatives: Tensor, *, alpha: float, margin: float, squared: bool, eps: float
    ) -> Tensor:
        z, negatives = (torch.nn.functional.normalize(v, dim=1) for v in (z, negatives))
        near = ((1 - z @ z.mT) / 2).fill_diagonal_(0)
        far = torch.relu(margin - (1 - z @ negatives.mT) / 2)
        if squared:
            near, far = near.square(), far.square()
        near, far = (d.sum() / (d > eps).sum().clamp_min(1) for d in (near, far))
        return alpha * near + (1 - alpha) * far
