"""Smooth average precision (Smooth-AP)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .base.ranking import SmoothRankLoss

__all__ = ["SmoothAPLoss"]


class SmoothAPLoss(SmoothRankLoss, name="smooth_ap"):
    r"""Smooth-AP: one minus the average precision of every query, with smooth ranks.

    :math:`\ell_q = 1 - \frac{1}{|P_q|} \sum_{p \in P_q} \frac{R^P_{qp}}{R_{qp}}, \qquad
    R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((\cos(z_q, z_j) - \cos(z_q, z_p)) / \tau\bigr)`

    with :math:`P_q` the other rows with q's label and :math:`R^P` the same rank among these rows
    only. It takes O(N^2 K) time for K positives. Only some rows of scores are in memory at a time;
    the backward pass recomputes them. Reading the size of the largest class synchronises a GPU.

    Args:
        temperature: tau of the sigmoid, positive. Default: 0.01.

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

    Source: Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, 2020.
    """

    @staticmethod
    def rows(ranks: Tensor, among: Tensor, found: Tensor, *numbers: float) -> Tensor:
        precision = torch.where(found, among / ranks, 0.0).sum(-1)
        return 1 - precision / found.sum(-1).clamp_min(1)

    @staticmethod
    def reference(z: Tensor, labels: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = F.normalize(z) @ F.normalize(z).mT
        losses = []
        for q in range(len(z)):
            other = torch.arange(len(z), device=z.device) != q
            row, own = s[q, other], (labels == labels[q])[other]
            steps = ((row[None] - row[:, None]) / temperature).sigmoid()
            steps = steps - steps.diagonal().diag()
            precision = (1 + steps[own][:, own].sum(1)) / (1 + steps[own].sum(1))
            losses.append(1 - precision.mean() if own.any() else row.sum() * 0)
        counted = (labels[:, None] == labels).sum(1) > 1
        return torch.stack(losses) if losses else z.sum(1), counted
