"""The contrastive term of cMIM."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import INDEX, LSE, differs
from ..memory import EmbeddingQueue
from ..options import Temperature
from .base.blocks import BATCH
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.scores import log_count

__all__ = ["CMIMLoss"]

#: z against itself already excludes the diagonal; with two views it is excluded by index
_ITSELF = (LSE(),)
_VIEWS = (LSE(pairs=(differs(INDEX),)),)


class CMIMLoss(PairLoss, name="cmim"):
    r"""cMIM: InfoNCE with the mean over the batch's negatives, which needs no augmentation.

    :math:`\ell_i = \log\Bigl(1 + e^{-s_{ii}} \frac{1}{N - 1} \sum_{j \ne i} e^{s_{ij}}\Bigr),
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    where :math:`s_{ii} = 1 / \tau`. With a second view y, :math:`\cos(z_i, y_j)` replaces
    :math:`\cos(z_i, z_j)`. InfoNCE sums over negatives, so its value grows with the batch size. The
    other terms of cMIM, the likelihoods of its encoder and decoder, are left to the model.

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
        z: (N, D).
        y: (N, D), or None.
        memory: an EmbeddingQueue of additional negatives, which the mean includes.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Livne, cMIM: A Contrastive Mutual Information Framework for Unified Generative and
    Discriminative Representation Learning, 2025.
    """

    temperature: Temperature = 0.1

    inputs: ClassVar[dict[str, str]] = {"z": "N D", "y": "N D"}
    negatives = (differs(INDEX),)

    def forward(
        self,
        z: Tensor,
        y: Tensor | None = None,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        blocks = (BATCH, *self.stored(memory, ids, ("z", z)))
        scores = self.scores(z, y, logit_scale, logit_bias, blocks=blocks)
        (negative,), extra = self.measure(scores, _ITSELF if y is None else _VIEWS)
        mean = negative - log_count(scores.negatives(scores.count - 1), negative)
        positive = scores.aligned()
        return self.finish(softplus(mean - positive), extra, positive, aligned=scores)

    @staticmethod
    def reference(z: Tensor, y: Tensor | None = None, *, scale: Tensor, bias: Tensor) -> Tensor:
        s = scale * (z @ (z if y is None else y).mT) + bias
        own = torch.eye(len(z), dtype=torch.bool, device=z.device)
        negative = s.masked_fill(own, -torch.inf).logsumexp(1) - math.log(max(len(z) - 1, 1))
        return torch.logaddexp(negative - s.diag(), torch.zeros_like(negative))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two barely similar views, since a positive easily outscores a mean over negatives."""
        z, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in "zy")
        return z, 0.1 * z + y
