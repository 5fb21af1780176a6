"""CleanCLIP."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ..options import Temperature
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.positive_loss import BY_COL, BY_ROW, CrossLoss

__all__ = ["CleanCLIPLoss"]

ACROSS = (BY_ROW, BY_COL, CrossLoss.positive)
WITHIN = (BY_ROW, CrossLoss.positive)


class CleanCLIPLoss(PairLoss, name="clean_clip"):
    r"""CLIP plus InfoNCE between each modality and its augmented view.

    :math:`\ell_i = \text{inter}\; \text{CLIP}_i(x, y) + \tfrac12\, \text{intra}
    \left(\text{InfoNCE}_i(x, \tilde x) + \text{InfoNCE}_i(y, \tilde y)\right)`

    for images x and texts y, with one temperature for all terms. The terms within a modality are
    one-directional, from x and y to their augmentations. The statistics of ``return_stats`` are
    those of the images with the texts.

    Args:
        inter: weight of the CLIP term. Default: 1.
        intra: weight of the terms within a modality. Default: 1.
        temperature: tau, positive. Default: 0.07.

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
        image, text, image_augmented, text_augmented: (N, D).
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Bansal et al., CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive
    Learning, 2023.
    """

    inter: float = 1.0
    intra: float = 1.0
    _: KW_ONLY
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = dict.fromkeys(
        ("image", "text", "image_augmented", "text_augmented"), "N D"
    )
    without: ClassVar[dict[str, str]] = {
        "memory": "every term has columns of another kind, and a queue holds one kind"
    }
    negatives = CrossLoss.negatives

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        image_augmented: Tensor,
        text_augmented: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        scores = self.scores(image, text, logit_scale, logit_bias)
        (by_row, by_col, matched), extra = self.measure(scores, ACROSS)
        across = softplus(by_row - matched) + softplus(by_col - matched)
        within = torch.zeros_like(across)
        for x, y in ((image, image_augmented), (text, text_augmented)):
            negative, positive = scores.between(x, y).stats(WITHIN)
            within = within + softplus(negative - positive)
        losses = 0.5 * (self.inter * across + self.intra * within)
        return self.finish(losses, extra, matched)

    @staticmethod
    def reference(
        image: Tensor,
        text: Tensor,
        image_augmented: Tensor,
        text_augmented: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        inter: float,
        intra: float,
    ) -> Tensor:
        def one_way(s: Tensor) -> Tensor:
            target = torch.arange(len(s), device=s.device)
            return cross_entropy(s, target, reduction="none")

        pairs = (image, text), (image, image_augmented), (text, text_augmented)
        s, *own = (scale * (x @ y.mT) + bias for x, y in pairs)
        across, within = one_way(s) + one_way(s.mT), one_way(own[0]) + one_way(own[1])
        return (inter * across + intra * within) / 2

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Four embeddings around a shared direction per instance."""
        cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
        x = normalize(torch.randn(5, n, d, generator=generator, dtype=torch.float64), dim=-1)
        return tuple(1.5 * (math.sqrt(cosine) * x[0] + math.sqrt(1 - cosine) * x[1:]))
