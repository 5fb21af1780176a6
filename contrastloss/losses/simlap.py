"""Contrastive loss with positive pairs across classes, compared in gated features (Hydra)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, SUM, differs, same
from ..ops.opaque import opaque
from ..ops.second import without_second
from ..options import Temperature
from .base.loss import ScoreLoss, nan_rows, softplus
from .base.scores import wide

__all__ = ["SimLAPLoss"]

FIRST, SECOND, NEGATIVE = "first", "second", "negative"
_POSITIVES = (same(SECOND),)
#: limit on the scores in memory at once, where gated vectors are normalised
_HELD = 1 << 20


class SimLAPLoss(ScoreLoss, name="simlap"):
    r"""Queries of one class against keys of another, in features gated by the pair of classes.

    Row i has the classes :math:`(a_i, b_i)` and a gate :math:`g_i`, and :math:`s_{ij} = \langle
    \hat z_i \odot g_i^2, \hat k_j \rangle / \tau` with unit vectors :math:`\hat z_i, \hat k_j`.
    Keys of class :math:`b_i` are its positives :math:`P_i`, keys of neither class its negatives
    :math:`N_i`. If the classes differ, keys of class :math:`a_i` are ignored.

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{j \in N_i} e^{s_{ij}}}`

    A row without positives has loss 0 and is not counted in the mean; a row without negatives has
    loss 0. Queries, keys and gates get gradients. With ``renormalize`` the scores are cosines of
    gated vectors,

    :math:`s_{ij} = \cos(z_i \odot g_i, k_j \odot g_i) / \tau`

    The length of a gated key then depends on the row, which no operator expresses: some rows of
    scores are in memory at a time, in plain PyTorch, and the backward pass recomputes them.

    Args:
        temperature: tau, positive. Default: 0.1.
        mean_over: ``'rows'`` averages each row over its positives. With ``'pairs'``,
            ``reduction='none'`` returns the sum over a row's positives and ``reduction='mean'``
            divides by the number of all positive pairs, as in the authors' code. Default:
            ``'rows'``.
        renormalize: whether queries and keys are normalised after the gate; most of the authors'
            code does so. Default: False.
        normalize: whether queries and keys are normalised before the gate. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        z: (N, D), the queries.
        keys: (M, D).
        gate: (N, D), e.g. sigmoids.
        labels: (N, 2), integers: the row's class and the class it is paired with, which may be
        equal.
        key_labels: (M,), integers.
        logit_scale: () or a float, 1 / tau as the model has it; None for that of the option.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Wu et al., Rethinking Positive Pairs in Contrastive Learning, 2024 (Hydra).
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    mean_over: Literal["rows", "pairs"] = "rows"
    renormalize: bool = False

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
        self,
        z: Tensor,
        keys: Tensor,
        gate: Tensor,
        labels: Tensor,
        key_labels: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
    ) -> Tensor:
        made = self._renormalized if self.renormalize else self._products
        total, count = made(z, keys, gate, labels, key_labels, logit_scale)
        nan = nan_rows(z, gate)
        if self.mean_over == "pairs":
            return self.reduce(total, count, nan)
        return self.reduce(total / count.clamp_min(1), count > 0, nan)

    def _products(
        self,
        z: Tensor,
        keys: Tensor,
        gate: Tensor,
        labels: Tensor,
        key_labels: Tensor,
        logit_scale: Tensor | float | None,
    ) -> tuple[Tensor, Tensor]:
        """The sums over each row's positives, and how many these are."""
        rows, columns = wide(z), wide(keys)
        if self.normalize:
            rows, columns = (ops.unit(v) for v in (rows, columns))
        scores = self.scores(rows * wide(gate).square(), columns, logit_scale)
        scores.normalize = False  # a gated vector keeps its length
        ids = {FIRST: labels[:, 0], SECOND: labels[:, 1]}
        cols = {FIRST: key_labels, SECOND: key_labels}
        negative, count = scores.stats(self._NEGATIVES, ids, cols)
        # finite for rows without negatives, to avoid differences of infinities
        shift = negative.clamp_min(-1e30)
        rows_of = {SECOND: labels[:, 1], NEGATIVE: shift}
        (total,) = scores.stats(self._TERMS, rows_of, {SECOND: key_labels})
        return total, count

    def _renormalized(
        self,
        z: Tensor,
        keys: Tensor,
        gate: Tensor,
        labels: Tensor,
        key_labels: Tensor,
        logit_scale: Tensor | float | None,
    ) -> tuple[Tensor, Tensor]:
        scores = self.scores(z, keys, logit_scale)
        gate, columns = wide(gate), wide(keys)
        rows = ops.unit(wide(z) * gate) * gate
        factor = scores.factor(rows)
        total, count = _gated(
            rows, gate.square(), columns, factor, labels.long(), key_labels.long()
        )
        return total, count

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
        renormalize: bool,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count, or the number of terms in each."""
        if normalize:
            z, keys = (torch.nn.functional.normalize(v, dim=-1) for v in (z, keys))
        if renormalize:
            z, gated = (
                torch.nn.functional.normalize(v, dim=-1) for v in (z * gate, keys * gate[:, None])
            )
            s = scale * torch.einsum("nd,nmd->nm", z, gated) + bias
        else:
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


class _Gated(torch.autograd.Function):
    """Sums of rows, some at a time."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        rows, gates, columns, scale, labels, key_labels = tensors
        total, count = rows.new_empty(len(rows)), labels.new_empty(len(rows))
        for k in _parts(rows, columns):
            found = _sums(rows[k], gates[k], columns, scale, labels[k], key_labels)
            total[k], count[k] = found
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, gates, columns, scale, labels, key_labels = ctx.saved_tensors
        found = [torch.zeros_like(v) for v in (rows, gates, columns, scale)]
        with ops.without_autocast(rows.device):
            for k in _parts(rows, columns):
                a, b, c, d = leaves = [
                    v.detach().requires_grad_() for v in (rows[k], gates[k], columns, scale)
                ]
                with torch.enable_grad():
                    total, _ = _sums(a, b, c, d, labels[k], key_labels)
                own = torch.autograd.grad(total, leaves, grads[0][k].detach())
                found[0][k], found[1][k] = own[0], own[1]
                found[2] += own[2]
                found[3] += own[3]
        return *without_second("simlap", found, [*ctx.saved_tensors[:4], grads[0]]), None, None


@opaque(
    "simlap",
    "Tensor rows, Tensor gates, Tensor columns, Tensor scale, Tensor labels, Tensor key_labels",
    lambda rows, *others: [rows.new_empty(rows.shape[0]), others[3].new_empty(rows.shape[0])],
)
def _gated(*tensors: Tensor) -> list[Tensor]:
    return list(_Gated.apply(*tensors))


def _sums(
    rows: Tensor, gates: Tensor, columns: Tensor, scale: Tensor, labels: Tensor, key_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Over the positives of rows, and how many these are."""
    squares = gates.mm(columns.square().mT).clamp_min(1e-24)  # of the lengths of gated keys
    scores = scale * rows.mm(columns.mT) * squares.rsqrt()
    own, positive = (labels[:, k, None] == key_labels for k in (0, 1))
    negative = scores.masked_fill(own | positive, -torch.inf)
    # finite for rows without negatives, to avoid differences of infinities
    low = scores.new_full((len(rows), 1), -1e30)
    shift = torch.cat([negative, low], 1).logsumexp(1, keepdim=True)
    terms = torch.where(positive, softplus(shift - scores), 0.0)
    return terms.sum(1), positive.sum(1)


def _parts(rows: Tensor, columns: Tensor) -> Iterator[slice]:
    """Which rows are taken at a time."""
    size = max(1, _HELD // max(1, len(columns)))
    for first in range(0, len(rows), size):
        yield slice(first, first + size)
