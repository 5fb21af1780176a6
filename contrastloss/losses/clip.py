"""CLIP loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..channel import Channel
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import BY_COL, BY_ROW, CrossLoss
from .base.scores import Scores

__all__ = ["CLIPLoss"]


class CLIPLoss(CrossLoss, name="clip"):
    r"""CLIP: symmetric InfoNCE over rows and columns, computed in one pass.

    .. math:: \ell_i = -\tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        - \tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Args:
        temperature: tau, positive. Element i of an (N,) tensor divides :math:`s_{ij}` in both
            terms. Default: 0.07.

    Shape:
        x, y: (N, D), e.g. images and their texts.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
        ids: (N,), for queues made with ``ids=True``; columns of the row's own instance are ignored.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021.
    """

    temperature: Temperature = 0.07

    def channels(self) -> tuple[Channel, ...]:
        return BY_ROW, BY_COL

    def combine(self, by_row: Tensor, by_col: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return 0.5 * (softplus(by_row - positive) + softplus(by_col - positive))

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s, target = scale * (x @ y.mT) + bias, torch.arange(len(x), device=x.device)
        rows = cross_entropy(s, target, reduction="none")
        return (rows + cross_entropy(s.mT, target, reduction="none")) / 2
