"""Margin ranking loss."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import COL, INDEX, ROW, SUM, Channel, differs
from ..options import Temperature
from .base.blocks import BATCH, Block, Own
from .base.pair_loss import Memory
from .base.positive_loss import CrossLoss
from .base.scores import at_least_one

__all__ = ["MarginRankingLoss"]

BOUND = "bound"
_OTHERS = (differs(INDEX),)
BY_ROW, BY_COL = (SUM("relu", shift=BOUND, pairs=_OTHERS, axis=axis) for axis in (ROW, COL))


class MarginRankingLoss(CrossLoss, name="margin_ranking"):
    r"""Margin ranking: each positive should outscore the row's negatives by a margin.

    .. math:: \ell_i = \frac{1}{N - 1} \sum_{j \ne i} [m - s_{ii} + s_{ij}]_+,
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Args:
        temperature: tau, positive. Default: 1.
        margin: m. Default: 0.6.
        symmetric: average with the loss over columns, :math:`[m - s_{ii} + s_{ji}]_+`. Not
            supported together with ``negatives``. Default: False.

    Shape:
        x, y: (N, D).
        negatives: (N, K, D), one set per row. They replace the other rows of y, and the mean is
        over K.
        memory: an EmbeddingQueue of additional negatives, which the mean includes; not supported
        together with ``symmetric``.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has loss 0.

    Source: Kiros et al., Unifying Visual-Semantic Embeddings with Multimodal Neural Language
    Models, 2014; Carvalho et al., Self-Supervised Contrastive Learning for Robust Audio-Sheet Music
    Retrieval Systems, 2023.
    """

    temperature: Temperature = 1.0
    margin: float = 0.6
    symmetric: bool = False

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D", "negatives": "N K D"}

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        memory: Memory = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        columns: Block = BATCH
        if negatives is not None:
            columns = Own(negatives)
        blocks = (columns, *self.stored(memory, ids, ("x", x)))
        if self.symmetric and blocks != (BATCH,):
            name = "memory" if columns is BATCH else "negatives"
            raise ValueError(f"{name}: got some with symmetric=True, expected None")
        scores = self.scores(x, y, logit_scale, logit_bias, blocks=blocks)
        positive = scores.aligned()
        bound = {BOUND: positive - self.margin}
        (total, *by_col), extra = self.measure(scores, self._channels, bound, bound)
        if by_col:
            total = 0.5 * (total + by_col[0])
        losses = total / at_least_one(scores.negatives(scores.count - 1))
        nan = positive.isnan()
        return self.finish(losses, extra, positive, aligned=scores, nan=nan)

    def channels(self) -> tuple[Channel, ...]:
        return (BY_ROW, BY_COL) if self.symmetric else (BY_ROW,)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        margin: float,
        symmetric: bool,
    ) -> Tensor:
        s = scale * (x @ y.mT) + bias
        positive = s.diag()[:, None]
        if negatives is not None:
            s = scale * torch.einsum("nd,nkd->nk", x, negatives) + bias
            return torch.relu(margin - positive + s).sum(1) / max(s.shape[1], 1)
        others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        count = max(len(x) - 1, 1)
        losses = (others * torch.relu(margin - positive + s)).sum(1) / count
        if symmetric:
            losses = (losses + (others * torch.relu(margin - positive + s.mT)).sum(1) / count) / 2
        return losses

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positives that score like hard negatives: no margin is met at every temperature."""
        x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in "xy")
        return x, 0.1 * x + y
