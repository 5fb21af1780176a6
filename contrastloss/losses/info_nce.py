"""InfoNCE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..channel import INDEX, LSE, MAX, differs
from ..memory import EmbeddingQueue
from .base import CrossLoss, softplus
from .check import check_negatives, check_pair, check_queue
from .scores import Scores
from .stored import beside, held_by, over_stored, stored

__all__ = ["InfoNCELoss"]

#: the channels for given negatives, every one of which counts
ALL = LSE()
EXTRA = (MAX(), LSE())
STORED = stored(ALL, *EXTRA)


class InfoNCELoss(CrossLoss, name="info_nce"):
    r"""Row i of x against row i of y; the other rows of y, or ``negatives``, are its negatives.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Args:
        temperature: tau, 0.1.

    Shape:
        x, y: (N, D). negatives: (K, D), shared by all rows (with a group, of all ranks), or
        (N, K, D), row i's own; with them the other rows of y are no negatives. memory: an
        EmbeddingQueue, whose columns are negatives beside the other rows of y; ids: (N,), for one
        made with ``ids=True``, leaves out columns of the row's own instance. Loss: (), or (N,) for
        ``reduction='none'``. No negative at all: 0.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018.
    """

    temperature: float | Tensor = 0.1
    channels = (LSE(pairs=(differs(INDEX),)),)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if memory is not None or ids is not None:
            if negatives is not None:
                raise ValueError("memory: got one beside negatives, expected only one of them")
            return self._with_memory(x, y, memory, ids, logit_scale, logit_bias)
        if negatives is None:
            return super().forward(x, y, logit_scale=logit_scale, logit_bias=logit_bias)
        check_pair(self, x, y, logit_scale, logit_bias)
        check_negatives(self, negatives, x)
        positive = self.scores(x, y, logit_scale, logit_bias, alone=True).aligned()
        own = negatives.ndim == 3  # one row against K columns, N times
        scores = self.scores(
            x[:, None] if own else x, negatives, logit_scale, logit_bias, alone=own
        )
        channels = (ALL, *(EXTRA if self.return_stats else ()))
        (negative,), extra = self.split(scores.stats(channels))
        if own:
            negative, extra = negative.squeeze(1), [value.squeeze(1) for value in extra]
        return self.finish(self.combine(negative, positive, scores), extra, positive)

    def _with_memory(
        self,
        x: Tensor,
        y: Tensor,
        memory: EmbeddingQueue | None,
        ids: Tensor | None,
        logit_scale: Tensor | float | None,
        logit_bias: Tensor | float | None,
    ) -> Any:
        check_pair(self, x, y, logit_scale, logit_bias)
        memory = check_queue(self, "memory", memory, ("x", x), x.shape[0], ids)
        scores = self.scores(x, y, logit_scale, logit_bias)
        channels = (*self.channels, *(self.extra if self.return_stats else ()))
        *batch, positive = scores.stats((*channels, self.positive))
        kept = over_stored(scores, STORED, held_by(memory), count=len(channels), ids=ids)
        (negative,), extra = self.split(beside(channels, batch, kept))
        return self.finish(self.combine(negative, positive, scores), extra, positive)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(negative - positive)

    @staticmethod
    def reference(
        x: Tensor, y: Tensor, negatives: Tensor | None = None, *, scale: Tensor, bias: Tensor
    ) -> Tensor:
        target = torch.arange(len(x), device=x.device)
        s = scale * (x @ y.mT) + bias
        if negatives is not None:
            k = negatives.expand(len(x), *negatives.shape[-2:])
            s = torch.cat([s.diag()[:, None], scale * torch.einsum("nd,nkd->nk", x, k) + bias], 1)
            target = torch.zeros_like(target)
        return torch.nn.functional.cross_entropy(s, target, reduction="none")
