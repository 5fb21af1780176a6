"""Supervised contrastive loss between two modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from ..channel import COL, LSE, SUM, same
from .base.checks import check_labels, check_pair
from .base.label_loss import LABEL
from .base.loss import ScoreLoss
from .base.options import Temperature

__all__ = ["CrossSupConLoss"]

_PAIRS = (same(LABEL),)


class CrossSupConLoss(ScoreLoss, name="cross_supcon"):
    r"""Symmetric SupCon between x and y: rows of the other side with the same label are positives.

    With :math:`P_i` all rows with row i's label, including i, and :math:`s_{ij} = \cos(x_i, y_j) /
    \tau`,

    .. math:: \ell_i = -\frac{1}{2 |P_i|} \sum_{p \in P_i} \Bigl(
        \log \frac{e^{s_{ip}}}{\sum_j e^{s_{ij}}} + \log \frac{e^{s_{pi}}}{\sum_j e^{s_{ji}}}
        \Bigr).

    If all labels differ, this is CLIP.

    Args:
        temperature: tau, positive. Default: 0.07.

    Shape:
        x, y: (N, D), e.g. audio and its text.
        labels: (N,), integers.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yang et al., Unified Contrastive Learning in Image-Text-Label Space, 2022 (UniCL);
    Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024.
    """

    temperature: Temperature = 0.07

    _CHANNELS = (
        LSE(),
        LSE(axis=COL),
        SUM("id", pairs=_PAIRS),
        SUM("id", pairs=_PAIRS, axis=COL),
        SUM("one", pairs=_PAIRS),
    )

    def forward(self, x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        check_pair(self, x, y, None, None)
        check_labels(labels, x.shape[0], x)
        ids = {LABEL: labels}
        by_row, by_col, rows, cols, count = self.scores(x, y).stats(self._CHANNELS, ids, ids)
        return self.reduce(0.5 * (by_row + by_col - (rows + cols) / count))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre, *noise = (torch.randn(n, d, generator=generator).double() for _ in range(3))
        x, y = (centre[labels] + 0.7 * v for v in noise)
        return x, 2 * y, labels

    @staticmethod
    def reference(x: Tensor, y: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s, mask = scale * (x @ y.mT) + bias, labels[:, None] == labels
        log_p = s.log_softmax(1) + s.log_softmax(0).mT
        return -torch.where(mask, log_p, 0.0).sum(1) / mask.sum(1) / 2
