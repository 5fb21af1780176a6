"""Contrastive loss between image regions and attributes (ViLLA)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..channel import MAX, same
from ..ops.merge import log_sum_exp
from .base.loss import ScoreLoss, softplus
from .base.options import Temperature

__all__ = ["RegionAttributeLoss"]

VALID = "valid"
NEAREST = (MAX(),)
NEAREST_VALID = (MAX(pairs=(same(VALID),)),)
#: limit on the elements of attributes repeated per image, in memory at once
_HELD = 1 << 22


class RegionAttributeLoss(ScoreLoss, name="region_attribute"):
    r"""Contrast of images by their best region for each attribute (ViLLA, first stage).

    With :math:`s_{Ia} = \max_{r \in I} \cos(r, a) / \tau`, for every attribute a of an image I,

    .. math:: \ell_{Ia} = -\log \frac{e^{s_{Ia}}}{e^{s_{Ia}} + \sum_{I' \not\ni a} e^{s_{I'a}}}

    ``reduction='mean'`` averages over the pairs of an image and one of its attributes; other pairs
    have loss 0. Among equally similar regions, the first gets the gradient.

    Args:
        own_term: whether the sum has a term :math:`e^0` for every image that has the attribute:
            True in the released code, False in the paper. Default: False.
        temperature: tau, positive. Default: 0.07.

    Shape:
        regions: (B, R, D), R regions of B images.
        attributes: (A, D).
        labels: (B, A), bool, marks the attributes of each image.
        valid: (B, R), bool, False for padding; None for all True. An image without regions is
        ignored.
        Loss: (), or (B, A) for ``reduction='none'``.

    Source: Varma et al., ViLLA: Fine-Grained Vision-Language Representation Learning from
    Real-World Data, 2023 (its first stage).
    """

    own_term: bool = False
    _: KW_ONLY
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {
        "regions": "B R D",
        "attributes": "A D",
        "labels": "B A bool",
        "valid": "B R bool",
    }
    without: ClassVar[dict[str, str]] = {
        "group": "its images compete within one process",
        "memory": "a queue holds single embeddings, not sets of them",
        "return_stats": "an image has several attributes, each with negatives of its own",
    }

    def forward(
        self,
        regions: Tensor,
        attributes: Tensor,
        labels: Tensor,
        *,
        valid: Tensor | None = None,
    ) -> Tensor:
        place, best = self._nearest(regions, attributes, valid)
        first = regions.shape[1] * torch.arange(regions.shape[0], device=regions.device)
        place = torch.where(place < 0, -1, place + first)
        scores = self.scores(attributes, regions.flatten(0, 1)).gather(place).mT  # (B, A)
        scores = torch.where(best.mT.isnan(), best.mT.to(scores.dtype), scores)  # NaN has index -1
        some = scores != -torch.inf
        counted = labels & some
        scores = torch.where(some, scores, 0.0)
        others = torch.where(labels, 0.0 if self.own_term else -torch.inf, scores)
        negative = log_sum_exp(torch.where(some, others, -torch.inf)) if len(scores) else scores
        return self.reduce(softplus(negative - scores), counted)

    @torch.no_grad()
    def _nearest(
        self, regions: Tensor, attributes: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Index of each image's most similar region per attribute, (A, B), -1 for none; scores."""
        count = max(1, _HELD // max(attributes.numel(), 1))
        found = []
        for start in range(0, regions.shape[0], count):
            y = regions[start : start + count]
            options: dict[str, Any] = {}
            if valid is not None:
                given = valid[start : start + count].long()
                options = {"rows": {VALID: given.new_ones(1)}, "cols": {VALID: given}}
            scores = self.scores(attributes.expand(len(y), *attributes.shape), y)
            found.append(scores.stats(NEAREST if valid is None else NEAREST_VALID, **options)[0])
        if not found:
            none = attributes.new_zeros(attributes.shape[0], 0)
            return none.long(), none
        return torch.cat([p.index for p in found]).mT, torch.cat([p.value for p in found]).mT

    @staticmethod
    def reference(
        regions: Tensor,
        attributes: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        own_term: bool,
        valid: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the pairs that count in the mean."""
        s = scale * torch.einsum("brd,ad->bar", regions, attributes) + bias
        if valid is not None:
            s = s.masked_fill(~valid[:, None], -torch.inf)
        some = torch.ones_like(labels) if valid is None else valid.any(1)[:, None].expand_as(labels)
        best = s.amax(2).masked_fill(~some, 0.0)
        weights = ((~labels) & some).to(s.dtype)
        top = torch.nn.functional.relu(best.detach().amax(0)) if len(best) else best
        others = (weights * (best - top).exp()).sum(0)
        if own_term:
            others = others + (labels & some).sum(0) * (-top).exp()
        losses = torch.log((best - top).exp() + others) + top - best
        return torch.where(labels & some, losses, 0.0), labels & some

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Four regions per image and seven attributes; the first region is close to one of the
        image's attributes."""

        def normal(*shape: int) -> Tensor:
            return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

        cosine = min(0.9, math.sqrt(2 * math.log(4 * n + 2) / d))
        attributes, regions = normal(7, d), normal(n, 4, d)
        labels = torch.rand(n, 7, generator=generator) < 0.4
        shown = labels.double() * torch.rand(n, 7, generator=generator)
        near = cosine * attributes[shown.argmax(1)] + math.sqrt(1 - cosine**2) * normal(n, d)
        return torch.cat([near[:, None], regions[:, 1:]], 1), attributes, labels
