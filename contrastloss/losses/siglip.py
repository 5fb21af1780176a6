"""SigLIP's sigmoid loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import CrossLoss
from .base.scores import Scores

__all__ = ["SigLIPLoss"]

_CHANNELS = (SUM("softplus", pairs=(differs(INDEX),)),)


class SigLIPLoss(CrossLoss, name="siglip"):
    r"""SigLIP: sigmoid loss, a binary classification of every pair.

    .. math:: \ell_i = \sum_j \log\bigl(1 + e^{-z_{ij} s_{ij}}\bigr), \qquad
        s_{ij} = \cos(x_i, y_j) / \tau + b, \quad z_{ij} = 2 [i = j] - 1

    ``reduction='mean'`` divides the sum over all pairs by N.

    Args:
        temperature: tau, positive. Default: 0.1.
        bias: b, a float, a 0-dim tensor or a Parameter; ``logit_bias`` overrides it. Default: -10.

    Shape:
        x, y: (N, D).
        memory: an EmbeddingQueue of additional negatives.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """

    temperature: Temperature = 0.1
    bias: float | Tensor = -10.0

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def scores(
        self,
        x: Tensor,
        y: Tensor | None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        **options: Any,
    ) -> Scores:
        bias = self.bias if logit_bias is None else logit_bias
        return super().scores(x, y, logit_scale, bias, **options)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(-positive) + negative

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        z = 2 * torch.eye(len(x), dtype=x.dtype, device=x.device) - 1
        return -torch.nn.functional.logsigmoid(z * (scale * (x @ y.mT) + bias)).sum(1)
