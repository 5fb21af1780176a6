"""Supervised contrastive loss (SupCon)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, same
from ..memory import EmbeddingQueue
from ..options import Fraction, Temperature
from .base.label_loss import LABEL, LabelLoss
from .base.negatives import Negatives
from .base.scores import correction

__all__ = ["SupConLoss"]

_COUNT = SUM("one", pairs=(same(LABEL),))
#: of all columns that take part, the sum of scores, and how many they are
_MEAN = SUM("id"), SUM("one")
#: the sum of the positives' scores, and the log of the sum of their exponentials
_POSITIVES: dict[str, Channel] = {
    "out": SUM("id", pairs=(same(LABEL),)),
    "in": LSE(pairs=(same(LABEL),)),
}


class SupConLoss(LabelLoss, name="supcon"):
    r"""SupCon: rows with the same label are positives; the softmax is over all other rows.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\begin{aligned}
    \text{out: } \ell_i &= -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}} \\
    \text{in: } \ell_i &= -\log \frac{1}{|P_i|} \sum_{p \in P_i}
    \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}
    \end{aligned}`

    A row without a positive has loss 0, and ``reduction='mean'`` averages over the other rows. If
    no row has a positive, the loss is 0 with zero gradient.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'out'`` (recommended by the paper) or ``'in'``. Default: ``'out'``.
        label_smoothing: epsilon, from 0 to 1. The loss is :math:`(1 - \epsilon)\, \ell_i` plus
            epsilon times the mean of :math:`-\log p_{ij}` over the columns j of the row, p its
            softmax, as :func:`torch.nn.functional.cross_entropy` has it. Default: 0.

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
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        log_q: (N,), subtracted from the scores with the views of an instance as columns: the log
        of the probability that the instance is in a batch; None for 0.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """

    temperature: Temperature = 0.1
    variant: Literal["out", "in"] = "out"
    _: KW_ONLY
    label_smoothing: Fraction = 0.0

    def channels(self) -> tuple[Channel, ...]:
        smoothing = _MEAN if self.label_smoothing else ()
        return LSE(), _COUNT, _POSITIVES[self.variant], *smoothing

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(
            negatives, negatives_mask, negatives_offsets, negatives_ids, negatives_log_q
        )
        scores = self.among(z, further, ids, memory, logit_scale, logit_bias)
        if log_q is not None and z.ndim == 3:
            log_q = log_q.repeat_interleave(z.shape[1])
        scores.col_bias = correction(log_q, z)
        return self.by_labels(scores, z, labels, ids, row_weight)

    def combine(
        self, everything: Tensor, count: Tensor, positive: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor | None]:
        *smoothing, _ = rest
        some = count > 0
        count = torch.where(some, count, 1.0)
        if self.variant == "out":
            score = positive / count
        else:
            score = torch.where(some, positive, 0.0) - torch.log(count)
        if smoothing:
            total, columns = smoothing
            score = torch.lerp(score, total / columns.clamp_min(1), self.label_smoothing)
        return torch.where(some, everything - score, 0.0), some

    @staticmethod
    def reference(
        z: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        variant: str,
        label_smoothing: float,
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
        mean = log_p.masked_fill(log_p == -torch.inf, 0.0).sum(1) / max(len(s) - 1, 1)
        losses = (1 - label_smoothing) * losses - label_smoothing * mean
        losses = torch.where(some, losses, 0.0)
        return losses.reshape(z.shape[:-1]), some.reshape(z.shape[:-1])
