"""CLIP between several modalities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ..options import Temperature, shape
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.positive_loss import BY_COL, BY_ROW, CrossLoss

__all__ = ["MultiModalLoss"]

#: log-sum-exp by row and by column, and the positive's score
CHANNELS = (BY_ROW, BY_COL, CrossLoss.positive)


class MultiModalLoss(PairLoss, name="multi_modal"):
    r"""CLIP loss summed over all pairs of several modalities.

    :math:`\ell_i = \sum_{a < b} w_{ab} \sum_l \text{CLIP}_i(x^a_l, x^b_l)`

    over the pairs of modalities, in the order (0, 1), (0, 2), ..., (1, 2), ..., and over layers l
    if embeddings of several layers are given.

    Args:
        weights: w, one number per pair of modalities in that order; None for 1. Pairs with weight 0
            are skipped. Default: None.
        directions: ``'mean'`` of the cross entropies over rows and over columns, as in CLIP, or
            their ``'sum'``, as in AstroM3. Default: ``'mean'``.
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
        embeddings: two or more tensors (N, D), or (L, N, D) for L layers, the latter without group.
        logit_scales: one already exponentiated scale per pair, as numbers, 0-dim tensors or a
        tensor (P,); they override the temperature, as ``logit_scale`` does for all pairs.
        Loss: (), or (N,) for ``reduction='none'``. Layers are summed, and the mean is over N.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    2021; Rizhko and Bloom, AstroM3, 2024; layers: Sun et al., HiCMAE, 2024.
    """

    weights: tuple[float, ...] | None = None
    _: KW_ONLY
    directions: Literal["mean", "sum"] = "mean"
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {"embeddings": "... N D"}
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    without: ClassVar[dict[str, str]] = {
        "memory": "every term has columns of another kind, and a queue holds one kind",
        "return_stats": "it sums several terms with scores of their own",
    }

    def forward(
        self,
        *embeddings: Tensor,
        logit_scales: Tensor | Sequence[Tensor | float] | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if len(embeddings) < 2:
            raise ValueError(f"embeddings: got {len(embeddings)}, expected at least two")
        sizes, layers = embeddings[0].shape, "" if self.group is not None else " or (L, N, D)"
        if len(sizes) > (2 if self.group is not None else 3) or not all(sizes[:-2]):
            raise ValueError(f"embeddings[0]: got shape {tuple(sizes)}, expected (N, D){layers}")
        if logit_scale is not None and logit_scales is not None:
            raise ValueError("logit_scale: got a value and logit_scales, expected one of them")
        pairs = list(combinations(range(len(embeddings)), 2))
        weights = self._per_pair("weights", self.weights, len(pairs))
        scales = self._per_pair("logit_scales", logit_scales, len(pairs))
        factor = 0.5 if self.directions == "mean" else 1.0
        terms, spread = [], None
        for (a, b), weight, scale in zip(pairs, weights, scales, strict=True):
            weight = 1.0 if weight is None else weight
            if weight == 0.0:
                continue
            scale = logit_scale if scale is None else scale
            scores = self.scores(embeddings[a], embeddings[b], scale, logit_bias, spread=spread)
            spread = scores.spread
            by_row, by_col, positive = scores.stats(CHANNELS)
            rows = softplus(by_row - positive) + softplus(by_col - positive)
            rows = factor * weight * rows
            terms.append(rows if rows.ndim == 1 else rows.sum(0))
        if not terms:
            raise ValueError(f"weights: got {self.weights}, expected at least one nonzero weight")
        return self.reduce(torch.stack(terms).sum(0))

    @staticmethod
    def _per_pair(name: str, values: Tensor | Sequence[Tensor | float] | None, pairs: int) -> list:
        if values is None:
            return [None] * pairs
        if isinstance(values, Tensor) and values.ndim != 1:
            raise ValueError(f"{name}: got shape {shape(values)}, expected ({pairs},)")
        if len(values) != pairs:
            raise ValueError(f"{name}: got {len(values)}, expected {pairs}, one per pair")
        return list(values)

    @staticmethod
    def reference(
        *embeddings: Tensor,
        scale: Tensor,
        bias: Tensor,
        weights: tuple[float, ...] | None,
        directions: str,
    ) -> Tensor:
        pairs = list(combinations(embeddings, 2))
        total = torch.zeros_like(embeddings[0][..., 0])
        for (x, y), weight in zip(pairs, weights or [1.0] * len(pairs), strict=True):
            s = scale * (x @ y.mT) + bias
            both = torch.stack([s, s.mT]).flatten(0, -3)
            target = torch.arange(s.shape[-1], device=s.device).expand(len(both), -1)
            rows = cross_entropy(both.mT, target, reduction="none").view(2, *s.shape[:-1])
            total = total + weight * (rows.mean(0) if directions == "mean" else rows.sum(0))
        return total if total.ndim == 1 else total.sum(0)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Three modalities that share one direction per instance."""
        cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
        x = normalize(torch.randn(4, n, d, generator=generator, dtype=torch.float64), dim=-1)
        return tuple(1.5 * (math.sqrt(cosine) * x[0] + math.sqrt(1 - cosine) * x[1:]))
