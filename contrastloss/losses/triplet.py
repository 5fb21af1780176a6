"""Triplet loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import MAX, SUM, Channel, differs, same
from ..options import Count, Temperature
from .base.held import over_rows
from .base.label_loss import LABEL, LabelLoss, largest_class
from .base.scores import Scores

__all__ = ["TripletLoss"]

_POSITIVES, _NEGATIVES = (same(LABEL),), (differs(LABEL),)
_HARDEST = (MAX(-1.0, pairs=_POSITIVES), MAX(pairs=_NEGATIVES))
#: number of positives per row that one pass over the scores handles
_RANKS = 8
#: up to so many positives per row these passes take less time than an order of them
_FEW = 32


#: sum of the margin terms and number of negatives above each of these positives' thresholds
_ABOVE = tuple(
    SUM(psi, pairs=_NEGATIVES, shift=f"shift {rank}")
    for rank in range(_RANKS)
    for psi in ("relu", "step")
)


class TripletLoss(LabelLoss, name="triplet"):
    r"""Triplet loss on cosine similarities, with batch-all, batch-hard or semi-hard mining.

    With :math:`p \ne a` a row with row a's label, n a row with another label, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_a = \sum_{(p, n)} [s_{an} - s_{ap} + m]_+`

    over these triplets:

    ``'all'``
        every p and every n (batch-all);
    ``'hard'``
        the least similar p and the most similar n (batch-hard);
    ``'semihard'``
        for every p, the ``k`` most similar n with
        :math:`s_{ap} - m \le s_{an} < s_{ap}`.

    ``reduction='mean'`` averages over the triplets with a nonzero term, as in
    pytorch-metric-learning; without any the loss is 0.

    ``'all'`` takes O(N) memory for any number of triplets, and O(N^2 (D + log P)) time for classes
    of P rows: of a row's scores in order, sums of its triplets follow from counts. Some rows of
    scores are held at a time, which torch computes, and again in the backward pass. Up to 32
    positives per row, or if ``positives`` is given, it takes one pass of an operator for every 8 of
    them, and so does ``'semihard'`` for each. (Of a soft margin, log(1 + e^u), there are no such
    sums: its time would be that of all triplets.)

    Args:
        margin: m. Default: 0.05.
        mining: ``'all'``, ``'hard'`` or ``'semihard'``. Default: ``'all'``.
        positives: for ``'all'`` and ``'semihard'``, the maximum number of positives per row, at
            least 1; the least similar ones are used. None uses all: this reads the size of the
            largest class, which synchronises a GPU; torch.compile leaves the loss out of its
            graphs, and torch.export refuses it. Default: None.
        k: for ``'semihard'``, the maximum number of negatives per positive, at least 1. Default: 1.
        temperature: divides the scores, positive. Default: 1.
        group: supported with ``mining='hard'`` only.

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
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, 2015;
    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    margin: float = 0.05
    mining: Literal["all", "hard", "semihard"] = "all"
    _: KW_ONLY
    positives: Count | None = None
    k: Count = 1
    temperature: Temperature = 1.0

    def check(self) -> None:
        super().check()
        if self.group is not None and self.mining != "hard":
            raise ValueError(
                f"group: got one with mining={self.mining!r}, expected None: only triplets of "
                "mining='hard' are found over ranks"
            )

    @property
    def one_graph(self) -> bool:
        return self.mining == "hard" or self.positives is not None

    def channels(self) -> tuple[Channel, ...]:
        return _HARDEST if self.mining == "hard" else ()

    def combine(self, near: Any, far: Any, scores: Scores) -> tuple[Tensor, Tensor | None]:
        total = (far.value + near.value + self.margin).relu()
        return total, total > 0

    def evaluate(
        self, scores: Scores, rows: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Sequence[Any]]:
        if self.mining == "hard":
            return super().evaluate(scores, rows)
        values = self.label_statistics(scores, (), rows)[1] if self.return_stats else ()
        count = self.positives or max(largest_class(scores.ids(LABEL, rows)) - 1, 1)
        if self.mining == "all" and self.positives is None and count > _FEW:
            pairs = [self.tests(scores, _POSITIVES), self.tests(scores, self.negatives)]
            sums = partial(ops.triplet_sums, margin=self.margin, most=count)
            total, active = over_rows(scores, rows, pairs, sums)
            return total, active, values
        found = scores.topk(count, largest=False, pairs=self.tests(scores, _POSITIVES), rows=rows)
        # +inf for missing positives, so that no negative violates their margin
        positives = torch.where(found.indices >= 0, found.values, torch.inf)
        by_rank = self._all if self.mining == "all" else self._semihard
        return *by_rank(scores, rows, positives), values

    def _all(
        self, scores: Scores, rows: Mapping[str, Tensor], positives: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = active = positives.new_zeros(positives.shape[0])
        for part in (positives - self.margin).split(_RANKS, 1):
            shifts = {f"shift {rank}": shift for rank, shift in enumerate(part.unbind(1))}
            tests = self.tests(scores, self.negatives)
            channels = [c.adapted(tests, c.axis) for c in _ABOVE[: 2 * len(shifts)]]
            stats = scores.stats(channels, {**rows, **shifts}, rows)
            total, active = total + sum(stats[::2]), active + sum(stats[1::2])
        return total, active

    def _semihard(
        self, scores: Scores, rows: Mapping[str, Tensor], positives: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = active = positives.new_zeros(positives.shape[0])
        tests = self.tests(scores, self.negatives)
        for positive in positives.unbind(1):
            below = torch.nextafter(positive.detach(), positive.new_full((), -torch.inf))
            found = scores.topk(self.k, pairs=tests, rows=rows, upper=below)
            terms = (found.values - (positive - self.margin)[:, None]).relu()
            total, active = total + terms.sum(1), active + (terms > 0).sum(1)
        return total, active

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Overlapping classes."""
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre = torch.randn(max(n, 1), d, generator=generator).double()
        return centre[labels] + 2.0 * torch.randn(n, d, generator=generator), labels

    @staticmethod
    def reference(
        z: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        margin: float,
        mining: str,
        positives: int | None,
        k: int,
    ) -> tuple[Tensor, Tensor]:
        """For every row, the sum of its terms and the number of nonzero terms."""
        s = scale * (z @ z.mT) + bias
        same = labels[:, None] == labels
        inf = torch.full_like(s, torch.inf)
        near = torch.where(same.clone().fill_diagonal_(False), s, inf).sort(1).values
        far = torch.where(same, -inf, s)[:, None, :]  # (N, 1, N); positives are (N, P, 1)
        if mining == "hard":
            near, far = near[:, :1], far.amax(2, keepdim=True)
        near = near[:, :positives, None]
        u = far - near + margin
        if mining == "semihard":
            u = torch.where(far < near, u, -torch.inf).sort(2, descending=True).values[..., :k]
        terms = u.relu().flatten(1)
        return terms.sum(1), (terms > 0).sum(1)
