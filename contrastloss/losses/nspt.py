"""Negative-student positive-teacher loss (COCONUT)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import INDEX, LSE, MAX, SUM, Channel, differs, same
from ..options import Temperature
from .base.label_loss import LABEL
from .base.loss import nan_rows
from .base.pair_loss import PairLoss
from .base.scores import wide

__all__ = ["NSPTLoss"]


class NSPTLoss(PairLoss, name="nspt"):
    r"""SupCon with positives from the teacher and the denominator from the student.

    With the student's rows h, the teacher's rows t, :math:`P_i` the other rows with row i's label
    and :math:`s(u, v) = \cos(u, v) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s(h_i, t_p)}}{\sum_{j \ne i} e^{s(h_i, h_j)}}`

    for every anchor i. ``reduction='mean'`` averages over the anchors that have a positive; all
    other rows have loss 0. The denominator does not contain the positives, so the loss can be
    negative. In the statistics of ``return_stats``, negatives are the student's rows with other
    labels.

    Args:
        temperature: tau, positive. Default: 0.1.
        include_own: whether the teacher's row i is a positive of row i; False excludes it, as in
            SupCon. Default: False.

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

    Shape:
        h, teacher: (N, D); the teacher gets no gradient.
        labels: (N,), integers.
        rehearsal: (N,), bool, marks the anchors; None for all rows.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024 (COCONUT:
    the negative-student positive-teacher loss; the anchors are the rehearsed rows).
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    include_own: bool = False

    #: one pass pushes a row away from its class in the student, the other pulls it to its class in
    #: the teacher; the gradients cancel the more, the closer the student is to the teacher
    WIDE_PRODUCTS = True
    inputs: ClassVar[dict[str, str]] = {
        "h": "N D",
        "teacher": "N D",
        "labels": "N int",
        "rehearsal": "N bool",
    }
    without: ClassVar[dict[str, str]] = {
        "memory": "a queue holds one embedding of each column, not a student's and a teacher's"
    }
    negatives = (differs(LABEL),)

    _STUDENT = (LSE(),)
    #: number and sum of the positives, and the largest, by whether the row's own is one of them
    _TEACHER: ClassVar[dict[bool, tuple[Channel, ...]]] = {
        own: (SUM("one", pairs=pairs), SUM("id", pairs=pairs), MAX(pairs=pairs))
        for own, pairs in ((False, (same(LABEL), differs(INDEX))), (True, (same(LABEL),)))
    }

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def forward(
        self,
        h: Tensor,
        teacher: Tensor,
        labels: Tensor,
        *,
        rehearsal: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        h = wide(h)  # so that the gradients of both passes are added in fp32
        scores, ids = self.scores(h, None, logit_scale, logit_bias), {LABEL: labels}
        (everything,), extra = self.measure(
            scores, self._STUDENT, ids if self.return_stats else None
        )
        channels = self._TEACHER[self.include_own][: 2 + self.return_stats]
        taught = scores.between(h, teacher.detach())
        count, positive, *best = taught.stats(channels, ids, ids)
        # a single row has no negatives
        counted = (count > 0) & (everything != -torch.inf)
        nan = nan_rows(h, teacher)
        if rehearsal is not None:
            counted, nan = counted & rehearsal, nan & rehearsal
        mean = positive / count.clamp_min(1)
        losses = torch.where(counted, everything - mean, 0.0)
        nearest = best[0].value if best else None
        return self.finish(losses, extra, mean, best_positive=nearest, counted=counted, nan=nan)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre, *noise = (torch.randn(n, d, generator=generator).double() for _ in range(3))
        h, teacher = (centre[labels] + 0.7 * v for v in noise)
        return h, 2 * teacher, labels

    @staticmethod
    def reference(
        h: Tensor,
        teacher: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        include_own: bool,
        rehearsal: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = (scale * (h @ h.mT) + bias).fill_diagonal_(-torch.inf)
        mask = labels[:, None] == labels
        mask = mask if include_own else mask.fill_diagonal_(False)
        near = torch.where(mask, scale * (h @ teacher.detach().mT) + bias, 0.0)
        counted = mask.any(1) & (len(h) > 1)
        counted = counted if rehearsal is None else counted & rehearsal
        everything = h.new_zeros(len(h))
        if len(h) > 1:
            everything = s.logsumexp(1)
        losses = everything - near.sum(1) / mask.sum(1).clamp_min(1)
        return torch.where(counted, losses, 0.0), counted
