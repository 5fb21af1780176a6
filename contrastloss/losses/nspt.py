"""Negatives of the student, positives of the teacher."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor

from ..channel import INDEX, LSE, SUM, differs, same
from ..ops.check import check_device, shape
from .base.checks import check_finite, check_labels, check_pair
from .base.label_loss import LABEL
from .base.loss import ScoreLoss, nan_rows
from .base.options import Temperature
from .base.scores import wide

__all__ = ["NSPTLoss"]


class NSPTLoss(ScoreLoss, name="nspt"):
    r"""Supervised contrast in which positives are the teacher's rows, and all else the student's.

    With the student's rows h, the teacher's t, :math:`P_i` the other rows of row i's label and
    :math:`s(u, v) = \cos(u, v) / \tau`,

    .. math:: \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{e^{s(h_i, t_p)}}{\sum_{j \ne i} e^{s(h_i, h_j)}}

    for every anchor i. The teacher's row of the anchor itself is no positive, as in SupCon, unless
    ``include_own`` says so. ``'mean'`` is over the anchors that have a positive; all other rows
    cost 0. The positives are not among the denominator's terms: the loss may be negative.

    Args:
        temperature: tau, 0.1.
        include_own: the teacher's row i is a positive of row i.

    Shape:
        h, teacher: (N, D); the teacher gets no gradient. labels: (N,), integers. rehearsal: (N,),
        bool, which rows are anchors; None: all. Loss: (), or (N,) for ``reduction='none'``.

    Source: Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024 (COCONUT:
    the negative-student positive-teacher loss; the anchors are the rehearsed rows).
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    include_own: bool = False

    #: a row is pushed from its class' students in one pass and pulled to their teachers in another:
    #: the better students follow, the more of this cancels
    WIDE_PRODUCTS = True
    _STUDENT = (LSE(),)
    _OTHERS = tuple(SUM(psi, pairs=(same(LABEL), differs(INDEX))) for psi in ("one", "id"))
    _OWN = tuple(SUM(psi, pairs=(same(LABEL),)) for psi in ("one", "id"))

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def forward(
        self, h: Tensor, teacher: Tensor, labels: Tensor, *, rehearsal: Tensor | None = None
    ) -> Tensor:
        check_pair(self, h, teacher, None, None, ("h", "teacher"))
        check_labels(labels, h.shape[0], h)
        if rehearsal is not None:
            _check_marks(rehearsal, h)
        if self.validate:
            check_finite(h=h, teacher=teacher)
        h = wide(h)  # gradients of both passes meet in fp32
        (everything,) = self.scores(h, None).stats(self._STUDENT)
        channels = self._OWN if self.include_own else self._OTHERS
        ids = {LABEL: labels}
        count, positive = self.scores(h, teacher.detach()).stats(channels, ids, ids)
        # one row alone has no other row
        counted = (count > 0) & (everything != -torch.inf)
        nan = nan_rows(h, teacher)
        if rehearsal is not None:
            counted, nan = counted & rehearsal, nan & rehearsal
        losses = torch.where(counted, everything - positive / count.clamp_min(1), 0.0)
        return self.reduce(losses, counted, nan)

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
        """Losses, and which rows the mean counts."""
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


def _check_marks(rehearsal: Tensor, h: Tensor) -> None:
    if not isinstance(rehearsal, Tensor) or rehearsal.dtype != torch.bool:
        got = rehearsal.dtype if isinstance(rehearsal, Tensor) else type(rehearsal).__name__
        raise TypeError(f"rehearsal: got {got}, expected a bool tensor")
    if rehearsal.shape != h.shape[:1]:
        raise ValueError(f"rehearsal: got shape {shape(rehearsal)}, expected ({h.shape[0]},)")
    check_device("rehearsal", rehearsal, "h", h)
