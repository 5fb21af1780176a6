"""Pairs that are labelled as alike or not."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from ..ops.check import check_device, shape
from .base.checks import check_targets
from .base.loss import RowLoss
from .base.options import NonNegative, Positive, Temperature
from .base.scores import cosine, wide

__all__ = ["PairContrastiveLoss"]


class PairContrastiveLoss(RowLoss, name="pair_contrastive"):
    r"""Row i of x and row i of y are a pair, and t_i says whether they are alike (1) or not (0).

    .. math::
        \text{margin: } \ell_i &= t_i [d_i - m_+]_+^2 + (1 - t_i) [m - d_i]_+^2

        \text{bce: } \ell_i &= -t_i \log \sigma(u_i) - (1 - t_i) \log \sigma(-u_i),
        \qquad u_i = s_i / \tau + b

    with d a distance and s a cosine, or product. Hadsell's factor 1/2 is ``loss_weight=0.5``;
    pytorch-metric-learning's hinges are not squared.

    Args:
        variant: ``'margin'`` or ``'bce'``.
        distance: of the margins: ``'cosine'``, 1 - cos, or ``'euclidean'``, of vectors as they are.
        margin: m, 0.5; pairs that are not alike are to be this far apart.
        positive_margin: of pairs that are alike, 0.0.
        squared: whether hinges are squared, True.
        temperature, bias: of the logits, 1.0 and 0.0; floats, 0-dim tensors or Parameters.
        normalize: logits are of cosines, else of products.

    Shape:
        x, y: (N, D). target: (N,), bool, integers or floats, soft ones too. Loss: (), or (N,) for
        ``reduction='none'``.

    Source: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006.
    """

    variant: Literal["margin", "bce"] = "margin"
    distance: Literal["cosine", "euclidean"] = "cosine"
    margin: Positive = 0.5
    positive_margin: NonNegative = 0.0
    squared: bool = True
    temperature: Temperature = 1.0
    bias: float | Tensor = 0.0
    normalize: bool = True

    def forward(self, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
        check_targets(x, y, ("x", "y"))
        if x.ndim != 2:
            raise ValueError(f"x: got shape {shape(x)}, expected (N, D)")
        _check_target(target, x)
        a, b = wide(x), wide(y)
        target = target.detach().to(a.dtype)
        if self.variant == "bce":
            score = cosine(a, b) if self.normalize else (a * b).sum(-1)
            logits = score / self.temperature + self.bias
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
        return self.reduce(losses)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Inputs for ``forward``, for :mod:`contrastloss.testing`."""
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
    ) -> Tensor:
        target = target.to(x.dtype)
        dot = (_unit(x) * _unit(y)).sum(1)
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


def _check_target(target: Tensor, x: Tensor) -> None:
    if not isinstance(target, Tensor):
        raise TypeError(f"target: got {type(target).__name__}, expected a tensor")
    if target.shape != x.shape[:1]:
        raise ValueError(f"target: got shape {shape(target)}, expected ({x.shape[0]},)")
    check_device("target", target, "x", x)
