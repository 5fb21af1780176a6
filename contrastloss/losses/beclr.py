"""Alignment with a teacher and repulsion of a student's projections (BECLR)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, SUM, differs, not_above, same
from ..inputs import takes
from ..ops.merge import log_sum_exp
from ..options import Count, NonNegative, Positive
from .base.loss import Loss
from .base.scores import at_least_one, cosine, log_count, wide

__all__ = ["BECLRLoss"]

INSTANCE, BOUND, CLUSTER = "instance", "bound", "cluster"
_OTHERS = (LSE(pairs=(differs(INSTANCE),)),)
_WITHIN = (LSE(weight=(not_above(BOUND),)), SUM("one", weight=(not_above(BOUND),)))


class BECLRLoss(Loss, name="beclr"):
    r"""BECLR: a student's predictions follow a teacher, and its projections repel each other.

    With predictions p and projections z of a student and the projections t of a teacher, of two
    views each,

    :math:`\ell = -\frac{1}{2N} \sum_i \bigl[\cos(p_i, t'_i) + \cos(p'_i, t_i)\bigr] +
    \lambda \log \frac{1}{2N} \sum_u \frac{1}{2N - 2} \sum_v e^{\cos(z_u, z_v) / \tau}`

    where u is any of the 2N projections, v any of another instance, and a prime the other view.
    With stored embeddings m these are the negatives in place of the batch's. Those of which
    :math:`s_{uj} = \langle \hat z_u, m_j \rangle` is above a threshold are left out of the number
    :math:`n` of all pairs; as in the authors' code, they still have score 0 in the sum:

    :math:`\lambda \log \frac{1}{2N n} \sum_{u, j} e^{[s_{uj} \le \theta] s_{uj} / \tau}`

    Rows may be followed by their nearest neighbours: :meth:`with_neighbors`.

    Args:
        temperature: tau, positive. Default: 2.
        weight: lambda >= 0; 0 uses alignment alone. Default: 0.1.
        threshold: theta, of stored embeddings. Default: 0.8.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        predictions, projections, teacher: (N, 2, D), two views of each instance; the teacher gets
        no gradient.
        stored: (K, D), without gradient, compared as they are; None for the negatives of the batch.
        Loss: (). The repulsion of fewer than two instances, or of no pair, is 0.

    Source: Poulakakis-Daktylidis and Jamali-Rad, BECLR: Batch Enhanced Contrastive Few-Shot
    Learning, 2024.
    """

    temperature: Positive = 2.0
    weight: NonNegative = 0.1
    threshold: float = 0.8

    inputs: ClassVar[dict[str, str]] = {
        "predictions": "N 2 D",
        "projections": "N 2 D",
        "teacher": "N 2 D",
        "stored": "K>=1 D",
    }

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"teacher"})

    def forward(
        self,
        predictions: Tensor,
        projections: Tensor,
        teacher: Tensor,
        *,
        stored: Tensor | None = None,
    ) -> Tensor:
        aligned = cosine(predictions, teacher.detach().flip(1))
        loss = -aligned.sum() / at_least_one(aligned.numel())
        rows, least = projections.flatten(0, 1), 2 if stored is None else 1
        if not self.weight or projections.shape[0] < least:
            repulsion = 0.0 * wide(rows).sum()
        else:
            repulsion = self._among(rows) if stored is None else self._from(rows, stored.detach())
        return self.scaled(loss + self.weight * repulsion)

    def _among(self, z: Tensor) -> Tensor:
        ids = {INSTANCE: torch.arange(z.shape[0], device=z.device) // 2}
        scale = 1.0 / self.temperature
        (rows,) = ops.pair_stats(
            z, None, _OTHERS, scale=scale, rows=ids, cosine=True, backend=self.backend
        )
        return log_sum_exp(rows) - log_count(z.shape[0], rows) - log_count(z.shape[0] - 2, rows)

    def _from(self, z: Tensor, stored: Tensor) -> Tensor:
        unit, columns, scale = ops.unit(wide(z)), wide(stored), 1.0 / self.temperature
        bound = unit.new_full((unit.shape[0],), self.threshold * scale)
        within, count = ops.pair_stats(
            unit, columns, _WITHIN, scale=scale, rows={BOUND: bound}, backend=self.backend
        )
        pairs = count.sum()
        above = unit.shape[0] * columns.shape[0] - pairs
        # the scores 0 of those above; log 0 has no gradient
        zeros = torch.where(above > 0, above.clamp_min(1).log(), -torch.inf)
        total = log_sum_exp(torch.cat([within, zeros.unsqueeze(0)]))
        loss = total - log_count(unit.shape[0], within) - pairs.clamp_min(1).log()
        return torch.where(pairs > 0, loss, 0.0)

    @staticmethod
    @takes(z="N 2 D", stored="K>=1 D", centers="C>=1 D", labels="K int")
    def with_neighbors(
        z: Tensor,
        stored: Tensor,
        k: Count = 5,
        *,
        centers: Tensor | None = None,
        labels: Tensor | None = None,
        backend: str | None = None,
    ) -> Tensor:
        """The rows, and after them the nearest stored embedding of each one, the second nearest and
        so on: further instances, without gradient.

        Args:
            z: (N, 2, D), two views of each instance.
            stored: (K, D), with K >= k. Cosines say what is near.
            k: how many of each row.
            centers, labels: (C, D), centres of clusters, and (K,), those of the stored embeddings:
                a row's neighbours are in the cluster of its nearest centre, if so many are.

        Returns:
            ((1 + k) N, 2, D).
        """
        if len(stored) < k:
            raise ValueError(f"stored: got {len(stored)} embeddings, expected at least k = {k}")
        if (centers is None) != (labels is None):
            got = "None" if labels is None else "a value"
            raise ValueError(f"labels: got {got}, expected centers and labels, or neither")
        rows, held = z.detach().flatten(0, 1), stored.detach()
        how: dict[str, Any] = {"cosine": True, "compute_dtype": rows.dtype, "backend": backend}
        index = ops.pair_topk(rows, held, k, **how).indices
        if centers is not None and labels is not None:
            nearest = ops.pair_topk(rows, centers.detach(), 1, **how).indices.squeeze(1)
            how |= {"rows": {CLUSTER: nearest}, "cols": {CLUSTER: labels.long()}}
            inside = ops.pair_topk(rows, held, k, pairs=(same(CLUSTER),), **how).indices
            index = torch.where((inside >= 0).all(1, keepdim=True), inside, index)
        index = index.clamp_min(0)  # a NaN row has none
        found = held[index].unflatten(0, z.shape[:2]).permute(2, 0, 1, 3)
        return torch.cat([z, found.flatten(0, 1)])

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        centre, *noise = (torch.randn(n, k, d, generator=generator).double() for k in (1, 2, 2, 2))
        return tuple(centre + 0.7 * v for v in noise)

    @staticmethod
    def reference(
        predictions: Tensor,
        projections: Tensor,
        teacher: Tensor,
        *,
        temperature: float,
        weight: float,
        threshold: float,
        stored: Tensor | None = None,
    ) -> Tensor:
        unit = torch.nn.functional.normalize
        loss = -(unit(predictions, dim=2) * unit(teacher.detach().flip(1), dim=2)).sum(2).mean()
        z = unit(projections.flatten(0, 1))
        own = torch.arange(len(z), device=z.device) // 2
        if stored is None:
            apart = (z @ z.mT)[own[:, None] != own]
            mean = (apart / temperature).exp().mean()
        else:
            s = z @ stored.mT
            kept = s <= threshold
            mean = torch.where(kept, s / temperature, 0.0).exp().sum(1).mean() / kept.sum()
        return loss + weight * (mean.log() if mean.isfinite() else 0 * z.sum())
