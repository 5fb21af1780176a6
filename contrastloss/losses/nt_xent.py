"""NT-Xent (SimCLR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..channel import LSE, Channel, differs
from ..memory import EmbeddingQueue
from ..ops import Part
from ..options import Temperature
from .base.negatives import Negatives
from .base.positive_loss import INSTANCE, SOFTMAX, TwoViewLoss
from .base.scores import correction

__all__ = ["NTXentLoss"]

_CHANNELS = (LSE(pairs=(differs(INSTANCE),)),)


class NTXentLoss(TwoViewLoss, name="nt_xent"):
    r"""NT-Xent: normalised temperature-scaled cross entropy over two views of N instances.

    :math:`\ell_i = -\log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance. The mean is over
    2N rows.

    Args:
        temperature: tau, positive. Default: 0.1.

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
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        log_q: (N,), subtracted from the scores with both views of an instance as columns: the
        log of the probability that the instance is in a batch; None for 0.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``, x's rows first. For N = 1 it is 0.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual
    Representations, 2020.
    """

    temperature: Temperature = 0.1

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(
            negatives, negatives_mask, negatives_offsets, negatives_ids, negatives_log_q
        )
        scores = self.both_views(x, y, further, ids, memory, logit_scale, logit_bias)
        scores.row_weight = None if row_weight is None else row_weight.repeat(2)
        scores.col_bias = correction(None if log_q is None else log_q.repeat(2), x)
        return self.of_instances(scores, ids)

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def parts(self) -> Sequence[Part]:
        return SOFTMAX

    @staticmethod
    def reference(x: Tensor, y: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        z, n = torch.cat([x, y]), len(x)
        s = (scale * (z @ z.mT) + bias).fill_diagonal_(-torch.inf)
        return cross_entropy(s, torch.arange(2 * n, device=x.device).roll(n), reduction="none")
