"""Spectral contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..channel import INDEX, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.positive_loss import CrossLoss

__all__ = ["SpectralLoss"]

_CHANNELS = (SUM("square", pairs=(differs(INDEX),)),)
_PARTS = (Part(0), Part(1, weight=-2.0))


class SpectralLoss(CrossLoss, name="spectral"):
    r"""Spectral contrastive loss: aligns positives and makes other pairs orthogonal.

    :math:`\ell_i = -2 s_{ii} + \frac{1}{N - 1} \sum_{j \ne i} s_{ij}^2,
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    Up to a constant, it factorises the normalised adjacency matrix of the augmentation graph, for
    which the paper uses dot products (``normalize=False``).

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

    Source: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral
    Contrastive Loss, 2021.
    """

    temperature: Temperature = 1.0

    per_negative = True

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def parts(self) -> Sequence[Part]:
        return _PARTS

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s = scale * (x @ y.mT) + bias
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        negative = s.square().masked_fill(own, 0.0).sum(1)
        return negative / max(len(x) - 1, 1) - 2 * s.diag()
