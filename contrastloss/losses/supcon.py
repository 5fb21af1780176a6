"""Supervised contrastive loss (SupCon)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, same
from ..options import Temperature
from .base.label_loss import LABEL, LabelLoss
from .base.scores import Scores

__all__ = ["SupConLoss"]

_COUNT = SUM("one", pairs=(same(LABEL),))
#: the sum of the positives' scores, and the log of the sum of their exponentials
_POSITIVES: dict[str, Channel] = {
    "out": SUM("id", pairs=(same(LABEL),)),
    "in": LSE(pairs=(same(LABEL),)),
}


class SupConLoss(LabelLoss, name="supcon"):
    r"""SupCon: rows with the same label are positives; the softmax is over all other rows.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    .. math::
        \text{out: } \ell_i &= -\frac{1}{|P_i|} \sum_{p \in P_i}
            \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}

        \text{in: } \ell_i &= -\log \frac{1}{|P_i|} \sum_{p \in P_i}
            \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}

    A row without a positive has loss 0, and ``reduction='mean'`` averages over the other rows. If
    no row has a positive, the loss is 0 with zero gradient.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'out'`` (recommended by the paper) or ``'in'``. Default: ``'out'``.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (M, D) with
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
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """

    temperature: Temperature = 0.1
    variant: Literal["out", "in"] = "out"

    def channels(self) -> tuple[Channel, ...]:
        return LSE(), _COUNT, _POSITIVES[self.variant]

    def combine(
        self, everything: Tensor, count: Tensor, positive: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor | None]:
        some = count > 0
        count = torch.where(some, count, 1.0)
        if self.variant == "out":
            score = positive / count
        else:
            score = torch.where(some, positive, 0.0) - torch.log(count)
        return torch.where(some, everything - score, 0.0), some

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor, variant: str
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        views = 1 if z.ndim == 2 else z.shape[1]
        flat, label = z.flatten(0, -2), labels.repeat_interleave(views)
        s = (scale * (flat @ flat.mT) + bias).fill_diagonal_(-torch.inf)
        mask = (label[:, None] == label).fill_diagonal_(False)
        some = mask.any(1)
        log_p = s - s.logsumexp(1, keepdim=True)
        count = mask.sum(1).clamp_min(1)
        if variant == "out":
            losses = -torch.where(mask, log_p, 0.0).sum(1) / count
        else:
            inside = log_p[some].masked_fill(~mask[some], -torch.inf).logsumexp(1)
            losses = torch.zeros_like(s[:, 0])
            losses = losses.masked_scatter(some, torch.log(count[some].to(s.dtype)) - inside)
        losses = torch.where(some, losses, 0.0)
        return losses.reshape(z.shape[:-1]), some.reshape(z.shape[:-1])
