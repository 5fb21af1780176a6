"""Supervised contrastive loss between two modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import COL, INDEX, LSE, SUM, Channel, same
from ..options import Temperature
from .base.blocks import BATCH, ID
from .base.label_loss import LABEL, TAKEN, LabelLoss
from .base.negatives import NEGATIVES, Negatives
from .base.pair_loss import Memory
from .base.scores import Scores

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
#: the score of a row's own column, which has its id
_OWN = SUM("id", pairs=(same(INDEX),))


class CrossSupConLoss(LabelLoss, name="cross_supcon"):
    r"""Symmetric SupCon between x and y: rows of the other side with the same label are positives.

    With :math:`P_i` all rows with row i's label, including i, and :math:`s_{ij} = \cos(x_i, y_j) /
    \tau`,

    :math:`\ell_i = -\frac{1}{2 |P_i|} \sum_{p \in P_i} \Bigl(
    \log \frac{e^{s_{ip}}}{\sum_j e^{s_{ij}}} + \log \frac{e^{s_{pi}}}{\sum_j e^{s_{ji}}}
    \Bigr).`

    If all labels differ, this is CLIP. The statistics of ``return_stats`` are those of x's rows.

    Args:
        temperature: tau, positive. Default: 0.07.

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
        x, y: (N, D), e.g. audio and its text.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: two EmbeddingQueues made with ``labels=True``, of rows like those of y and of rows
        like those of x: additional positives and negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: row i of x and row j of y with equal ones are no pair for j != i,
        neither positive nor negative, nor is a row with a stored column of its id, in queues made
        with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yang et al., Unified Contrastive Learning in Image-Text-Label Space, 2022 (UniCL);
    Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024.
    """

    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {
        **{"x": "N D", "y": "N D", "labels": "N int", **NEGATIVES},
        **{"row_weight": "N float"},
    }

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
        negatives_ids: Tensor | None = None,
        memory: Memory = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(negatives, negatives_mask, negatives_offsets, negatives_ids)
        stored = self.stored(memory, ids, ("x", x), labels=LABEL, of_batch=True)
        blocks = (BATCH, *self.given(x, further, ids), *stored)
        scores = self.scores(x, y, logit_scale, logit_bias, blocks=blocks)
        scores.row_weight = row_weight
        channels = (*self._channels, _BY_COL) if stored else self._channels
        of = self.ids(labels)
        if ids is None:
            found, values = self.label_statistics(scores, channels, of, of)
        else:
            found, values = self._apart(scores, ids, channels, of)
        by_row, by_col, rows, cols, count = found[:5]
        means = rows / count + cols / found[5] if stored else (rows + cols) / count
        taken = of.get(TAKEN)
        losses = scores.weighted(0.5 * (by_row + by_col - means))
        return self.labelled(losses, taken, values, taken=taken)

    def _apart(
        self, scores: Scores, ids: Tensor, channels: Sequence[Channel], of: Mapping[str, Tensor]
    ) -> tuple[list[Any], Sequence[Any]]:
        """The values of the channels without pairs of equal ids, but for a row and its own
        column."""
        scores.apart, of = ids, {**of, ID: ids}
        channels = (*[self.by_ids(channel) for channel in channels], _OWN)
        (*found, own), values = self.label_statistics(scores, channels, of, of)

        def with_own(value: Any, channel: Channel) -> Any:
            if isinstance(channel, LSE):
                return torch.logaddexp(value, own)
            return value + (own if isinstance(channel, SUM) and channel.psi == "id" else 1.0)

        found = [with_own(v, channel) for v, channel in zip(found, channels, strict=False)]
        if not values:
            return found, values
        hardest, lse, best, total, count = values
        score = own.detach()
        best = best._replace(value=torch.maximum(best.value, score))
        return found, (hardest, torch.logaddexp(lse, score), best, total + score, count + 1)

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
