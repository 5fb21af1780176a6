"""Contrastive loss with sampled negatives per row (wav2vec 2.0)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..ops.merge import log_sum_exp
from ..options import Temperature
from .base.loss import softplus
from .base.pair_loss import PairLoss

__all__ = ["SampledContrastiveLoss"]

#: the integer dtype of each element size in bytes
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
#: an odd 64-bit multiplier for hashing, as a signed integer
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)


class SampledContrastiveLoss(PairLoss, name="sampled"):
    r"""Each row has its own positive and sampled negatives, given by index (wav2vec 2.0).

    :math:`\ell_i = -\log \frac{e^{s_{i0}}}{\sum_k e^{s_{ik}}},
    \qquad s_{ik} = \cos(x_i, y_{\text{index}_{ik}}) / \tau`

    A negative that equals the positive, by index or by value, is ignored, as in fairseq's
    wav2vec 2.0. A negative drawn twice counts twice. No (N, K, D) tensor of candidates is
    materialised.

    Args:
        temperature: tau, positive. Default: 0.1.
        group: distributes the rows of x over ranks, for the mean and its gradient. Candidates are
            rows of this rank's y.

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
        x: (N, D).
        y: (M, D).
        index: (N, K), int64: the positive of row i, then its negatives; -1 for none.
        Loss: (), or (N,) for ``reduction='none'``. A row without a positive has loss 0 and is not
        counted in the mean.

    Source: Baevski et al., wav2vec 2.0, 2020; Trinh et al., Selfie: Self-supervised Pretraining for
    Image Embedding, 2019.
    """

    temperature: Temperature = 0.1

    without: ClassVar[dict[str, str]] = {"memory": "every row has candidates of its own"}

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "M D", "index": "N K>=1 int"}

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        scores = self.scores(x, y, logit_scale, logit_bias, alone=True).gather(index)
        counted = index[:, 0] >= 0
        positive = torch.where(counted, scores[:, 0], 0.0)
        kept = torch.where(_distractors(y, index), scores, -torch.inf)
        negative = log_sum_exp(kept.mT)
        losses = torch.where(counted, softplus(negative - positive), 0.0)
        extra = (kept.amax(1), torch.logaddexp(negative.detach(), positive.detach()))
        return self.finish(losses, extra, positive, counted=counted)

    @staticmethod
    def reference(
        x: Tensor, y: Tensor, index: Tensor, *, scale: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        candidates, counted = y[index], index[:, 0] >= 0
        logits = scale * torch.einsum("nd,nkd->nk", x, candidates) + bias
        out = (candidates == candidates[:, :1]).all(2) | (index < 0)
        out[:, 0] = False
        logits = logits.masked_fill(out, -torch.inf)
        return torch.where(counted, logits.logsumexp(1) - logits[:, 0], 0.0), counted


def _distractors(y: Tensor, index: Tensor) -> Tensor:
    """Mask (N, K) of the candidates that differ from the positive."""
    if not y.shape[0]:
        return torch.zeros_like(index, dtype=torch.bool)
    vector = _numbered(y.detach())[index]
    return vector != vector[:, :1]


def _numbered(y: Tensor) -> Tensor:
    """Number the rows of y, (M,): equal rows get the same number, different rows different ones.

    Rows are sorted by a 64-bit hash of their bits and compared with their neighbours. Different
    rows never share a number; equal rows can differ only if a third row has the same hash.
    """
    bits = (y + 0.0).view(_BITS[y.element_size()]).long()  # + 0.0 maps -0 to 0
    factor = torch.arange(1, y.shape[1] + 1, device=y.device) * _ODD
    hashed = ((bits ^ (bits >> 29)) * (factor ^ (factor >> 31) | 1)).sum(1)
    order = hashed.argsort()
    ranked = y[order]
    new = (ranked[1:] != ranked[:-1]).any(1)
    number = torch.nn.functional.pad(new.cumsum(0), (1, 0))
    return torch.empty_like(number).scatter_(0, order, number)
