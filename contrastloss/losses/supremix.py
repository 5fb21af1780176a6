"""Supervised contrastive loss for regression (SupReMix)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, distance, same
from ..options import Temperature
from .base.label_loss import LABEL, TAKEN, LabelLoss, counted_of
from .base.loss import nan_rows
from .base.scores import Scores, wide

__all__ = ["SupReMixLoss"]

#: the label as a number; ``LABEL`` is an integer for comparison
VALUE = "value"
_WEIGHTS = {
    "distance": (distance(VALUE, 1.0),),
    "inverse": (distance(VALUE, -1.0),),
    None: (),
}


class SupReMixLoss(LabelLoss, name="supremix"):
    r"""SupCon for regression: negatives are weighted by the distance of their labels.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    .. math:: \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{e^{s_{ip}}}{\sum_{j \ne i} w_{ij} e^{s_{ij}}},
        \qquad w_{ij} = 1 + |y_i - y_j|,

    so that negatives with more distant labels are pushed away more strongly. A row without a
    positive has loss 0, and ``reduction='mean'`` averages over the other rows. The mixtures of rows
    that the paper adds can be passed as additional rows of z with their mixed labels.

    Args:
        temperature: tau, positive. Default: 0.07.
        weighting: ``'distance'`` for the w above, ``'inverse'`` for
            :math:`1 / (1 + |y_i - y_j|)`, None for 1. Default: ``'distance'``.
        loss_weight: multiplies the loss, e.g. tau over a base temperature. Default: 1.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), of any real dtype, without gradient. Positives are rows with equal labels:
        floating labels are compared in fp32 (in fp64 for fp64 embeddings), others as integers.
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Wu et al., Mixup Your Own Pairs, 2023.
    """

    temperature: Temperature = 0.07
    _: KW_ONLY
    weighting: Literal["distance", "inverse"] | None = "distance"

    inputs: ClassVar[dict[str, str]] = {"z": "N D | N V D", "labels": "N real"}
    without: ClassVar[dict[str, str]] = {"memory": "a queue holds one integer label per column"}

    _CHANNELS: ClassVar[dict[str | None, tuple[Channel, ...]]] = {
        name: (LSE(weight=weight), *(SUM(psi, pairs=(same(LABEL),)) for psi in ("one", "id")))
        for name, weight in _WEIGHTS.items()
    }

    def channels(self) -> tuple[Channel, ...]:
        return self._CHANNELS[self.weighting]

    def combine(
        self, everything: Tensor, count: Tensor, positive: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor | None]:
        some = count > 0
        return torch.where(some, everything - positive / count.clamp_min(1), 0.0), some

    def forward(  # type: ignore[override]
        self,
        z: Tensor,
        labels: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        views, flat, dtype = 1 if z.ndim == 2 else z.shape[1], z.flatten(0, -2), wide(z).dtype
        value = labels.detach().to(dtype).repeat_interleave(views)
        label = _compared(labels.detach(), dtype).repeat_interleave(views)
        taken = self.taken(labels.detach())
        rows = {LABEL: label} if self.weighting is None else {LABEL: label, VALUE: value}
        if taken is not None:
            taken = rows[TAKEN] = taken.repeat_interleave(views)
        scores, each = self.scores(flat, None, logit_scale, logit_bias), z.shape[:-1]
        losses, counted, values = self.evaluate(scores, rows)
        counted = counted_of(counted, taken)
        assert counted is not None
        counted = counted.reshape(each)
        return self.labelled(losses.reshape(each), counted, values, nan_rows(z), taken)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre, noise = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        return centre[labels] + 0.7 * noise, labels

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor, weighting: str | None
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        views = 1 if z.ndim == 2 else z.shape[1]
        flat, label = z.flatten(0, -2), labels.repeat_interleave(views)
        s = (scale * (flat @ flat.mT) + bias).fill_diagonal_(-torch.inf)
        w = 1 + (label[:, None] - label).abs().to(s.dtype)
        log_w = torch.log(w) * {"distance": 1.0, "inverse": -1.0, None: 0.0}[weighting]
        mask = (label[:, None] == label).fill_diagonal_(False)
        pairs = torch.where(mask, (s + log_w).logsumexp(1, keepdim=True) - s, 0.0)
        losses = pairs.sum(1) / mask.sum(1).clamp_min(1)
        return losses.reshape(z.shape[:-1]), mask.any(1).reshape(z.shape[:-1])


def _compared(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers that are equal where the labels are; for floating labels, their bits."""
    if not labels.is_floating_point():
        return labels.long()
    value = labels.to(dtype)
    value = torch.where(value == 0, 0.0, value)  # maps -0 to 0
    return value.view(torch.int64 if dtype == torch.float64 else torch.int32).long()
