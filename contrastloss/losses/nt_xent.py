"""NT-Xent (SimCLR)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..channel import LSE, Channel, differs
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import INSTANCE, TwoViewLoss
from .base.scores import Scores

__all__ = ["NTXentLoss"]

_CHANNELS = (LSE(pairs=(differs(INSTANCE),)),)


class NTXentLoss(TwoViewLoss, name="nt_xent"):
    r"""NT-Xent: normalised temperature-scaled cross entropy over two views of N instances.

    .. math:: \ell_i = -\log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}},
        \qquad s_{ij} = \cos(z_i, z_j) / \tau

    for every row i of ``z = [x; y]``, where p is the other view of its instance. The mean is over
    2N rows.

    Args:
        temperature: tau, positive. Default: 0.1.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (M, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        Loss: (), or (2N,) for ``reduction='none'``, x's rows first. For N = 1 it is 0.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual
    Representations, 2020.
    """

    temperature: Temperature = 0.1

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(negative - positive)

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        z, n = torch.cat([x, y]), len(x)
        s = (scale * (z @ z.mT) + bias).fill_diagonal_(-torch.inf)
        return cross_entropy(s, torch.arange(2 * n, device=x.device).roll(n), reduction="none")
