"""Group ordering constraints (GroCo)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops, sorting
from ..channel import INDEX, differs
from ..ops.check import check_embeddings
from ..options import Count, Positive, Several, shape
from .base.checks import check_matrix
from .base.ranking import NetworkLoss, log_mass
from .base.scores import Scores, wide

__all__ = ["GroCoLoss"]


class GroCoLoss(NetworkLoss, name="groco"):
    r"""GroCo: all positives of an anchor should outrank its hardest negatives.

    Every image of every view is an anchor. Its negatives are the ``topk_neg`` most similar other
    images of its own view; its positives are the same image in the other views. Their cosines, all
    negatives ascending and then all positives ascending, go through a relaxed sorting network. With
    :math:`P_{ir}` the mass of candidate i at rank r, K negatives and n candidates,

    :math:`\ell = -\frac1n \Bigl(\sum_{i > K} \log p_i + \sum_{i \le K} \log(1 - p_i)\Bigr),
    \qquad p_i = \sum_{r > K} P_{ir},`

    so that a positive may have any of the n - K highest ranks. This is the binary cross entropy of
    the positive ranks; that of the negative ranks is equal, since the rows of P sum to 1. P is not
    materialised; memory is O(V N n). Cauchy masses have long tails: even cosines of -1 for all
    negatives and 1 for the positive leave a loss of 0.147 with 10 negatives at steepness 1, and
    0.015 at steepness 10.

    Args:
        topk_neg: number of negatives per anchor, at least 1; at most N - 1 are used. Default: 10.
        steepness: steepness of the comparators, positive. Default: 1.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.
        stop_grad: whether gradients flow to anchors only, not to positives and negatives.
            Default: True.
        positive_views: number of leading views that are positives, at least 2 (the large crops of
            multi-crop; its small crops are anchors only). None for all. Default: None.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        views: (V, N, D), or a sequence of V tensors (N, D), V >= 2.
        Loss: (), or (V, N) for ``reduction='none'``. For N = 1 it is 0.

    Source: Shvetsova et al., Learning by Sorting: Self-supervised Learning with Group Ordering
    Constraints, 2023.
    """

    topk_neg: Count = 10
    _: KW_ONLY
    steepness: Positive | Tensor = 1.0
    stop_grad: bool = True
    positive_views: Several | None = None

    @property
    def stops_gradients(self) -> bool:
        return self.stop_grad

    def forward(self, views: Tensor | Sequence[Tensor]) -> Tensor:
        z = stacked(views)
        narrow = Scores(z, None, scale=1.0).compute_dtype
        z = wide(z)  # upcast first, so that gradient contributions accumulate in fp32
        large = z.shape[0] if self.positive_views is None else self.positive_views
        if z.shape[0] < large:
            expected = f"at most {z.shape[0]}, the number of views"
            raise ValueError(f"positive_views: got {large}, expected {expected}")
        other = z.detach() if self.stop_grad else z
        turned = [other[:large].roll(k, 0) for k in range(1, large)]
        losses = [self._rows(z[:large], other[:large], turned, narrow)]
        if large < z.shape[0]:
            small, own = z[large:], other[large:]
            positives = [view.expand_as(small) for view in other[:large]]
            losses.append(self._rows(small, own, positives, narrow))
        return self.reduce(torch.cat(losses))

    def _rows(
        self, anchors: Tensor, own: Tensor, others: Sequence[Tensor], narrow: torch.dtype
    ) -> Tensor:
        """Losses (V, N) of anchors (V, N, D), with negatives from their own views, scored with
        products in the ``narrow`` dtype, and positives from ``others``."""
        units = ops.unit(anchors)
        positive = torch.stack([(units * ops.unit(view)).sum(-1) for view in others], -1)
        candidates = [positive.sort(-1).values]
        most = anchors.shape[1] - 1
        least = torch.sym_min if isinstance(most, torch.SymInt) else min  # not traced by torch 2.11
        count = least(self.topk_neg, most)
        if count > 0:
            among = ops.pair_topk(
                anchors,
                own if self.stop_grad else None,
                count,
                pairs=(differs(INDEX),),
                cosine=True,
                compute_dtype=narrow,
                backend=self.backend,
            )
            candidates.insert(0, among.values.flip(-1))
        x = torch.cat(candidates, -1)
        t = (torch.arange(x.shape[-1], device=x.device) >= count).to(x.dtype)
        # non-finite scores have no rank: their row is NaN on every device
        known = torch.where(x.isfinite().all(-1), 1.0, torch.nan).to(x.dtype)
        mass = sorting.rank_mass(x.nan_to_num(), t, **self.sorting(x))
        rest = (1 - mass).clamp_min(torch.finfo(mass.dtype).eps)  # 1 - mass is exact up to eps
        return -log_mass(torch.where(t > 0, mass, rest)).mean(-1) * known

    @staticmethod
    def reference(
        views: Tensor,
        *,
        topk_neg: int,
        stop_grad: bool = True,
        positive_views: int | None = None,
        **network: Any,
    ) -> Tensor:
        """Losses (V, N), one anchor at a time, from both cross entropies."""
        z, rows = F.normalize(views, dim=-1), []
        other = z.detach() if stop_grad else z
        for v, i in torch.cartesian_prod(*(torch.arange(k) for k in z.shape[:2])).tolist():
            images = torch.arange(z.shape[1]) != i
            same = [u for u in range(len(z))[:positive_views] if u != v]
            negative = (other[v, images] @ z[v, i]).sort().values[-topk_neg:]
            positive = (other[same, i] @ z[v, i]).sort().values
            x = torch.cat([negative, positive])
            P = sorting.sort(x, **network).P
            t = (torch.arange(len(x)) >= len(negative)).to(x.dtype)
            high, low = P @ t, P @ (1 - t)
            rows.append(
                F.binary_cross_entropy(high, t) / 2 + F.binary_cross_entropy(low, 1 - t) / 2
            )
        return torch.stack(rows).view(z.shape[:2])


def stacked(views: Tensor | Sequence[Tensor]) -> Tensor:
    """Check ``views`` and stack them to (V, N, D), V >= 2."""
    if isinstance(views, Tensor):
        check_embeddings("views", views)
        if views.ndim != 3 or views.shape[0] < 2 or views.shape[2] < 1:
            raise ValueError(f"views: got shape {shape(views)}, expected (V, N, D), V >= 2, D >= 1")
        return views
    if not isinstance(views, Sequence):
        got = type(views).__name__
        raise TypeError(f"views: got {got}, expected a tensor or a sequence of tensors")
    if len(views) < 2:
        raise ValueError(f"views: got {len(views)}, expected at least 2")
    for k, view in enumerate(views):
        check_matrix(f"views[{k}]", view)
        check_embeddings(f"views[{k}]", view, ("views[0]", views[0]))
        if view.shape != views[0].shape:
            expected = f"views[0]'s {shape(views[0])}"
            raise ValueError(f"views[{k}]: got shape {shape(view)}, expected {expected}")
    return torch.stack(list(views))
