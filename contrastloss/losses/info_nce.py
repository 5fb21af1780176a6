"""InfoNCE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor

from ..channel import EXPECT, INDEX, MAX, Channel, differs
from ..ops import Part, row_losses
from ..ops.merge import log_sum_exp
from ..options import Count, Fraction, NonNegative, Temperature
from .base.blocks import BATCH, ID
from .base.loss import softplus
from .base.match_loss import SoftmaxLoss
from .base.positive_loss import BY_ROW, SOFTMAX, reference_pairs, smooth_cross_entropy
from .base.positives import Positives
from .base.scores import Scores

__all__ = ["InfoNCELoss"]

#: negatives weighted by hardness
_WEIGHTED = EXPECT(pairs=(differs(INDEX),))
_HARDEST = MAX(pairs=(differs(INDEX),))


class InfoNCELoss(SoftmaxLoss, name="info_nce"):
    r"""InfoNCE: row i of y is the positive of row i of x, against the other rows of y and further
    negatives n.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}
    {e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}} + \sum_k e^{\cos(x_i, n_k) / \tau}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With several positives :math:`P_i`, of ``positives`` or ``x_ids`` and ``y_ids``, the denominator
    :math:`Z_i` has all rows of y, and

    :math:`\text{out: } \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_{ip}}}{Z_i},
    \qquad
    \text{in: } \ell_i = -\log \sum_{p \in P_i} \frac{e^{s_{ip}}}{Z_i}.`

    A row without a positive then has loss 0 and is not counted.

    With ``top_k`` or ``hardness``, the statistic ``lse`` covers the positive and the selected,
    weighted negatives.

    Args:
        temperature: tau, positive. Default: 0.1.
        top_k: use only the ``top_k`` negatives with the largest scores of each row, at least 1;
            None uses all. Default: None.
        hardness: alpha >= 0. Negatives are weighted by :math:`e^{\alpha \cos(x_i, y_j)}`, a
            constant without gradient (``hardness_strength`` in sentence-transformers); 0 gives
            equal weights. Default: 0.
        variant: ``'out'``, the mean of the logarithms of several positives, or ``'in'``, the
            logarithm of their sum (MIL-NCE). Default: ``'out'``.
        in_batch_negatives: whether the other rows of y are negatives; False leaves the given and
            the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.
        label_smoothing: epsilon, from 0 to 1. The loss is :math:`(1 - \epsilon)\, \ell_i` plus
            epsilon times the mean of :math:`-\log p_{ij}` over the columns j of the row, p its
            softmax, as :func:`torch.nn.functional.cross_entropy` has it; not together with
            ``top_k`` or ``hardness``. Default: 0.
        group: not supported together with ``top_k``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (M, D) and (N, D); M = N without ``positives``, or ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        positives: the places in y of the positives, where row i's is not row i of y, which may then
        have another number of rows: (M,), -1 for none; (P, 2), pairs of places in x and y, where a
        pair that occurs twice counts twice; or a tuple of offsets, (M + 1,), and places, (P,), of
        which row i's are those from offset i to before offset i + 1. Pairs and offsets do not go
        with ``return_stats``.
        x_ids, y_ids: (M,) and (N,), integers, in place of ``positives``: rows with equal ones are
        positives, also on other ranks. Columns with a row's id are left out of given ones with
        ``negatives_ids`` and of queues made with ``ids=True``; all others are negatives.
        log_q: (N,), subtracted from the scores of y's rows, also of positives: the log of the
        probability q that a row is in a batch, finite; None for 0. Not with ``hardness``.
        row_weight: (M,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (M,) for ``reduction='none'``. A row with one positive and no negatives has
        loss 0.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018;
    hardness: Lan et al., LLaVE, 2025; log_q: Yi et al., Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations, 2019; 'in': Miech et al., End-to-End Learning of Visual
    Representations from Uncurated Instructional Videos, 2020.
    """

    temperature: Temperature = 0.1
    top_k: Count | None = None
    hardness: NonNegative = 0.0
    _: KW_ONLY
    variant: Literal["out", "in"] = "out"
    in_batch_negatives: bool = True
    gather_negatives: bool = True
    label_smoothing: Fraction = 0.0

    def check(self) -> None:
        super().check()
        if self.top_k is not None and self.group is not None:
            raise ValueError(f"top_k: got {self.top_k} with a group, expected None")
        if self.label_smoothing and self._chosen:
            got = f"{self.label_smoothing} with {self._chosen}"
            raise ValueError(f"label_smoothing: got {got}, expected 0")

    @property
    def _chosen(self) -> str:
        """The option that chooses or weighs negatives, if there is one."""
        return "top_k" if self.top_k else "hardness" if self.hardness else ""

    @property
    def stops_gradients(self) -> bool:
        return self.hardness != 0.0

    def evaluate(
        self,
        scores: Scores,
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> Any:
        if not self._chosen:
            return super().evaluate(scores, rows, cols)
        corrected = [block.log_weight is not None for block in scores.blocks if block is not BATCH]
        if self.hardness and (scores.col_bias is not None or any(corrected)):
            name = "log_q" if scores.col_bias is not None else "negatives_log_q"
            raise ValueError(f"{name}: got a value, expected None with hardness")
        positive = scores.aligned()
        negative, extra = (self._hardest if self.top_k else self._weighted)(scores)
        extra.append(torch.logaddexp(negative.detach(), positive.detach()))
        losses = scores.weighted(softplus(negative - positive))
        return self.finish(losses, extra, positive, aligned=scores)

    def matched(self, scores: Scores, positives: Positives) -> Any:
        if self._chosen:
            name = "positives" if positives.x_ids is None else "x_ids"
            raise ValueError(f"{name}: got a value, expected None with {self._chosen}")
        return super().matched(scores, positives)

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
        return BY_ROW, *self.sums("id")

    def parts(self) -> Sequence[Part]:
        return () if self.label_smoothing else SOFTMAX

    def combine(self, negative: Tensor, *rest: Any) -> Tensor:
        *sums, positive, scores = rest
        losses = [row_losses(SOFTMAX, (negative, positive))]
        return (self.smoothed(losses, sums, positive, scores) if sums else losses)[0]

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
        variant: str,
        in_batch_negatives: bool,
        label_smoothing: float,
        negatives_mask: Tensor | None = None,
    ) -> Tensor:
        """With one positive per row, when both variants are the same."""
        cosine, there = reference_pairs(x, y, negatives, negatives_mask, in_batch_negatives)
        positive = (scale * cosine + bias).diag()[:, None]
        s = scale * cosine + bias + hardness * cosine.detach()
        s = s.masked_fill(~there, -torch.inf)
        if top_k is not None:
            s = s.topk(min(top_k, s.shape[1])).values
        return smooth_cross_entropy(torch.cat([positive, s], 1), label_smoothing)
