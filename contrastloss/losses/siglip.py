"""SigLIP's sigmoid loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..channel import INDEX, ROW, SUM, Channel, differs
from ..ops import Part
from ..options import Temperature
from .base.loss import nan_rows
from .base.match_loss import Asked, MatchLoss
from .base.positive_loss import reference_pairs
from .base.positives import MATCH, MATCHING, Listed, Positives
from .base.scores import Scores, at_least_one

__all__ = ["SigLIPLoss"]

_CHANNELS = (SUM("softplus", pairs=(differs(INDEX),)),)
#: of the negatives' terms and the positive's score
_PARTS = Part(0), Part(None, 1, softplus=True)
#: what positives cost, and what they would cost as negatives
_POSITIVE, _NEGATIVE = (SUM("softplus", sign=sign, pairs=MATCHING) for sign in (-1.0, 1.0))
_OTHERS = SUM("softplus", pairs=(differs(MATCH),))
_COUNT = SUM("one", pairs=MATCHING)


class SigLIPLoss(MatchLoss, name="siglip"):
    r"""SigLIP: sigmoid loss, a binary classification of every pair.

    :math:`\ell_i = \sum_j \log\bigl(1 + e^{-z_{ij} s_{ij}}\bigr), \qquad
    s_{ij} = \cos(x_i, y_j) / \tau + b, \quad z_{ij} = 2 [i = j] - 1`

    ``reduction='mean'`` divides the sum over all pairs by N. With several positives, of
    ``positives`` or ``x_ids`` and ``y_ids``, :math:`z_{ij}` is 1 for all of them, and the mean
    divides by the number of rows of x, also of those without a positive.

    Args:
        temperature: tau, positive. Default: 0.1.
        bias: b, a float, a 0-dim tensor or a Parameter; ``logit_bias`` overrides it. Default: -10.
        positive_weight: the weight of the terms of positives: ``'one'``, or ``'inverse_count'``,
            :math:`1 / k_i` with the number :math:`k_i` of row i's positives on all ranks.
            Default: ``'one'``.
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.

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
        x, y: (M, D) and (N, D); M = N without ``positives``, or ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows of x, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        positives: the places in y of the positives, where row i's is not row i of y, which may then
        have another number of rows: (M,), -1 for none; (P, 2), pairs of places in x and y, where a
        pair that occurs twice has two terms of a positive; or a tuple of offsets, (M + 1,), and
        places, (P,), of which row i's are those from offset i to before offset i + 1. Pairs and
        offsets do not go with ``return_stats``.
        x_ids, y_ids: (M,) and (N,), integers, in place of ``positives``: rows with equal ones are
        positives, also on other ranks. Columns with a row's id are left out of given ones with
        ``negatives_ids`` and of queues made with ``ids=True``; all others are negatives.
        log_q, negatives_log_q: None.
        row_weight: (M,), multiplies the rows' losses; 'mean' still divides by M. None for 1.
        Loss: (), or (M,) for ``reduction='none'``.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """

    temperature: Temperature = 0.1
    bias: float | Tensor = -10.0
    _: KW_ONLY
    positive_weight: Literal["one", "inverse_count"] = "one"
    in_batch_negatives: bool = True
    gather_negatives: bool = True

    without: ClassVar[dict[str, str]] = {
        "log_q": "its terms have no softmax whose sampling it would correct",
        "negatives_log_q": "its terms have no softmax whose sampling it would correct",
        "label_smoothing": "its terms are no cross entropies over columns",
    }

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS

    def scores(
        self,
        x: Tensor,
        y: Tensor | None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        **options: Any,
    ) -> Scores:
        bias = self.bias if logit_bias is None else logit_bias
        return super().scores(x, y, logit_scale, bias, **options)

    def asked(self) -> tuple[Asked, Asked]:
        return {("positive", ROW): _POSITIVE, ("count", ROW): _COUNT}, {("others", ROW): _OTHERS}

    def matched(self, scores: Scores, positives: Positives) -> Any:
        match = positives.match(scores)
        inside, outside = self.values(scores, match)
        positive, negative = inside["positive", ROW], outside["others", ROW]
        if isinstance(match, Listed) and self.in_batch_negatives:
            assert scores.y is not None
            sizes = scores.x.shape[0], scores.y.shape[0]
            (own,) = match.once().stats((_NEGATIVE,), sizes)
            negative = negative - own  # those of all columns, but for positives
        count = inside["count", ROW]
        if self.positive_weight == "inverse_count":
            positive = positive / at_least_one(count)
        losses = scores.weighted(positive + negative)
        loss = self.reduce(losses, None, nan_rows(scores.x))
        return self.with_statistics(loss, inside, outside, count > 0)

    def parts(self) -> Sequence[Part]:
        return _PARTS

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        positive_weight: str,
        in_batch_negatives: bool,
        negatives_mask: Tensor | None = None,
    ) -> Tensor:
        products, there = reference_pairs(x, y, negatives, negatives_mask, in_batch_negatives)
        s = scale * products + bias
        softplus = torch.nn.functional.softplus
        negative = torch.where(there, softplus(s, threshold=1e9), 0.0).sum(1)
        return negative + softplus(-s.diag(), threshold=1e9)
