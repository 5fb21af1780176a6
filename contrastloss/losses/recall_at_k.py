"""Differentiable recall at k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY

import torch
from torch import Tensor
from torch.nn import functional as F

from ..options import Count, Positive
from .base.ranking import SmoothRankLoss

__all__ = ["RecallAtKLoss"]


class RecallAtKLoss(SmoothRankLoss, name="recall_at_k"):
    r"""Recall@k surrogate: one minus recall at k with smooth ranks, averaged over several k.

    :math:`\ell_q = 1 - \operatorname{mean}_k \frac{1}{\min(k, |P_q|)}
    \sum_{p \in P_q} \sigma\bigl((k - R_{qp}) / \tau_k\bigr), \qquad
    R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((\cos(z_q, z_j) - \cos(z_q, z_p)) / \tau\bigr)`

    with :math:`P_q` the other rows with q's label. It takes O(N^2 K) time for K positives. Only
    some rows of scores are in memory at a time; the backward pass recomputes them. Reading the size
    of the largest class synchronises a GPU. A positive at rank k counts half, so that perfect
    recall has a positive loss, and the smooth sum can exceed :math:`\min(k, |P_q|)`.

    Args:
        temperature: tau for differences of scores, positive. Default: 0.01.
        ks: the values of k, at least one, each at least 1. Default: (1, 2, 4, 8, 16).
        rank_temperature: tau_k for differences of ranks, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        Loss: (), or (N,) for ``reduction='none'``. A query without a positive has loss 0 and is not
        counted in the mean.

    Source: Patel et al., Recall@k Surrogate Loss with Large Batches and Similarity Mixup, 2022.
    """

    _: KW_ONLY
    ks: Sequence[Count] = (1, 2, 4, 8, 16)
    rank_temperature: Positive = 1.0

    def check(self) -> None:
        super().check()
        if not self.ks:
            raise ValueError("ks: got none, expected at least one")

    def numbers(self) -> tuple[float, ...]:
        return (self.rank_temperature, *self.ks)

    @staticmethod
    def rows(ranks: Tensor, among: Tensor, found: Tensor, *numbers: float) -> Tensor:
        rank_temperature, *ks = numbers
        k = torch.tensor(ks, dtype=ranks.dtype, device=ranks.device)
        hits = ((k - ranks.unsqueeze(-1)) / rank_temperature).sigmoid()
        hits = torch.where(found.unsqueeze(-1), hits, 0.0).sum(1)
        possible = torch.minimum(k, found.sum(-1, keepdim=True).clamp_min(1))
        return 1 - (hits / possible).mean(-1)

    @staticmethod
    def reference(
        z: Tensor,
        labels: Tensor,
        *,
        temperature: float,
        ks: Sequence[int],
        rank_temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = F.normalize(z) @ F.normalize(z).mT
        losses = []
        for q in range(len(z)):
            other = torch.arange(len(z), device=z.device) != q
            row, own = s[q, other], (labels == labels[q])[other]
            steps = ((row[None] - row[:, None]) / temperature).sigmoid()
            steps = steps - steps.diagonal().diag()
            ranks = 1 + steps[own].sum(1)
            recalls = [
                ((k - ranks) / rank_temperature).sigmoid().sum() / min(k, max(len(ranks), 1))
                for k in ks
            ]
            losses.append(1 - torch.stack(recalls).mean() if own.any() else row.sum() * 0)
        counted = (labels[:, None] == labels).sum(1) > 1
        return torch.stack(losses) if losses else z.sum(1), counted
