"""Spectral contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.positive_loss import CrossLoss
from .base.scores import Scores, at_least_one

__all__ = ["SpectralLoss"]

_CHANNELS = (SUM("square", pairs=(differs(INDEX),)),)


class SpectralLoss(CrossLoss, name="spectral"):
    r"""Spectral contrastive loss: aligns positives and makes other pairs orthogonal.

    .. math:: \ell_i = -2 s_{ii} + \frac{1}{N - 1} \sum_{j \ne i} s_{ij}^2,
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Up to a constant, it factorises the normalised adjacency matrix of the augmentation graph, for
    which the paper uses dot products (``normalize=False``).

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

    Source: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral
    Contrastive Loss, 2021.
    """

    temperature: Temperature = 1.0

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def parts(self, scores: Scores) -> Sequence[Part]:
        count = at_least_one(scores.negatives(scores.count - 1))
        return Part(0, weight=1 / count), Part(1, weight=-2.0)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return negative / at_least_one(scores.negatives(scores.count - 1)) - 2 * positive

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s = scale * (x @ y.mT) + bias
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        negative = s.square().masked_fill(own, 0.0).sum(1)
        return negative / max(len(x) - 1, 1) - 2 * s.diag()
