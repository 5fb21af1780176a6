"""Contrastive loss with positive pairs across classes, compared in gated features (Hydra)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, SUM, differs, same
from ..options import Temperature
from .base.loss import ScoreLoss, nan_rows
from .base.scores import wide

__all__ = ["SimLAPLoss"]

FIRST, SECOND, NEGATIVE = "first", "second", "negative"
_POSITIVES = (same(SECOND),)


class SimLAPLoss(ScoreLoss, name="simlap"):
    r"""Queries of one class against keys of another, in features gated by the pair of classes.

    Row i has the classes :math:`(a_i, b_i)` and a gate :math:`g_i`, and :math:`s_{ij} = \langle
    \hat z_i \odot g_i^2, \hat k_j \rangle / \tau` with unit vectors :math:`\hat z_i, \hat k_j`.
    Keys of class :math:`b_i` are its positives :math:`P_i`, keys of neither class its negatives
    :math:`N_i`. If the classes differ, keys of class :math:`a_i` are ignored.

    .. math:: \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
        \log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{j \in N_i} e^{s_{ij}}}

    A row without positives has loss 0 and is not counted in the mean; a row without negatives has
    loss 0. Queries, keys and gates get gradients. As in the authors' code, gated vectors are not
    normalised again: the length of a gated key would depend on the row, which a dot product cannot
    express.

    Args:
        temperature: tau, positive. Default: 0.1.
        mean_over: ``'rows'`` averages each row over its positives. With ``'pairs'``,
            ``reduction='none'`` returns the sum over a row's positives and ``reduction='mean'``
            divides by the number of all positive pairs, as in the authors' code. Default:
            ``'rows'``.
        normalize: whether queries and keys are normalised. Default: True.

    Shape:
        z: (N, D), the queries.
        keys: (M, D).
        gate: (N, D), e.g. sigmoids.
        labels: (N, 2), integers: the row's class and the class it is paired with, which may be
        equal.
        key_labels: (M,), integers.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Wu et al., Rethinking Positive Pairs in Contrastive Learning, 2024 (Hydra).
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    mean_over: Literal["rows", "pairs"] = "rows"

    _NEGATIVES = (LSE(pairs=(differs(FIRST), differs(SECOND))), SUM("one", pairs=_POSITIVES))
    _TERMS = (SUM("softplus", sign=-1.0, shift=NEGATIVE, pairs=_POSITIVES),)

    inputs: ClassVar[dict[str, str]] = {
        "z": "N D",
        "keys": "M D",
        "gate": "N D",
        "labels": "N 2 int",
        "key_labels": "M int",
    }
    without: ClassVar[dict[str, str]] = {
        "group": "its keys are given with the call",
        "memory": "its keys are given with the call",
        "return_stats": "keys of the row's first class are neither positives nor negatives",
    }

    def forward(
        self, z: Tensor, keys: Tensor, gate: Tensor, labels: Tensor, key_labels: Tensor
    ) -> Tensor:
        rows, columns = wide(z), wide(keys)
        if self.normalize:
            rows, columns = (ops.unit(v) for v in (rows, columns))
        scores = self.scores(rows * wide(gate).square(), columns)
        scores.normalize = False  # a gated vector keeps its length
        ids = {FIRST: labels[:, 0], SECOND: labels[:, 1]}
        cols = {FIRST: key_labels, SECOND: key_labels}
        negative, count = scores.stats(self._NEGATIVES, ids, cols)
        # finite for rows without negatives, to avoid differences of infinities
        shift = negative.clamp_min(-1e30)
        rows_of = {SECOND: labels[:, 1], NEGATIVE: shift}
        (total,) = scores.stats(self._TERMS, rows_of, {SECOND: key_labels})
        nan = nan_rows(z, gate)
        if self.mean_over == "pairs":
            return self.reduce(total, count, nan)
        return self.reduce(total / count.clamp_min(1), count > 0, nan)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Keys of a few classes, and queries between two classes each."""
        size = max(n // 6, 3)

        def normal(rows: int) -> Tensor:
            return torch.randn(rows, d, generator=generator).double()

        labels = torch.randint(size, (n, 2), generator=generator)
        key_labels = torch.randint(size, (n + 3,), generator=generator)
        centre = normal(size)
        z = 0.4 * centre[labels].sum(1) + normal(n)
        return (
            z,
            centre[key_labels] + normal(n + 3),
            0.5 + 0.5 * normal(n).sigmoid(),
            labels,
            key_labels,
        )

    @staticmethod
    def reference(
        z: Tensor,
        keys: Tensor,
        gate: Tensor,
        labels: Tensor,
        key_labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        mean_over: str,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count, or the number of terms in each."""
        if normalize:
            z, keys = (torch.nn.functional.normalize(v, dim=-1) for v in (z, keys))
        s = scale * ((z * gate**2) @ keys.mT) + bias
        own, positive = (labels[:, k, None] == key_labels for k in (0, 1))
        negative = s.masked_fill(own | positive, -torch.inf)
        # finite for rows without negatives
        low = torch.full_like(s[:, :1], -1e30)
        terms = torch.logaddexp(s, torch.cat([negative, low], 1).logsumexp(1, keepdim=True)) - s
        total, count = torch.where(positive, terms, 0.0).sum(1), positive.sum(1)
        if mean_over == "pairs":
            return total, count
        return total / count.clamp_min(1), count > 0
