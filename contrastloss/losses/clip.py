"""CLIP loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal

import torch
from torch import Tensor

from ..channel import COL, ROW, Channel
from ..ops import Part, row_losses
from ..options import Fraction, Temperature
from .base.blocks import Turned
from .base.loss import softplus
from .base.match_loss import SoftmaxLoss
from .base.negatives import Negatives
from .base.pair_loss import Memory
from .base.positive_loss import BY_COL, BY_ROW, reference_pairs, smooth_cross_entropy
from .base.positives import Positives
from .base.scores import correction

__all__ = ["CLIPLoss"]

#: of the log-sum-exps of a row's and of a column's negatives, and the positive's score
_PARTS = tuple(Part(axis, 2, weight=0.5, softplus=True) for axis in (0, 1))


class CLIPLoss(SoftmaxLoss, name="clip"):
    r"""CLIP: symmetric InfoNCE over rows and columns, computed in one pass.

    :math:`\ell_i = -\tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} -
    \tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With several positives, of ``positives`` or ``x_ids`` and ``y_ids``, rows and columns have
    losses of their own, each as :class:`~contrastloss.InfoNCELoss` has them, and the loss is the
    mean of the rows' mean, or sum, and the columns', over those with a positive.

    Args:
        temperature: tau, positive. Element i of an (N,) tensor divides :math:`s_{ij}` in both
            terms. Default: 0.07.
        variant: ``'out'``, the mean of the logarithms of several positives, or ``'in'``, the
            logarithm of their sum. Default: ``'out'``.
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.
        label_smoothing: epsilon, from 0 to 1, as :func:`torch.nn.functional.cross_entropy` has it,
            of rows and of columns: :math:`1 - \epsilon` times the loss, and epsilon times the mean
            of minus log p over what takes part in the softmax p. Default: 0.

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
        x, y: (M, D) and (N, D), e.g. images and their texts; M = N without ``positives``, or
        ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows of x, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        x_negatives: (L, D), shared by all rows of y, or (N, L, D), one set per row of y: negatives
        in the columns' losses.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
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
        log_q, x_log_q: (N,) and (M,), subtracted from the scores of the rows of y as columns, and
        of the rows of x as those of the columns' losses: the log of the probability that it is in a
        batch; None for 0. The statistics are of corrected scores.
        row_weight: (M,), multiplies the losses of pairs; 'mean' still divides by N. None for 1; not
        with several positives.
        Loss: (), or (N,) for ``reduction='none'``; with several positives ((M,), (N,)).

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021.
    """

    temperature: Temperature = 0.07
    _: KW_ONLY
    variant: Literal["out", "in"] = "out"
    in_batch_negatives: bool = True
    gather_negatives: bool = True
    label_smoothing: Fraction = 0.0

    axes = (ROW, COL)

    def channels(self) -> tuple[Channel, ...]:
        return BY_ROW, BY_COL, *self.sums("id")

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        x_negatives: Tensor | None = None,
        positives: Any = None,
        x_ids: Tensor | None = None,
        y_ids: Tensor | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        x_log_q: Tensor | None = None,
        memory: Memory = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(
            negatives, negatives_mask, negatives_offsets, negatives_ids, negatives_log_q
        )
        said = Positives(positives, x_ids, y_ids).checked(x, y, ids)
        self.fits(x, y)
        if row_weight is not None and not said.aligned:
            name = "positives" if x_ids is None else "x_ids"
            raise ValueError(
                f"row_weight: got a value, expected None with {name}: columns have no weights"
            )
        blocks = self.around(x, y, further, said, ids, memory)
        blocks += tuple(map(Turned, self.given(y, Negatives(x_negatives))))
        scores = self.against(x, y, blocks, logit_scale, logit_bias)
        scores.row_weight, scores.col_bias = row_weight, correction(log_q, x)
        scores.row_bias = correction(x_log_q, x)
        return self.aligned(scores, ids) if said.aligned else self.matched(scores, said)

    def parts(self) -> Sequence[Part]:
        return () if self.label_smoothing else _PARTS

    def combine(self, by_row: Tensor, by_col: Tensor, *rest: Any) -> Tensor:
        *sums, positive, scores = rest
        if not sums:
            return row_losses(_PARTS, (by_row, by_col, positive))
        losses = [softplus(by_row - positive), softplus(by_col - positive)]
        rows, cols = self.smoothed(losses, sums, positive, scores)
        return 0.5 * (rows + cols)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        variant: str,
        in_batch_negatives: bool,
        label_smoothing: float,
        negatives_mask: Tensor | None = None,
    ) -> Tensor:
        """With one positive per row and column, when both variants are the same."""
        positive = (scale.flatten() * (x * y).sum(1) + bias)[:, None]
        losses = []
        for turned, k in ((False, negatives), (True, None)):
            a, b = (y, x) if turned else (x, y)
            products, there = reference_pairs(a, b, k, negatives_mask, in_batch_negatives)
            own = scale.mT if turned and scale.ndim else scale  # one of each row of x
            s = (own * products + bias).masked_fill(~there, -torch.inf)
            losses.append(smooth_cross_entropy(torch.cat([positive, s], 1), label_smoothing))
        return (losses[0] + losses[1]) / 2
