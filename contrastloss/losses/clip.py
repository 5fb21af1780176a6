"""CLIP loss."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor

from ..channel import Channel
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import BY_COL, BY_ROW, CrossLoss, reference_pairs
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
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.

    Shape:
        x, y: (N, D), e.g. images and their texts.
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (M, D) with
        offsets.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021.
    """

    temperature: Temperature = 0.07
    _: KW_ONLY
    in_batch_negatives: bool = True
    gather_negatives: bool = True

    def channels(self) -> tuple[Channel, ...]:
        return BY_ROW, BY_COL

    def combine(self, by_row: Tensor, by_col: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return 0.5 * (softplus(by_row - positive) + softplus(by_col - positive))

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
        positive = scale.flatten() * (x * y).sum(1) + bias
        losses = []
        for turned, k in ((False, negatives), (True, None)):
            a, b = (y, x) if turned else (x, y)
            products, there = reference_pairs(a, b, k, negatives_mask, in_batch_negatives)
            own = scale.mT if turned and scale.ndim else scale  # one of each row of x
            s = own * products + bias
            negative = s.masked_fill(~there, -torch.inf).logsumexp(1)
            losses.append(torch.logaddexp(negative, positive) - positive)
        return (losses[0] + losses[1]) / 2
