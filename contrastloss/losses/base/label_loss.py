"""What losses of labelled rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...channel import MAX, SUM, Channel, differs, same
from .checks import check_finite, check_labels, check_matrix, check_scale
from .loss import nan_rows
from .pair_loss import PairLoss
from .scores import Scores

__all__ = ["LABEL", "LabelLoss", "largest_class"]

LABEL = "label"
_POSITIVES = (same(LABEL),)
_STATISTICS = (MAX(pairs=_POSITIVES), SUM("id", pairs=_POSITIVES), SUM("one", pairs=_POSITIVES))


class LabelLoss(PairLoss):
    """Rows of z against each other: those of the same label are positives, all others negatives."""

    negatives = (differs(LABEL),)

    def evaluate(
        self, scores: Scores, rows: Mapping[str, Tensor], extra: tuple[Channel, ...]
    ) -> tuple[Tensor, Tensor | None, Sequence[Tensor]]:
        """Losses, which rows count or how many terms they sum, and the values of ``extra``."""
        raise NotImplementedError

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        check_matrix("z", z)
        check_labels(labels, z.shape[0], z)
        check_scale(self, z.shape[0], logit_scale, logit_bias)
        if self.validate:
            check_finite(z=z)
        scores = self.scores(z, None, logit_scale, logit_bias)
        extra = (*self.extra, *_STATISTICS) if self.return_stats else ()
        losses, counted, values = self.evaluate(scores, {LABEL: labels}, extra)
        loss = self.reduce(losses, counted, nan_rows(z))
        if not self.return_stats:
            return loss
        hardest, lse, best, total, count = values
        some = count > 0
        mean = torch.where(some, total / count.clamp_min(1), 0.0)
        return loss, self.statistics((hardest, lse), mean, best, some)


def largest_class(labels: Tensor) -> int:
    """How many rows the largest class has; this synchronises a GPU."""
    sizes = torch.unique(labels, return_counts=True)[1]
    return int(sizes.max()) if len(sizes) else 0
