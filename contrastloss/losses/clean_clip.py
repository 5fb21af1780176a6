"""CleanCLIP."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from .base.checks import check_pair
from .base.loss import ScoreLoss, softplus
from .base.options import Temperature
from .base.pair_loss import BY_COL, BY_ROW, CrossLoss

__all__ = ["CleanCLIPLoss"]

ACROSS = (BY_ROW, BY_COL, CrossLoss.positive)
WITHIN = (BY_ROW, CrossLoss.positive)


class CleanCLIPLoss(ScoreLoss, name="clean_clip"):
    r"""CLIP plus InfoNCE between each modality and its augmented view.

    .. math:: \ell_i = \text{inter}\; \text{CLIP}_i(x, y) + \tfrac12\, \text{intra}
        \left(\text{InfoNCE}_i(x, \tilde x) + \text{InfoNCE}_i(y, \tilde y)\right)

    for images x and texts y, with one temperature for all terms. The terms within a modality are
    one-directional, from x and y to their augmentations.

    Args:
        inter: weight of the CLIP term. Default: 1.
        intra: weight of the terms within a modality. Default: 1.
        temperature: tau, positive. Default: 0.07.

    Shape:
        image, text, image_augmented, text_augmented: (N, D).
        logit_scale: an already exponentiated scale, which overrides the temperature.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Bansal et al., CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive
    Learning, 2023.
    """

    inter: float = 1.0
    intra: float = 1.0
    _: KW_ONLY
    temperature: Temperature = 0.07

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        image_augmented: Tensor,
        text_augmented: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
    ) -> Tensor:
        for name, value in (
            ("text", text),
            ("image_augmented", image_augmented),
            ("text_augmented", text_augmented),
        ):
            check_pair(self, image, value, logit_scale, None, ("image", name))
        by_row, by_col, positive = self.scores(image, text, logit_scale).stats(ACROSS)
        across = softplus(by_row - positive) + softplus(by_col - positive)
        within = torch.zeros_like(across)
        for x, y in ((image, image_augmented), (text, text_augmented)):
            negative, positive = self.scores(x, y, logit_scale).stats(WITHIN)
            within = within + softplus(negative - positive)
        return self.reduce(0.5 * (self.inter * across + self.intra * within))

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
        def one_way(x: Tensor, y: Tensor) -> Tensor:
            target = torch.arange(len(x), device=x.device)
            return cross_entropy(scale * (x @ y.mT) + bias, target, reduction="none")

        across = one_way(image, text) + one_way(text, image)
        within = one_way(image, image_augmented) + one_way(text, text_augmented)
        return (inter * across + intra * within) / 2

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Four embeddings around a shared direction per instance."""
        cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
        x = normalize(torch.randn(5, n, d, generator=generator, dtype=torch.float64), dim=-1)
        return tuple(1.5 * (math.sqrt(cosine) * x[0] + math.sqrt(1 - cosine) * x[1:]))
