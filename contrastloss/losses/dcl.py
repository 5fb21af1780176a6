"""Decoupled contrastive learning (DCL)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..channel import LSE, Channel, differs
from ..options import Positive, Temperature
from .base.positive_loss import INSTANCE, TwoViewLoss
from .base.scores import Scores

__all__ = ["DCLLoss"]

_CHANNELS = (LSE(pairs=(differs(INSTANCE),)),)


class DCLLoss(TwoViewLoss, name="dcl"):
    r"""DCL: NT-Xent without the positive in the denominator.

    :math:`\ell_i = -w_i s_{ip} + \log \sum_{j \notin \{i, p\}} e^{s_{ij}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance.

    Args:
        temperature: tau, positive. Default: 0.1.
        weight: None for :math:`w = 1` (DCL), or a positive number sigma for DCLW,
            :math:`w_i = 2 - N \operatorname{softmax}_i(\cos(x_i, y_i) / \sigma)` (paper: 0.5).
            Default: None.
        detach_weight: whether w is a constant. Default: True.

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

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Yeh et al., Decoupled Contrastive Learning, 2022.
    """

    temperature: Temperature = 0.1
    weight: Positive | None = None
    detach_weight: bool = True

    @property
    def stops_gradients(self) -> bool:
        return self.weight is not None and self.detach_weight

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        weighted = positive
        if self.weight is not None:
            cosine = scores.cosines(positive).unflatten(0, (2, -1))
            share = scores.softmax(cosine / self.weight)
            weight = (2.0 - scores.count / 2 * share).flatten()
            weighted = (weight.detach() if self.detach_weight else weight) * positive
        alone = (negative == -torch.inf) & ~positive.isnan()
        return torch.where(alone, 0.0, negative - weighted)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        weight: float | None,
        detach_weight: bool,
    ) -> Tensor:
        z, n = torch.cat([x, y]), len(x)
        s = scale * (z @ z.mT) + bias
        i = torch.arange(2 * n, device=x.device)
        positive = s[i, i.roll(n)]
        own = i[:, None] % n == i % n
        w = torch.ones_like(positive)
        if weight is not None:
            w = (2 - n * ((x * y).sum(1) / weight).softmax(0)).repeat(2)
            w = w.detach() if detach_weight else w
        loss = -w * positive + s.masked_fill(own, -torch.inf).logsumexp(1)
        return torch.where(own.all(1), 0.0, loss)
