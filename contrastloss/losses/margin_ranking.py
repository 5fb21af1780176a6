"""Margin ranking loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from ..channel import COL, INDEX, ROW, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.blocks import BATCH, Stored, Turned
from .base.positive_loss import CrossLoss, reference_pairs
from .base.scores import Scores

__all__ = ["MarginRankingLoss"]

BOUND = "bound"
_OTHERS = (differs(INDEX),)
BY_ROW, BY_COL = (SUM("relu", shift=BOUND, pairs=_OTHERS, axis=axis) for axis in (ROW, COL))


class MarginRankingLoss(CrossLoss, name="margin_ranking"):
    r"""Margin ranking: each positive should outscore the row's negatives by a margin.

    :math:`\ell_i = \frac{1}{N - 1} \sum_{j \ne i} [m - s_{ii} + s_{ij}]_+,
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    Args:
        temperature: tau, positive. Default: 1.
        margin: m. Default: 0.6.
        symmetric: average with the loss over columns, :math:`[m - s_{ii} + s_{ji}]_+`. Not
            supported together with ``negatives``. Default: False.
        in_batch_negatives: whether the other rows of y are negatives; False leaves the given and
            the stored ones. Default: True.

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
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets; the mean includes them.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives, which the mean includes; not supported
        together with ``symmetric``.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has loss 0.

    Source: Kiros et al., Unifying Visual-Semantic Embeddings with Multimodal Neural Language
    Models, 2014; Carvalho et al., Self-Supervised Contrastive Learning for Robust Audio-Sheet Music
    Retrieval Systems, 2023.
    """

    temperature: Temperature = 1.0
    margin: float = 0.6
    symmetric: bool = False
    _: KW_ONLY
    in_batch_negatives: bool = True

    per_negative = True

    def check(self) -> None:
        super().check()
        if self.symmetric and not self.in_batch_negatives:
            raise ValueError("in_batch_negatives: got False with symmetric=True, expected True")

    def evaluate(
        self,
        scores: Scores,
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> Any:
        if self.symmetric and scores.blocks != (BATCH,):
            stored = any(isinstance(block, (Stored, Turned)) for block in scores.blocks)
            name = "memory" if stored else "negatives"
            raise ValueError(f"{name}: got some with symmetric=True, expected None")
        positive = scores.aligned()
        bound = {**(rows or {}), BOUND: positive - self.margin}
        if self.in_one_pass(scores) and scores.count > 1:  # without negatives NaN would be lost
            return self._at_once(scores, bound, bound, positive)
        channels = self._channels if scores.apart is None else self._channels_by_ids
        own, extra = self.measure(scores, channels, bound, bound)
        if BATCH in scores.blocks:
            extra = self.with_positive(scores, extra, positive)
        losses = scores.weighted(self.combine(*own, positive, scores))
        nan = positive.isnan()
        return self.finish(losses, extra, positive, aligned=scores, nan=nan)

    def parts(self) -> Sequence[Part]:
        return (Part(0, weight=0.5), Part(1, weight=0.5)) if self.symmetric else (Part(0),)

    def channels(self) -> tuple[Channel, ...]:
        return (BY_ROW, BY_COL) if self.symmetric else (BY_ROW,)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        margin: float,
        symmetric: bool,
        in_batch_negatives: bool,
    ) -> Tensor:
        products, there = reference_pairs(x, y, negatives, None, in_batch_negatives)
        s = scale * products + bias
        positive, by_col = s.diag()[:, None], s[:, : len(x)].mT
        count = there.sum(1).clamp_min(1)
        losses = (there * torch.relu(margin - positive + s)).sum(1) / count
        if symmetric:
            losses = (losses + (there * torch.relu(margin - positive + by_col)).sum(1) / count) / 2
        return losses

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positives that score like hard negatives: no margin is met at every temperature."""
        x, y = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in "xy")
        return x, 0.1 * x + y
