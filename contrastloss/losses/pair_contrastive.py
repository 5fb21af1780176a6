"""Contrastive loss on labelled pairs."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from ..options import NonNegative, Positive, Temperature
from .base.loss import RowLoss
from .base.scores import cosine, wide

__all__ = ["PairContrastiveLoss"]


class PairContrastiveLoss(RowLoss, name="pair_contrastive"):
    r"""Contrastive loss on pairs labelled as similar or dissimilar.

    Rows i of x and y are a pair; the target :math:`t_i` is 1 for similar pairs and 0 for dissimilar
    ones.

    :math:`\begin{aligned}
    \text{margin: } \ell_i &= t_i [d_i - m_+]_+^2 + (1 - t_i) [m - d_i]_+^2 \\
    \text{bce: } \ell_i &= -t_i \log \sigma(u_i) - (1 - t_i) \log \sigma(-u_i),
    \qquad u_i = s_i / \tau + b \\
    \text{ratio: } \ell_i &= t_i \log(1 + 1 / s_i) + (1 - t_i) \log(1 + s_i)
    \end{aligned}`

    where d is a distance and s a cosine or dot product, which has to be positive in ratio: it is
    the density ratio of similar and dissimilar pairs. Hadsell's factor 1/2 is
    ``loss_weight=0.5``. The hinges of pytorch-metric-learning are not squared.

    Args:
        variant: ``'margin'``, ``'bce'`` or ``'ratio'``. Default: ``'margin'``.
        distance: distance of the margin variant, ``'cosine'`` for 1 - cos or ``'euclidean'``
            without normalisation. Default: ``'cosine'``.
        margin: m, positive, the minimum distance of dissimilar pairs. Default: 0.5.
        positive_margin: m+ >= 0, the maximum distance of similar pairs without loss. Default: 0.
        squared: whether the hinges are squared. Default: True.
        temperature: tau of the logits, positive; a float, 0-dim tensor or Parameter. Default: 1.
        bias: b of the logits; a float, 0-dim tensor or Parameter. Default: 0.
        normalize: whether s is a cosine, else a dot product. Default: True.
        mean_over: of ``reduction='mean'``, ``'pairs'``; or ``'active'``: the mean over the similar
            pairs with a loss, plus that over the dissimilar ones with a loss, as
            pytorch-metric-learning has it. Default: ``'pairs'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x, y: (N, D).
        target: (N,), bool, integers or floats; soft targets are allowed.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006; ratio:
    Qiu et al., Contrastive UCB, 2022.
    """

    variant: Literal["margin", "bce", "ratio"] = "margin"
    distance: Literal["cosine", "euclidean"] = "cosine"
    margin: Positive = 0.5
    positive_margin: NonNegative = 0.0
    squared: bool = True
    temperature: Temperature = 1.0
    bias: float | Tensor = 0.0
    normalize: bool = True
    mean_over: Literal["pairs", "active"] = "pairs"

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D", "target": "N real"}

    def forward(self, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
        a, b = wide(x), wide(y)
        target = target.detach().to(a.dtype)
        if self.variant != "margin":
            score = cosine(a, b) if self.normalize else (a * b).sum(-1)
            if self.variant == "bce":
                logits = score / self.temperature + self.bias
            else:
                logits = score.clamp_min(torch.finfo(score.dtype).tiny).log()
            losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
        else:
            if self.distance == "cosine":
                distance = 1 - cosine(a, b)
            else:
                distance = torch.linalg.vector_norm(a - b, dim=-1)
            near = torch.relu(distance - self.positive_margin)
            far = torch.relu(self.margin - distance)
            if self.squared:
                near, far = near.square(), far.square()
            losses = target * near + (1 - target) * far
        if self.reduction != "mean" or self.mean_over == "pairs":
            return self.reduce(losses)
        kinds = [weight * losses for weight in (target, 1 - target)]
        return self.reduce(kinds[0], kinds[0] != 0) + self.reduce(kinds[1], kinds[1] != 0)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noisy pairs, every second one labelled as similar."""
        x, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        return x, x + noise, torch.arange(n) % 2

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        target: Tensor,
        *,
        variant: str,
        distance: str,
        margin: float,
        positive_margin: float,
        squared: bool,
        temperature: float,
        bias: float,
        normalize: bool,
        mean_over: str,
    ) -> Tensor:
        target = target.to(x.dtype)
        dot = (_unit(x) * _unit(y)).sum(1)
        if variant == "ratio":
            s = (dot if normalize else (x * y).sum(1)).clamp_min(torch.finfo(x.dtype).tiny)
            return target * torch.log1p(1 / s) + (1 - target) * torch.log1p(s)
        if variant == "bce":
            logits = (dot if normalize else (x * y).sum(1)) / temperature + bias
            p = torch.sigmoid(logits)
            return -target * p.log() - (1 - target) * (1 - p).log()
        d = 1 - dot if distance == "cosine" else (x - y).square().sum(1).sqrt()
        power = 2 if squared else 1
        near, far = torch.relu(d - positive_margin), torch.relu(margin - d)
        return target * near**power + (1 - target) * far**power


def _unit(x: Tensor) -> Tensor:
    return normalize(x, dim=1)
