"""Contrastive loss against the columns of a memory bank that share the row's label."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..channel import LSE, Channel, same
from ..memory import EmbeddingQueue, check_integers
from ..options import Temperature
from .base.blocks import Block, Stored
from .base.checks import check_columns, check_matrix, check_queue
from .base.loss import softplus
from .base.pair_loss import PairLoss

__all__ = ["BankContrastiveLoss"]

LABEL = "label"
_OWN_LABEL = (same(LABEL),)


class BankContrastiveLoss(PairLoss, name="bank_contrastive"):
    r"""Query against key, with the bank's embeddings of the same label as negatives.

    :math:`\ell_i = -\log \frac{e^{s(q_i, k_i)}}
    {e^{s(q_i, k_i)} + \sum_{j:\, b_j = c_i} e^{s(q_i, m_j)}}`

    with labels c of the queries and b of the stored embeddings :math:`m_j`. With languages as
    labels, each language has its own bank within one queue, and features that only identify the
    language do not reduce the loss.

    Args:
        temperature: tau, positive. Default: 0.05.
        group: distributes the queries over ranks, for the mean and its gradient. The bank has to
            be the same on all ranks.
        return_stats: over the rows whose label is stored.

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

    Shape:
        query, key: (N, D).
        bank: an EmbeddingQueue made with ``labels=True``, which gets no gradient, or a tensor
        (K, D).
        labels: (N,), integers.
        bank_labels: (K,), integers, if bank is a tensor; otherwise None.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. A row whose label is not stored has loss 0.

    Source: Wu et al., Unsupervised Context Aware Sentence Representation Pretraining for
    Multi-lingual Dense Retrieval, 2022.
    """

    temperature: Temperature = 0.05

    inputs: ClassVar[dict[str, str]] = {"query": "N D", "key": "N D", "labels": "N int"}
    OF_ROWS_WITH_NEGATIVES = True
    negatives = _OWN_LABEL

    def channels(self) -> tuple[Channel, ...]:
        return (LSE(pairs=_OWN_LABEL),)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        bank: EmbeddingQueue | Tensor,
        labels: Tensor,
        bank_labels: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        block = self._block(bank, bank_labels, query, ids)
        scores = self.scores(query, key, logit_scale, logit_bias, blocks=(block,))
        (negative,), extra = self.measure(scores, self._channels, {LABEL: labels})
        positive = scores.aligned()
        return self.finish(softplus(negative - positive), extra, positive, aligned=scores)

    def _block(
        self,
        bank: EmbeddingQueue | Tensor,
        labels: Tensor | None,
        query: Tensor,
        ids: Tensor | None,
    ) -> Block:
        like = ("query", query)
        if not isinstance(bank, Tensor):
            if labels is not None:
                raise ValueError("bank_labels: got a value beside a queue, expected its own labels")
            bank = check_queue(self, "bank", bank, like, len(query), ids, labels=True)
            return Stored(bank, ids=ids, labels=LABEL)
        check_matrix("bank", bank)
        check_columns(self, "bank", bank, like)
        if labels is None:
            raise ValueError(
                "bank_labels: got None, expected the labels of a bank that is a tensor"
            )
        check_integers("bank_labels", labels, bank.shape[0], bank)
        if ids is not None:
            raise ValueError("ids: got a value, expected None: bank is a tensor, without ids")
        return Stored(bank, columns={LABEL: labels})

    @staticmethod
    def reference(
        query: Tensor,
        key: Tensor,
        bank: Tensor,
        labels: Tensor,
        bank_labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
    ) -> Tensor:
        positive = scale * (query * key).sum(1, keepdim=True) + bias
        s = scale * (query @ bank.mT) + bias
        s = s.masked_fill(labels[:, None] != bank_labels, -torch.inf)
        return torch.cat([positive, s], 1).logsumexp(1) - positive.squeeze(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Three labels, and a bank of 2n + 3 columns."""

        def normal(count: int) -> Tensor:
            return normalize(
                torch.randn(count, d, generator=generator, dtype=torch.float64), dim=-1
            )

        cosine = min(0.9, math.sqrt(2 * math.log(n + 2) / d))
        query, size = normal(n), 2 * n + 3
        key = cosine * query + math.sqrt(1 - cosine**2) * normal(n)
        labels, stored_labels = (torch.randint(3, (k,), generator=generator) for k in (n, size))
        return query, 1.5 * key, normal(size), labels, stored_labels
