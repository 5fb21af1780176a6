"""Supervised contrastive loss with focal weights on hard positives."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor

from ..channel import EXPECT, LSE, SUM, Channel, differs, same
from ..options import Temperature
from .base.label_loss import LABEL, LabelLoss
from .base.loss import softplus
from .base.scores import Scores, at_least_one

__all__ = ["FocalContrastiveLoss"]

_POSITIVES = (same(LABEL),)
_CHANNELS = (
    LSE(pairs=(differs(LABEL),)),
    EXPECT(1.0, pairs=_POSITIVES),
    SUM("id", pairs=_POSITIVES),
    SUM("one", pairs=_POSITIVES),
)


class FocalContrastiveLoss(LabelLoss, name="focal_contrastive"):
    r"""SupCon with focal weights: the less likely a positive is, the more it counts.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i} (1 - p_{ip}) \log p_{ip},
    \qquad p_{ij} = \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}}.`

    The weight :math:`1 - p_{ip}` is differentiated. A row without a positive has loss 0, and
    ``reduction='mean'`` averages over the other rows.

    Args:
        temperature: tau, positive. Default: 0.07.
        divisor: ``'positives'`` divides a row's sum by :math:`|P_i|` (the paper), ``'batch'`` by N
            (the authors' code). Default: ``'positives'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zhang et al., Unleashing the Power of Contrastive Self-Supervised Visual Models via
    Contrast-Regularized Fine-Tuning, 2021 (Core-tuning, whose mixed samples are made outside).
    """

    temperature: Temperature = 0.07
    _: KW_ONLY
    divisor: Literal["positives", "batch"] = "positives"

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def combine(
        self, negative: Tensor, expected: Any, total: Tensor, count: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor | None]:
        some, several = count > 0, count > 1
        # With q the softmax over positives, p = e^-gap q and -log p = gap - log q, so that one pass
        # gives all sums of (1 - p) log p. A second pass with the normaliser as its shift would give
        # each pair two rounded gradients that mostly cancel.
        inside = torch.where(some, expected.lse, 0.0)
        gap = torch.where(some, softplus(negative - inside), 0.0)
        rest = -torch.expm1(-gap)  # probability mass of the negatives
        # log q is 0 for a single positive
        surprise = torch.where(several, count * inside - total, 0.0)
        entropy = torch.where(several, inside - expected.value, 0.0)
        losses = (count - 1 + rest) * gap + surprise - (1 - rest) * entropy
        size = count if self.divisor == "positives" else scores.taking_part
        return torch.where(some, losses / at_least_one(size), 0.0), some

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor, divisor: str
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = (scale * (z @ z.mT) + bias).fill_diagonal_(-torch.inf)
        mask = (labels[:, None] == labels).fill_diagonal_(False)
        log_p = torch.where(mask, s - s.logsumexp(1, keepdim=True), 0.0)
        total = (torch.expm1(log_p) * log_p).sum(1)
        size = mask.sum(1).clamp_min(1) if divisor == "positives" else len(z)
        return total / size, mask.any(1)
