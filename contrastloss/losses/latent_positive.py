"""MoCo with additional positives generated in latent space (HaLP)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..channel import LSE, Channel
from ..memory import EmbeddingQueue
from ..options import Temperature
from .base.blocks import Own
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.scores import at_least_one

__all__ = ["LatentPositiveLoss"]

_NEGATIVES = (LSE(),)


class LatentPositiveLoss(PairLoss, name="latent_positive"):
    r"""MoCo plus a term that pulls the query towards positives generated from its key.

    With the positives :math:`g \in G_i` of :func:`contrastloss.mixing.latent_positives`,

    :math:`\ell_i = \text{MoCo}_i(q, k) + \text{weight}\; \frac{N}{\sum_j |G_j|} \sum_{g \in G_i}
    \begin{cases} -s(q_i, g) & \text{alignment} \\
    \text{MoCo}_i(q, g) & \text{InfoNCE} \end{cases}`

    where MoCo takes its negatives from the queue. ``reduction='mean'`` is the mean of MoCo plus
    ``weight`` times the mean over all generated positives of the batch. A gradient flows to
    generated positives that require one; those of a generator are usually constants.

    Args:
        weight: weight of the generated positives; the released script of HaLP has 2. Default: 1.
        form: the term for generated positives, ``'alignment'`` (HaLP) or ``'info_nce'``. Default:
            ``'alignment'``.
        temperature: tau, positive. Default: 0.07.
        group: distributes the queries over ranks, for both means and their gradient. The queue has
            to be the same on all ranks; without ``valid``, G too.
        return_stats: for the key as the positive.

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
        queue: an EmbeddingQueue, which gets no gradient, or a tensor (K, D).
        generated: (N, G, D).
        valid: (N, G), bool, marks the generated positives that count; None for all. A row without
        any has the MoCo term only.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Shah et al., HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised
    Learning of Actions, 2023.
    """

    weight: float = 1.0
    _: KW_ONLY
    form: Literal["alignment", "info_nce"] = "alignment"
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {
        "query": "N D",
        "key": "N D",
        "generated": "N G D",
        "valid": "N G bool",
    }

    def channels(self) -> tuple[Channel, ...]:
        return _NEGATIVES

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: EmbeddingQueue | Tensor,
        generated: Tensor,
        valid: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        blocks = (self.queued(queue, ids, ("query", query)),)
        scores = self.scores(query, key, logit_scale, logit_bias, blocks=blocks)
        (negative,), extra = self.measure(scores, self._channels)
        positive = scores.aligned()
        rows = softplus(negative - positive)
        found = Own(generated).scores(scores)
        terms = -found if self.form == "alignment" else softplus(negative[:, None] - found)
        if valid is None:
            part = terms.sum(1) / at_least_one(generated.shape[1])
        else:
            size = scores.total(valid.sum()).clamp_min(1)
            part = torch.where(valid, terms, 0.0).sum(1) * scores.count / size
        return self.finish(rows + self.weight * part, extra, positive, aligned=scores)

    @staticmethod
    def reference(
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        generated: Tensor,
        valid: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        weight: float,
        form: str,
    ) -> Tensor:
        positives = torch.cat([key[:, None], generated], 1)
        s = scale * torch.einsum("nd,ngd->ng", query, positives) + bias
        negative = (scale * (query @ queue.mT) + bias)[:, None].expand(-1, s.shape[1], -1)
        entropy = torch.cat([s[..., None], negative], 2).logsumexp(2) - s
        terms = -s if form == "alignment" else entropy
        total = torch.where(valid, terms[:, 1:], 0.0).sum(1)
        return entropy[:, 0] + weight * len(query) * total / valid.sum().clamp_min(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Three generated positives per row, about a third of them not valid."""

        def normal(*shape: int) -> Tensor:
            return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

        cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
        query = normal(n, d)
        near = cosine * query[:, None] + math.sqrt(1 - cosine**2) * normal(n, 4, d)
        valid = torch.rand(n, 3, generator=generator) < 0.67
        return query, 1.5 * near[:, 0], normal(2 * n + 3, d), near[:, 1:].contiguous(), valid
