"""Supervised contrastive loss between two modalities."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import COL, LSE, SUM, Channel, same
from ..options import Temperature
from .base.blocks import BATCH
from .base.label_loss import LABEL, TAKEN, LabelLoss
from .base.pair_loss import NEGATIVES, Memory

__all__ = ["CrossSupConLoss"]

_PAIRS = (same(LABEL),)
_CHANNELS = (
    LSE(),
    LSE(axis=COL),
    SUM("id", pairs=_PAIRS),
    SUM("id", pairs=_PAIRS, axis=COL),
    SUM("one", pairs=_PAIRS),
)
#: in the batch a column has as many positives as its row, with two queues it does not
_BY_COL = SUM("one", pairs=_PAIRS, axis=COL)


class CrossSupConLoss(LabelLoss, name="cross_supcon"):
    r"""Symmetric SupCon between x and y: rows of the other side with the same label are positives.

    With :math:`P_i` all rows with row i's label, including i, and :math:`s_{ij} = \cos(x_i, y_j) /
    \tau`,

    .. math:: \ell_i = -\frac{1}{2 |P_i|} \sum_{p \in P_i} \Bigl(
        \log \frac{e^{s_{ip}}}{\sum_j e^{s_{ij}}} + \log \frac{e^{s_{pi}}}{\sum_j e^{s_{ji}}}
        \Bigr).

    If all labels differ, this is CLIP. The statistics of ``return_stats`` are those of x's rows.

    Args:
        temperature: tau, positive. Default: 0.07.

    Shape:
        x, y: (N, D), e.g. audio and its text.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (M, D) with
        offsets: further negatives of the rows of x.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: two EmbeddingQueues made with ``labels=True``, of rows like those of y and of rows
        like those of x: additional positives and negatives of the other side.
        ids: (N,), for queues made with ``ids=True``; columns of the row's own instance are ignored.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yang et al., Unified Contrastive Learning in Image-Text-Label Space, 2022 (UniCL);
    Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024.
    """

    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D", "labels": "N int", **NEGATIVES}

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        labels: Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        memory: Memory = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        stored = self.stored(memory, ids, ("x", x), labels=LABEL)
        given = self.given(x, negatives, negatives_mask, negatives_offsets)
        scores = self.scores(x, y, logit_scale, logit_bias, blocks=(BATCH, *given, *stored))
        channels = (*self._channels, _BY_COL) if stored else self._channels
        of = self.ids(labels)
        found, values = self.label_statistics(scores, channels, of, of)
        by_row, by_col, rows, cols, count = found[:5]
        means = rows / count + cols / found[5] if stored else (rows + cols) / count
        taken = of.get(TAKEN)
        return self.labelled(0.5 * (by_row + by_col - means), taken, values, taken=taken)

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
