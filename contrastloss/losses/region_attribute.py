"""Contrastive loss between image regions and attributes (ViLLA)."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .. import ops
from ..channel import MAX, same
from ..ops.merge import log_sum_exp
from ..ops.opaque import opaque
from ..options import Temperature
from .base.loss import ScoreLoss, softplus
from .base.scores import cosine, wide

__all__ = ["RegionAttributeLoss"]

VALID = "valid"
NEAREST = (MAX(),)
NEAREST_VALID = (MAX(pairs=(same(VALID),)),)
#: limit on the elements of attributes repeated per image, in memory at once
_HELD = 1 << 22


class RegionAttributeLoss(ScoreLoss, name="region_attribute"):
    r"""Contrast of images by their best region for each attribute (ViLLA, first stage).

    With :math:`s_{Ia} = \max_{r \in I} \cos(r, a) / \tau`, for every attribute a of an image I,

    :math:`\ell_{Ia} = -\log \frac{e^{s_{Ia}}}{e^{s_{Ia}} + \sum_{I' \not\ni a} e^{s_{I'a}}}`

    ``reduction='mean'`` averages over the pairs of an image and one of its attributes; other pairs
    have loss 0. Among equally similar regions, the first gets the gradient.

    Args:
        own_term: whether the sum has a term :math:`e^0` for every image that has the attribute:
            True in the released code, False in the paper. Default: False.
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        regions: (B, R, D), R regions of B images; or (B, R, A, D), with a projection for each
        attribute, as the released code has it by default: r is then the region's own for a.
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
        "regions": "B R D | B R A D",
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
        if regions.ndim == 4:
            s = self._of_own_projections(regions, attributes, valid)
        else:
            s = self._of_shared_projections(regions, attributes, valid)
        some = s != -torch.inf
        counted = labels & some
        s = torch.where(some, s, 0.0)
        others = torch.where(labels, 0.0 if self.own_term else -torch.inf, s)
        negative = log_sum_exp(torch.where(some, others, -torch.inf)) if s.shape[0] else s
        return self.reduce(softplus(negative - s), counted)

    def _of_shared_projections(
        self, regions: Tensor, attributes: Tensor, valid: Tensor | None
    ) -> Tensor:
        """The best scores, (B, A), -inf for an image without regions."""
        scores = self.scores(attributes, regions.flatten(0, 1))
        how = (self.normalize, scores.compute_dtype, self.backend)
        place, best = _nearest(regions.detach(), attributes.detach(), valid, *how)
        first = regions.shape[1] * torch.arange(regions.shape[0], device=regions.device)
        place = torch.where(place < 0, -1, place + first)
        s = scores.gather(place).mT
        return torch.where(best.mT.isnan(), torch.nan, s)  # NaN has index -1

    def _of_own_projections(
        self, regions: Tensor, attributes: Tensor, valid: Tensor | None
    ) -> Tensor:
        """The same. A region meets one attribute per projection, so that their scores are no more
        than the features."""
        a, b = wide(regions), wide(attributes)
        s = (cosine(a, b) if self.normalize else (a * b).sum(-1)) / self.temperature
        if not s.shape[1]:
            return s.new_full(s[:, :0].sum(1).shape, -torch.inf)
        if valid is not None:
            s = torch.where(valid[..., None], s, -torch.inf)
        return s.max(1).values

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
        of = "brad,ad->bar" if regions.ndim == 4 else "brd,ad->bar"
        s = scale * torch.einsum(of, regions, attributes) + bias
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


def _none_yet(regions: Tensor, attributes: Tensor, *others: Any) -> list[Tensor]:
    size = attributes.shape[0], regions.shape[0]
    value = attributes.new_empty(size, dtype=ops.stat_dtype(attributes))
    return [value.long(), value]


@opaque(
    "nearest_region",
    "Tensor regions, Tensor attributes, Tensor? valid, "
    "bool normalize, ScalarType compute_dtype, str? backend",
    _none_yet,
)
def _nearest(
    regions: Tensor,
    attributes: Tensor,
    valid: Tensor | None,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str | None,
) -> list[Tensor]:
    """Index of each image's most similar region per attribute, (A, B), -1 for none; cosines."""
    results = _none_yet(regions, attributes)
    count = max(1, _HELD // max(attributes.numel(), 1))
    channels = NEAREST if valid is None else NEAREST_VALID
    for start in range(0, regions.shape[0], count):
        part = slice(start, start + count)
        y = regions[part]
        options: dict[str, Any] = {}
        if valid is not None:
            given = valid[part].long()
            options = {"rows": {VALID: given.new_ones(1)}, "cols": {VALID: given}}
        x = attributes.expand(y.shape[0], *attributes.shape)
        (found,) = ops.pair_stats(
            x,
            y,
            channels,
            cosine=normalize,
            compute_dtype=compute_dtype,
            backend=backend,
            **options,
        )
        for result, value in zip(results, (found.index, found.value), strict=True):
            result[:, part] = value.mT
    return results
