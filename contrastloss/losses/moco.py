"""Momentum contrast (MoCo)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..channel import LSE, Channel
from ..memory import EmbeddingQueue
from ..options import Temperature
from .base.blocks import Block
from .base.loss import softplus
from .base.negatives import NEGATIVES, Negatives
from .base.pair_loss import PairLoss, covering

__all__ = ["MoCoLoss"]

_CHANNELS = (LSE(),)


class MoCoLoss(PairLoss, name="moco"):
    r"""MoCo: query against key, with the keys of earlier batches, from a queue, as negatives.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_k e^{t_{ik}}},
    \qquad s_{ii} = \cos(q_i, k_i) / \tau, \quad t_{ik} = \cos(q_i, n_k) / \tau`

    Unfilled slots of the queue are ignored. Enqueue the keys after the call; enqueued before it,
    each key would be among the negatives of its own query.

    Args:
        temperature: tau, positive. Default: 0.07.
        group: distributes the queries over ranks, for the mean and its gradient. The queue has to
            be the same on all ranks (``queue.enqueue(key, group=...)``).

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        query, key: (N, D).
        queue: an EmbeddingQueue of K slots, which gets no gradient, or a tensor (K, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers, for a queue made with ``ids=True``; stored keys of the query's own
        instance are ignored.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. With an empty queue it is 0.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {
        **{"query": "N D", "key": "N D", **NEGATIVES},
        **{"row_weight": "N float"},
    }

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: EmbeddingQueue | Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        of_queue = None if negatives_ids is not None and isinstance(queue, Tensor) else ids
        blocks = self.blocks(self.queued(queue, of_queue, ("query", query)))
        further = Negatives(
            negatives, negatives_mask, negatives_offsets, negatives_ids, negatives_log_q
        )
        blocks += self.given(query, further, ids)
        scores = self.scores(query, key, logit_scale, logit_bias, blocks=blocks)
        (negative,), extra = self.measure(scores, self._channels)
        positive = scores.aligned()
        extra = covering(extra, positive)
        scores.row_weight = row_weight
        losses = scores.weighted(softplus(negative - positive))
        return self.finish(losses, extra, positive, aligned=scores)

    def blocks(self, stored: Block) -> tuple[Block, ...]:
        """The column blocks with the negatives."""
        return (stored,)

    @staticmethod
    def reference(
        query: Tensor, key: Tensor, queue: Tensor, *, scale: Tensor, bias: Tensor
    ) -> Tensor:
        positive = (query * key).sum(1, keepdim=True)
        logits = scale * torch.cat([positive, query @ queue.mT], 1) + bias
        target = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        return cross_entropy(logits, target, reduction="none")
