"""Binary noise-contrastive estimation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import CrossLoss
from .base.scores import Scores, at_least_one

__all__ = ["BinaryNCELoss"]

_CHANNELS = (SUM("softplus", pairs=(differs(INDEX),)),)


class BinaryNCELoss(CrossLoss, name="binary_nce"):
    r"""Binary NCE: logistic classification of positive and negative pairs with equal total weight.

    .. math:: \ell_i = \log\bigl(1 + e^{-s_{ii}}\bigr)
        + \frac{1}{N - 1} \sum_{j \ne i} \log\bigl(1 + e^{s_{ij}}\bigr),
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    With :math:`f = e^s` the terms are :math:`\log(1 + 1/f^+)` and :math:`\log(1 + f^-)`. The
    optimal f is the density ratio of positive and negative pairs. SigLIP sums over negatives
    instead of averaging.

    Args:
        temperature: tau, positive. Default: 1.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is the first term.

    Source: Gutmann and Hyvarinen, Noise-Contrastive Estimation, 2010; Qiu et al., Contrastive UCB:
    Provably Efficient Contrastive Self-Supervised Learning in Online Reinforcement Learning, 2022;
    Rethmeier and Augenstein, A Primer on Contrastive Pretraining in Language Processing, 2021.
    """

    temperature: Temperature = 1.0

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def parts(self, scores: Scores) -> Sequence[Part]:
        count = at_least_one(scores.negatives(scores.count - 1))
        return Part(0, weight=1 / count), Part(None, 1, softplus=True)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(-positive) + negative / at_least_one(scores.negatives(scores.count - 1))

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s, zero = scale * (x @ y.mT) + bias, x.new_zeros(())
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        negative = torch.logaddexp(s, zero).masked_fill(own, 0.0).sum(1)
        return torch.logaddexp(-s.diag(), zero) + negative / max(len(x) - 1, 1)
