"""Contrastive attraction and contrastive repulsion (CACR)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import EXPECT, INDEX, differs
from ..options import Positive, Temperature
from .base.loss import ScoreLoss
from .base.scores import lacking, wide

__all__ = ["CACRLoss"]


class CACRLoss(ScoreLoss, name="cacr"):
    r"""CACR: attracts far positives and repels near negatives the most.

    With the squared distances :math:`D_{ij} = |x_i - y_j|^2 / \tau` of unit vectors,

    .. math:: \ell_i = \alpha \sum_k \frac{e^{t^+ D_{ik}}}{\sum_l e^{t^+ D_{il}}} D_{ik}
        - \beta \sum_{j \ne i} \frac{e^{-t^- D_{ij}}}{\sum_{l \ne i} e^{-t^- D_{il}}} D_{ij}

    The first sum is over the positives of row i, the second over the first positive of every other
    row.

    Args:
        temperature: tau, positive. Default: 1.
        alpha: weight of the attraction, positive. Default: 1.
        beta: weight of the repulsion, positive. Default: 1.
        t_positive: t+, positive; larger values emphasise the farthest positives. Default: 1.
        t_negative: t-, positive; larger values emphasise the nearest negatives. Default: 2.
        detach_weights: whether both softmaxes are constants, as in the authors' code for ImageNet;
            False differentiates them, as in their code for small images. Default: False.
        normalize: whether x and y are normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shape:
        x: (N, D).
        y: (N, D), or (N, K, D) for K positives per row.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has the attraction only.

    Source: Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation
    Learning, 2023.
    """

    temperature: Temperature = 1.0
    alpha: Positive = 1.0
    beta: Positive = 1.0
    t_positive: Positive = 1.0
    t_negative: Positive = 2.0
    detach_weights: bool = False

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D | N K>=1 D"}
    without: ClassVar[dict[str, str]] = {
        "group": "its repulsion is between the rows of one process",
        "memory": "its negatives are the first positives of other rows",
        "return_stats": "it compares distances, not scores",
    }

    def prepare(self) -> None:
        super().prepare()
        # -D is 2 s plus a constant per row
        self._negatives = (EXPECT(theta=2.0 * self.t_negative, pairs=(differs(INDEX),)),)

    @property
    def stops_gradients(self) -> bool:
        return self.detach_weights

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale = self.scores(x, None).scale
        y = y.unsqueeze(1) if y.ndim == 2 else y
        loss = self.alpha * self._attraction(x, y, scale)
        return self.reduce(loss + self.beta * self._repulsion(x, y[:, 0], scale))

    def _attraction(self, x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
        """Weighted mean distance of the positives, computed from differences: 2 - 2 cos loses all
        digits of small distances."""
        x, y = wide(x), wide(y)
        if self.normalize:
            x, y = (ops.unit(v) for v in (x, y))
        distance = (x.unsqueeze(1) - y).square().sum(-1)
        if self.normalize:
            distance = distance + lacking(x).unsqueeze(1) + lacking(y)
        distance = distance * scale
        weights = (self.t_positive * distance).softmax(1)
        return ((weights.detach() if self.detach_weights else weights) * distance).sum(1)

    def _repulsion(self, x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
        """Minus the weighted mean distance of the negatives."""
        own: Tensor | float = 2.0
        bias = rounded = None
        if not self.normalize:
            own = wide(x).square().sum(1)
            bias = -0.5 * scale * wide(y).square().sum(1)
            rounded = x.dtype  # also under autocast, since distances are differences
        (found,) = ops.pair_stats(
            x,
            y,
            self._negatives,
            scale=scale,
            col_bias=bias,
            cosine=self.normalize,
            compute_dtype=rounded,
            backend=self.backend,
        )
        some = found.lse != -torch.inf
        mean = found.value
        if self.detach_weights:
            # with constant weights, the gradient is that of the log-sum-exp divided by theta
            lse = torch.where(some, found.lse, 0.0) / self._negatives[0].theta
            mean = mean.detach() + (lse - lse.detach())
        return torch.where(some, 2.0 * mean - own * scale, 0.0)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        alpha: float,
        beta: float,
        t_positive: float,
        t_negative: float,
        detach_weights: bool,
        normalize: bool,
    ) -> Tensor:
        if normalize:
            x, y = (torch.nn.functional.normalize(v, dim=-1) for v in (x, y))

        def mean(distance: Tensor, t: float, out: Tensor | None = None) -> Tensor:
            logits = t * distance
            weights = (logits if out is None else logits.masked_fill(out, -torch.inf)).softmax(1)
            return ((weights.detach() if detach_weights else weights) * distance).sum(1)

        def distances(views: Tensor) -> Tensor:
            """Distances, with cosine 0 for a zero vector."""
            rest = [((v == 0).all(-1) & normalize).to(v.dtype) for v in (x[:, None], views)]
            return scale * ((x[:, None] - views).square().sum(2) + rest[0] + rest[1])

        views = y if y.ndim == 3 else y[:, None]
        near = distances(views)
        losses = alpha * mean(near, t_positive)
        if len(x) > 1:
            far = distances(views[None, :, 0])
            own = torch.eye(len(x), dtype=torch.bool, device=x.device)
            losses = losses - beta * mean(far, -t_negative, own)
        return losses
