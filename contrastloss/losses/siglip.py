"""SigLIP's sigmoid loss."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import CrossLoss, reference_pairs
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
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (M, D) with
        offsets.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """

    temperature: Temperature = 0.1
    bias: float | Tensor = -10.0
    _: KW_ONLY
    in_batch_negatives: bool = True
    gather_negatives: bool = True

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
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        in_batch_negatives: bool,
        negatives_mask: Tensor | None = None,
    ) -> Tensor:
        products, there = reference_pairs(x, y, negatives, negatives_mask, in_batch_negatives)
        s = scale * products + bias
        softplus = torch.nn.functional.softplus
        negative = torch.where(there, softplus(s, threshold=1e9), 0.0).sum(1)
        return negative + softplus(-s.diag(), threshold=1e9)
