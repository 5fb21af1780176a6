"""InfoNCE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor

from ..channel import EXPECT, INDEX, MAX, Channel, differs
from ..ops.merge import log_sum_exp
from ..options import Count, NonNegative, Temperature
from .base.blocks import ID
from .base.loss import softplus
from .base.positive_loss import BY_ROW, CrossLoss, reference_pairs
from .base.scores import Scores

__all__ = ["InfoNCELoss"]

#: negatives weighted by hardness
_WEIGHTED = EXPECT(pairs=(differs(INDEX),))
_HARDEST = MAX(pairs=(differs(INDEX),))


class InfoNCELoss(CrossLoss, name="info_nce"):
    r"""InfoNCE: row i of y is the positive of row i of x, against the other rows of y and further
    negatives n.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}
        {e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}} + \sum_k e^{\cos(x_i, n_k) / \tau}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    With ``top_k`` or ``hardness``, the statistic ``lse`` covers the positive and the selected,
    weighted negatives.

    Args:
        temperature: tau, positive. Default: 0.1.
        top_k: use only the ``top_k`` negatives with the largest scores of each row, at least 1;
            None uses all. Default: None.
        hardness: alpha >= 0. Negatives are weighted by :math:`e^{\alpha \cos(x_i, y_j)}`, a
            constant without gradient (``hardness_strength`` in sentence-transformers); 0 gives
            equal weights. Default: 0.
        in_batch_negatives: whether the other rows of y are negatives; False leaves the given and
            the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.
        group: not supported together with ``top_k``.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (M, D) with
        offsets.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has loss 0.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018;
    hardness: Lan et al., LLaVE, 2025.
    """

    temperature: Temperature = 0.1
    top_k: Count | None = None
    hardness: NonNegative = 0.0
    _: KW_ONLY
    in_batch_negatives: bool = True
    gather_negatives: bool = True

    def check(self) -> None:
        super().check()
        if self.top_k is not None and self.group is not None:
            raise ValueError(f"top_k: got {self.top_k} with a group, expected None")

    @property
    def stops_gradients(self) -> bool:
        return self.hardness != 0.0

    def evaluate(
        self,
        scores: Scores,
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> Any:
        if not (self.top_k or self.hardness):
            return super().evaluate(scores, rows, cols)
        positive = scores.aligned()
        negative, extra = (self._hardest if self.top_k else self._weighted)(scores)
        extra.append(torch.logaddexp(negative.detach(), positive.detach()))
        return self.finish(softplus(negative - positive), extra, positive, aligned=scores)

    def _hardest(self, scores: Scores) -> tuple[Tensor, list[Tensor]]:
        """Log-sum-exp of each row's weighted ``top_k`` scores, and its largest score."""
        assert self.top_k is not None
        own = {} if scores.apart is None else {ID: scores.apart}
        pairs = self.negatives if scores.apart is None else (differs(ID),)
        found = scores.topk(self.top_k, pairs=pairs, rows=own, cols=own).values
        values = found
        if self.hardness:
            scale = scores.inverse_temperature
            scale = scale if scores.row_scale is None else scores.row_scale[..., None]
            cosines = (found if scores.bias is None else found - scores.bias) / scale
            values = found + self.hardness * cosines.detach()
        return log_sum_exp(values.movedim(-1, 0)), [found[..., 0]]

    def _weighted(self, scores: Scores) -> tuple[Tensor, list[Tensor]]:
        """Log-sum-exp of each row's weighted scores, and its largest unweighted score.

        Let c be the cosines. The value and the softmax p come from the scores
        (scale + alpha) c + bias. The gradient is that of sum p (scale c + bias) with p constant.
        The log-sum-exp times scale / (scale + alpha) gives the exact gradient for c; the second
        term of ``slope`` adds the remaining gradient for scale and bias.
        """
        scale, bias = scores.inverse_temperature, scores.bias
        total = scale + self.hardness
        raised = scores.but(**{"scale" if scores.row_scale is None else "row_scale": total})
        share = scale / total
        share = share.detach() if isinstance(share, Tensor) else share
        channels: tuple[Channel, ...] = (_WEIGHTED, _HARDEST)[: 1 + self.return_stats]
        own = None
        if scores.apart is not None:
            channels, own = tuple(map(self.by_ids, channels)), {ID: scores.apart}
        expect, *best = raised.stats(channels, own, own)
        offset = 0.0 if bias is None else bias

        def plain(score: Tensor) -> Tensor:
            """The score without its weight; only scale and bias receive a gradient."""
            cosine = (score - offset) / total
            return scale * cosine.detach() + offset

        none = expect.lse == -torch.inf
        lse = torch.where(none, 0.0, expect.lse)
        slope = share * lse + (1 - share) * plain(expect.value.detach())
        lse = lse.detach() + (slope - slope.detach())
        return torch.where(none, -torch.inf, lse), [plain(found.value) for found in best]

    def channels(self) -> tuple[Channel, ...]:
        return (BY_ROW,)

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
        in_batch_negatives: bool,
        negatives_mask: Tensor | None = None,
    ) -> Tensor:
        cosine, there = reference_pairs(x, y, negatives, negatives_mask, in_batch_negatives)
        positive = (scale * cosine + bias).diag()[:, None]
        s = scale * cosine + bias + hardness * cosine.detach()
        s = s.masked_fill(~there, -torch.inf)
        if top_k is not None:
            s = s.topk(min(top_k, s.shape[1])).values
        target = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return torch.nn.functional.cross_entropy(
            torch.cat([positive, s], 1), target, reduction="none"
        )
