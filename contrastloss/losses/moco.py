"""Momentum contrast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..channel import LSE, MAX
from ..memory import EmbeddingQueue, Snapshot
from .base.checks import check_pair, check_stored
from .base.pair_loss import PairLoss, softplus
from .base.scores import Scores
from .base.stored import held_by, over_stored, stored

__all__ = ["MoCoLoss"]


class MoCoLoss(PairLoss, name="moco"):
    r"""A query against its key; the negatives are the keys of earlier batches, from a queue.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_k e^{t_{ik}}},
        \qquad s_{ii} = \cos(q_i, k_i) / \tau, \quad t_{ik} = \cos(q_i, n_k) / \tau

    Empty slots of the queue are no negatives. Enqueue the keys after the call: before it, every
    key would be among its own negatives.

    Args:
        temperature: tau, 0.07.
        group: spreads the queries over ranks, for the mean and its gradient; the queue is the same
            on all of them (``queue.enqueue(key, group=...)``).

    Shape:
        query, key: (N, D). queue: an EmbeddingQueue of K slots, which gets no gradient, or a
        tensor (K, D). ids: (N,), integers, for a queue made with ``ids=True``: a stored key of the
        query's own instance is no negative. Loss: (), or (N,) for ``reduction='none'``. An empty
        queue: 0.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    temperature: float | Tensor = 0.07
    channels = (LSE(),)
    # these, and ``extra``, over what is stored
    _STORED = stored(LSE(), MAX(), LSE())

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: EmbeddingQueue | Tensor,
        *,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        check_pair(self, query, key, logit_scale, logit_bias, ("query", "key"))
        check_stored(self, "queue", queue, ("query", query), ids)
        scores = self.scores(query, key, logit_scale, logit_bias)
        held = held_by(queue)
        count = 1 + (len(self.extra) if self.return_stats else 0)
        stats = over_stored(scores, self._STORED, held, count=count, ids=ids)
        (negative,), extra = self.split(stats)
        negative = self.harden(negative, scores, held, ids)
        positive = scores.aligned()
        best = scores.surpassing(positive) if self.return_stats else None
        return self.finish(softplus(negative - positive), extra, positive, best_positive=best)

    def harden(
        self, negative: Tensor, scores: Scores, held: Snapshot, ids: Tensor | None
    ) -> Tensor:
        """The log-sum-exp over all negatives, from that over the stored ones."""
        return negative

    @staticmethod
    def reference(
        query: Tensor, key: Tensor, queue: Tensor, *, scale: Tensor, bias: Tensor
    ) -> Tensor:
        positive = (query * key).sum(1, keepdim=True)
        logits = scale * torch.cat([positive, query @ queue.mT], 1) + bias
        target = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        return cross_entropy(logits, target, reduction="none")
