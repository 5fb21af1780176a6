"""InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from ..channel import EXPECT, INDEX, LSE, MAX, Channel, differs
from ..memory import EmbeddingQueue
from ..ops.merge import log_sum_exp
from .base.checks import check_negatives, check_pair, check_queue, finite
from .base.pair_loss import CrossLoss, softplus
from .base.scores import Scores
from .base.stored import beside, held_by, over_stored, stored

__all__ = ["InfoNCELoss"]

#: the channels for given negatives, every one of which counts
ALL = LSE()
EXTRA = (MAX(), LSE())
STORED = stored(ALL, *EXTRA)
#: for weights by hardness, of the other rows of y and of given negatives
OTHERS = EXPECT(pairs=(differs(INDEX),)), MAX(pairs=(differs(INDEX),))
GIVEN = EXPECT(), MAX()


class InfoNCELoss(CrossLoss, name="info_nce"):
    r"""Row i of x against row i of y; the other rows of y, or ``negatives``, are its negatives.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    Args:
        temperature: tau, 0.1.
        top_k: only so many of a row's negatives, those of the largest scores; None for all.
        hardness: alpha; negatives are weighted by :math:`e^{\alpha \cos(x_i, y_j)}`, a constant
            without gradient (in sentence-transformers ``hardness_strength``); 0 for equal weights.
        group: without ``top_k`` only.

    Shape:
        x, y: (N, D). negatives: (K, D), shared by all rows (with a group, of all ranks), or
        (N, K, D), row i's own; with them the other rows of y are no negatives. memory: an
        EmbeddingQueue, whose columns are negatives beside the other rows of y; ids: (N,), for one
        made with ``ids=True``, leaves out columns of the row's own instance. Loss: (), or (N,) for
        ``reduction='none'``. No negative at all: 0. With ``top_k`` or ``hardness`` the
        statistic ``lse`` is that of the positive and the weighted negatives that count.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018;
    hardness: Lan et al., LLaVE, 2025.
    """

    temperature: float | Tensor = 0.1
    top_k: int | None = None
    hardness: float = 0.0
    channels = (LSE(pairs=(differs(INDEX),)),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k is not None:
            if type(self.top_k) is not int or self.top_k < 1:
                raise ValueError(f"top_k: got {self.top_k!r}, expected an integer of at least 1")
            if self.group is not None:
                raise ValueError(f"top_k: got {self.top_k} with a group, expected None")
        finite("hardness", self.hardness, negative=False)

    @property
    def stops_gradients(self) -> bool:
        return self.hardness != 0.0

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if memory is not None or ids is not None:
            if negatives is not None:
                raise ValueError("memory: got one beside negatives, expected only one of them")
            if self.top_k or self.hardness:
                raise ValueError("memory: got one with top_k or hardness, expected neither")
            return self._with_memory(x, y, memory, ids, logit_scale, logit_bias)
        if negatives is None and not (self.top_k or self.hardness):
            return super().forward(x, y, logit_scale=logit_scale, logit_bias=logit_bias)
        check_pair(self, x, y, logit_scale, logit_bias)
        if negatives is not None:
            check_negatives(self, negatives, x)
        pairs = self.scores(x, y, logit_scale, logit_bias, alone=True)
        positive = pairs.aligned()
        own = negatives is not None and negatives.ndim == 3  # one row against K columns, N times
        rows, columns = x[:, None] if own else x, y if negatives is None else negatives
        scores = self.scores(rows, columns, logit_scale, logit_bias, alone=own)
        if self.top_k or self.hardness:
            channels = OTHERS if negatives is None else GIVEN
            choose = self._hardest if self.top_k else self._weighted
            negative, extra = choose(scores, channels)
        else:
            channels = (ALL, *(EXTRA if self.return_stats else ()))
            (negative,), extra = self.split(scores.stats(channels))
        if own:
            negative, extra = negative.squeeze(1), [value.squeeze(1) for value in extra]
        if self.top_k or self.hardness:
            extra = [*extra, torch.logaddexp(negative.detach(), positive.detach())]
        best = pairs.surpassing(positive) if self.return_stats else None
        return self.finish(softplus(negative - positive), extra, positive, best_positive=best)

    def _hardest(self, scores: Scores, channels: Sequence[Channel]) -> tuple[Tensor, list[Tensor]]:
        """Log-sum-exp of the largest scores of every row, weighted, and the largest score."""
        assert self.top_k is not None
        found = scores.topk(self.top_k, pairs=channels[0].pairs).values
        values = found
        if self.hardness:
            scale = scores.inverse_temperature
            scale = scale if scores.row_scale is None else scores.row_scale[..., None]
            cosines = (found if scores.bias is None else found - scores.bias) / scale
            values = found + self.hardness * cosines.detach()
        return log_sum_exp(values.movedim(-1, 0)), [found[..., 0]]

    def _weighted(self, scores: Scores, channels: Sequence[Channel]) -> tuple[Tensor, list[Tensor]]:
        """Log-sum-exp of the weighted scores of every row, and the largest score.

        With c the cosines, value and softmax p are those of the scores (scale + alpha) c + bias.
        The gradient is that of p (scale c + bias) with p held: of log-sum-exp the share
        scale / (scale + alpha), which is exact for c, and the rest of what scale and bias take.
        """
        raised, scale, bias = copy(scores), scores.inverse_temperature, scores.bias
        if scores.row_scale is None:
            raised.scale = raised.scale + self.hardness
        else:
            raised.row_scale = scores.row_scale + self.hardness
        total = scale + self.hardness
        share = scale / total
        share = share.detach() if isinstance(share, Tensor) else share
        expect, *best = raised.stats(channels if self.return_stats else channels[:1])
        offset = 0.0 if bias is None else bias

        def plain(score: Tensor) -> Tensor:
            """A score without the weight, whose gradient is that of scale and bias alone."""
            cosine = (score - offset) / total
            return scale * cosine.detach() + offset

        none = expect.lse == -torch.inf
        lse = torch.where(none, 0.0, expect.lse)
        slope = share * lse + (1 - share) * plain(expect.value.detach())
        lse = lse.detach() + (slope - slope.detach())
        return torch.where(none, -torch.inf, lse), [plain(found.value) for found in best]

    def _with_memory(
        self,
        x: Tensor,
        y: Tensor,
        memory: EmbeddingQueue | None,
        ids: Tensor | None,
        logit_scale: Tensor | float | None,
        logit_bias: Tensor | float | None,
    ) -> Any:
        check_pair(self, x, y, logit_scale, logit_bias)
        memory = check_queue(self, "memory", memory, ("x", x), x.shape[0], ids)
        scores = self.scores(x, y, logit_scale, logit_bias)
        channels = (*self.channels, *(self.extra if self.return_stats else ()))
        *batch, positive = scores.stats((*channels, self.positive))
        kept = over_stored(scores, STORED, held_by(memory), count=len(channels), ids=ids)
        (negative,), extra = self.split(beside(channels, batch, kept))
        return self.finish(self.combine(negative, positive, scores), extra, positive)

    def combine(self, negative: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        return softplus(negative - positive)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        top_k: int | None,
        hardness: float,
    ) -> Tensor:
        cosine = x @ y.mT
        positive = (scale * cosine + bias).diag()[:, None]
        if negatives is not None:
            k = negatives.expand(len(x), *negatives.shape[-2:])
            cosine = torch.einsum("nd,nkd->nk", x, k)
        s = scale * cosine + bias + hardness * cosine.detach()
        if negatives is None:
            s = s.fill_diagonal_(-torch.inf)
        if top_k is not None:
            s = s.topk(min(top_k, s.shape[1])).values
        target = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return torch.nn.functional.cross_entropy(
            torch.cat([positive, s], 1), target, reduction="none"
        )
