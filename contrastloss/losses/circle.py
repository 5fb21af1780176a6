"""Circle loss."""

from __future__ import annotations

from dataclasses import KW_ONLY

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, same
from ..options import Positive, Temperature
from .base.label_loss import LABEL, LabelLoss
from .base.loss import softplus
from .base.scores import Scores

__all__ = ["CircleLoss"]

_POSITIVES = (same(LABEL),)


class CircleLoss(LabelLoss, name="circle"):
    r"""Circle loss: the further a pair is from its optimum, the larger its weight.

    With :math:`P_i` the other rows with row i's label, :math:`N_i` the rows with other labels, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_i = \log\Bigl(1 +
    \sum_{n \in N_i} e^{\gamma [s_{in} + m]_+ (s_{in} - m)}
    \sum_{p \in P_i} e^{-\gamma [1 + m - s_{ip}]_+ (s_{ip} - 1 + m)}\Bigr)`

    where the weights :math:`[\cdot]_+` get no gradient. ``reduction='mean'`` averages over the rows
    that have both a positive and a negative; all other rows have loss 0.

    Args:
        m: relaxation factor. Default: 0.4.
        gamma: scale factor, positive. Default: 80.
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

    Source: Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020.
    """

    m: float = 0.4
    gamma: Positive = 80.0
    _: KW_ONLY
    temperature: Temperature = 1.0

    @property
    def stops_gradients(self) -> bool:
        return True  # the pace of a pair

    def channels(self) -> tuple[Channel, ...]:
        return (
            LSE(theta=-self.gamma, relax=self.m, pairs=_POSITIVES),
            LSE(theta=self.gamma, relax=self.m, pairs=self.negatives),
            SUM(psi="one", pairs=_POSITIVES),
            SUM(psi="one", pairs=self.negatives),
        )

    def combine(
        self, near: Tensor, far: Tensor, positives: Tensor, negatives: Tensor, scores: Scores
    ) -> tuple[Tensor, Tensor | None]:
        both = (positives > 0) & (negatives > 0)
        return softplus(torch.where(both, near + far, -torch.inf)), both

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor, m: float, gamma: float
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = scale * (z @ z.mT) + bias
        own, held = labels[:, None] == labels, s.detach()
        near = -gamma * torch.relu(1 + m - held) * (s - 1 + m)
        far = gamma * torch.relu(held + m) * (s - m)
        same = own.clone().fill_diagonal_(False)
        both = same.any(1) & ~own.all(1)
        near, far = near[both], far[both]
        total = near.masked_fill(~same[both], -torch.inf).logsumexp(1)
        total = total + far.masked_fill(own[both], -torch.inf).logsumexp(1)
        losses = torch.zeros_like(s[:, 0])
        return losses.masked_scatter(both, torch.logaddexp(total, torch.zeros_like(total))), both
