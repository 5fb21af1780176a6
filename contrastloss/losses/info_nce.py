"""InfoNCE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..channel import INDEX, LSE, MAX, differs
from .base import CrossLoss, softplus
from .check import check_negatives, check_pair
from .scores import Scores

__all__ = ["InfoNCELoss"]

#: the channels for given negatives, every one of which counts
ALL = LSE()
EXTRA = (MAX(), LSE())


class InfoNCELoss(CrossLoss, name="info_nce"):
    r"""Row i of x against row i of y; the other rows of y, or ``negatives``, are its negatives.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Args:
        temperature: tau, 0.1.

    Shape:
        x, y: (N, D). negatives: (K, D), shared by all rows (with a group, of all ranks), or
        (N, K, D), row i's own; with them the other rows of y are no negatives. Loss: (), or (N,)
        for ``reduction='none'``. No negative at all: 0.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018.
    """

    temperature: float | Tensor = 0.1
    channels = (LSE(pairs=(differs(INDEX),)),)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if negatives is None:
            return super().forward(x, y, logit_scale=logit_scale, logit_bias=logit_bias)
        check_pair(self, x, y, logit_scale, logit_bias)
        check_negatives(self, negatives, x)
        positive = self.scores(x, y, logit_scale, logit_bias, alone=True).aligned()
        own = negatives.ndim == 3  # one row against K columns, N times
        scores = self.scores(
            x[:, None] if own else x, negatives, logit_scale, logit_bias, alone=own
        )
        channels = (ALL, *(EXTRA if self.return_stats else ()))
        (negative,), extra = self.split(scores.stats(channels))
        if own:
            negative, extra = negative.squeeze(1), [value.squeeze(1) for value in extra]
        return self.finish(self.combine(negative, positive, scores), extra, positive)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(negative - positive)

    @staticmethod
    def reference(
        x: Tensor, y: Tensor, negatives: Tensor | None = None, *, scale: Tensor, bias: Tensor
    ) -> Tensor:
        target = torch.arange(len(x), device=x.device)
        s = scale * (x @ y.mT) + bias
        if negatives is not None:
            k = negatives.expand(len(x), *negatives.shape[-2:])
            s = torch.cat([s.diag()[:, None], scale * torch.einsum("nd,nkd->nk", x, k) + bias], 1)
            target = torch.zeros_like(target)
        return torch.nn.functional.cross_entropy(s, target, reduction="none")
