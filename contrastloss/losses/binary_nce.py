"""Binary noise-contrastive estimation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.positive_loss import CrossLoss

__all__ = ["BinaryNCELoss"]

_CHANNELS = (SUM("softplus", pairs=(differs(INDEX),)),)
_PARTS = (Part(0), Part(None, 1, softplus=True))


class BinaryNCELoss(CrossLoss, name="binary_nce"):
    r"""Binary NCE: logistic classification of positive and negative pairs with equal total weight.

    :math:`\ell_i = \log\bigl(1 + e^{-s_{ii}}\bigr) +
    \frac{1}{N - 1} \sum_{j \ne i} \log\bigl(1 + e^{s_{ij}}\bigr),
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With :math:`f = e^s` the terms are :math:`\log(1 + 1/f^+)` and :math:`\log(1 + f^-)`. The
    optimal f is the density ratio of positive and negative pairs. SigLIP sums over negatives
    instead of averaging.

    Args:
        temperature: tau, positive. Default: 1.

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
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is the first term.

    Source: Gutmann and Hyvarinen, Noise-Contrastive Estimation, 2010; Qiu et al., Contrastive UCB:
    Provably Efficient Contrastive Self-Supervised Learning in Online Reinforcement Learning, 2022;
    Rethmeier and Augenstein, A Primer on Contrastive Pretraining in Language Processing, 2021.
    """

    temperature: Temperature = 1.0

    per_negative = True

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def parts(self) -> Sequence[Part]:
        return _PARTS

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s, zero = scale * (x @ y.mT) + bias, x.new_zeros(())
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        negative = torch.logaddexp(s, zero).masked_fill(own, 0.0).sum(1)
        return torch.logaddexp(-s.diag(), zero) + negative / max(len(x) - 1, 1)
