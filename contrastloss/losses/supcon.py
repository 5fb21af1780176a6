"""Supervised contrastive learning."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..channel import LSE, MAX, SUM, Channel, differs, same
from ..memory import EmbeddingQueue
from ..ops.check import check_embeddings, shape
from .base.checks import check_finite, check_labels, check_queue, check_scale
from .base.loss import nan_rows
from .base.pair_loss import PairLoss
from .base.stored import beside, held_by, over_stored, stored

__all__ = ["SupConLoss"]

LABEL = "label"
_COUNT = SUM("one", pairs=(same(LABEL),))
_BEST = MAX(pairs=(same(LABEL),))


class SupConLoss(PairLoss, name="supcon"):
    r"""Rows of the same label attract each other; all other rows are in the denominator.

    With :math:`P_i` the other rows of row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    .. math::
        \text{out: } \ell_i &= -\frac{1}{|P_i|} \sum_{p \in P_i}
            \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}

        \text{in: } \ell_i &= -\log \frac{1}{|P_i|} \sum_{p \in P_i}
            \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}

    ``'mean'`` is over the rows that have a positive; without one a row's loss is 0 and, where no
    row has one, so is the whole loss, with zero gradient.

    Args:
        temperature: tau, 0.1.
        variant: ``'out'`` (the paper's recommendation) or ``'in'``.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance. labels: (N,), integers. memory: an
        EmbeddingQueue made with ``labels=True``, whose columns stand beside the batch's as further
        positives and negatives, without gradient; ids: (N,), for one made with ``ids=True``, leaves
        out columns of the row's own instance. Loss: (), or (N,), or (N, V), for
        ``reduction='none'``.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """

    temperature: float | Tensor = 0.1
    variant: Literal["out", "in"] = "out"

    negatives = (differs(LABEL),)
    _CHANNELS: ClassVar[dict[str, Channel]] = {
        "out": SUM("id", pairs=(same(LABEL),)),
        "in": LSE(pairs=(same(LABEL),)),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in self._CHANNELS:
            raise ValueError(f"variant: got {self.variant!r}, expected 'out' or 'in'")
        self.channels = (LSE(), _COUNT, self._CHANNELS[self.variant])  # type: ignore[misc]
        self._stored = stored(*self.channels, *self.extra, _BEST)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        check_embeddings("z", z)
        if z.ndim not in (2, 3) or z.shape[-1] < 1:
            raise ValueError(f"z: got shape {shape(z)}, expected (N, D) or (N, V, D)")
        check_labels(labels, z.shape[0], z)
        flat = z.flatten(0, -2)
        check_scale(self, flat.shape[0], logit_scale, logit_bias)
        if self.validate:
            check_finite(z=z)
        if memory is not None or ids is not None:
            memory = check_queue(self, "memory", memory, ("z", z), z.shape[0], ids, labels=True)
        scores = self.scores(flat, None, logit_scale, logit_bias)
        views = 1 if z.ndim == 2 else z.shape[1]
        rows = {LABEL: labels if views == 1 else labels.repeat_interleave(views)}
        extra = (*self.extra, _BEST) if self.return_stats else ()
        channels = (*self.channels, *extra)
        stats = scores.stats(channels, rows)
        if memory is not None:
            ids = ids if ids is None or views == 1 else ids.repeat_interleave(views)
            options: dict[str, Any] = {"count": len(channels), "ids": ids, "labels": rows}
            kept = over_stored(scores, self._stored, held_by(memory), **options)
            stats = beside(channels, stats, kept)
        (everything, count, positive), extra_values = self.split(stats)
        counted = count > 0
        losses, mean_positive = self._combine(everything, count, positive)
        loss_shape = z.shape[:-1]
        return self.finish(
            losses.reshape(loss_shape),
            extra_values[:2],
            mean_positive,
            best_positive=extra_values[2] if extra else None,
            counted=counted.reshape(loss_shape),
            nan=nan_rows(z),
        )

    def _combine(
        self, everything: Tensor, count: Tensor, positive: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss per row and its positive score: the mean ('out') or the log of the mean ('in')."""
        some = count > 0
        count = torch.where(some, count, 1.0)
        if self.variant == "out":
            score = positive / count
        else:
            score = torch.where(some, positive, 0.0) - torch.log(count)
        return torch.where(some, everything - score, 0.0), score

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor, variant: str
    ) -> tuple[Tensor, Tensor]:
        """Losses, and which rows the mean counts."""
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
