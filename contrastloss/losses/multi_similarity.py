"""Multi-similarity loss."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor

from ..channel import LSE, Channel, same
from ..options import Positive, Temperature
from .base.label_loss import LABEL, LabelLoss
from .base.loss import softplus
from .base.scores import Scores

__all__ = ["MultiSimilarityLoss"]


class MultiSimilarityLoss(LabelLoss, name="multi_similarity"):
    r"""Multi-similarity loss: the hardest positives and negatives get the largest weights.

    With :math:`P_i` the other rows with row i's label, :math:`N_i` the rows with other labels, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_i =
    \frac1\alpha \log\Bigl(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Bigr) +
    \frac1\beta \log\Bigl(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Bigr)`

    over all pairs, as in pytorch-metric-learning without a miner. A term without pairs is 0.

    Args:
        alpha: scale of positive pairs, positive. Default: 2.
        beta: scale of negative pairs, positive. Default: 50.
        base: lambda. Default: 0.5.
        temperature: divides the scores, positive. Default: 1.

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
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Wang et al., Multi-Similarity Loss with General Pair Weighting, 2019.
    """

    alpha: Positive = 2.0
    beta: Positive = 50.0
    base: float = 0.5
    _: KW_ONLY
    temperature: Temperature = 1.0

    def channels(self) -> tuple[Channel, ...]:
        near = LSE(theta=-self.alpha, pairs=(same(LABEL),))
        return near, LSE(theta=self.beta, pairs=self.negatives)

    def combine(self, near: Tensor, far: Tensor, scores: Scores) -> tuple[Tensor, Tensor | None]:
        losses = softplus(near + self.alpha * self.base) / self.alpha
        return losses + softplus(far - self.beta * self.base) / self.beta, None

    @staticmethod
    def reference(
        z: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        alpha: float,
        beta: float,
        base: float,
    ) -> Tensor:
        s = scale * (z @ z.mT) + bias - base
        own = labels[:, None] == labels
        near = (-alpha * s).masked_fill(~own, -torch.inf).fill_diagonal_(-torch.inf)
        far = (beta * s).masked_fill(own, -torch.inf)
        near, far = (torch.nn.functional.pad(u, (1, 0)).logsumexp(1) for u in (near, far))
        return near / alpha + far / beta
