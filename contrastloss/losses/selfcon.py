"""Self-contrastive learning (SelfCon): the outputs of one network are the views."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, same
from ..options import Temperature, shape
from .base.loss import nan_rows
from .base.pair_loss import PairLoss

__all__ = ["SelfConLoss"]

#: names of the columns of labels
_COLUMNS = tuple(f"label{t}" for t in range(8))


class SelfConLoss(PairLoss, name="selfcon"):
    r"""SupCon between several outputs of one network, with one or more columns of labels.

    The rows are the V outputs for each instance, e.g. of the backbone and of a sub-network. With
    :math:`P_i^t` the other rows with row i's label in column t and :math:`s_{ij} = \cos(z_i, z_j) /
    \tau`,

    :math:`\ell_i^t = -\frac{1}{|P_i^t|} \sum_{p \in P_i^t}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i,\; y_j^t \ge 0} e^{s_{ij}}}.`

    ``reduction='mean'`` averages each column over the rows that have a positive in it, and sums
    over the columns. A row without a positive has loss 0. All columns are computed in one pass.

    Args:
        temperature: tau, positive. Default: 0.07.

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
        z: (N, V, D).
        labels: (N,), or (N, T) for T <= 8 columns, integers. A row with a negative label is ignored
        in that column, as an anchor and in the denominators of others. None: the positives are the
        other outputs for the same instance.
        Loss: (), or for ``reduction='none'`` (N, V), or (N, V, T) for T columns.

    Source: Bae et al., Self-Contrastive Learning: Single-viewed Supervised Contrastive Framework
    using Sub-network, 2023; two columns: Boychev and Cholakov, ImagiNet, 2024.
    """

    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {"z": "N V D", "labels": "N int | N T int"}
    without: ClassVar[dict[str, str]] = {
        "memory": "a queue holds one integer label per column",
        "return_stats": "every column of labels has positives of its own",
    }

    _CHANNELS: ClassVar[tuple[Channel, ...]] = tuple(
        channel
        for name in _COLUMNS
        for channel in (
            LSE(pairs=(same(f"{name} is there"),)),
            *(SUM(psi, pairs=(same(name),)) for psi in ("one", "id")),
        )
    )

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        most = len(_COLUMNS)
        if labels is not None and labels.ndim == 2 and not 1 <= labels.shape[1] <= most:
            expected = f"({z.shape[0]},) or ({z.shape[0]}, T) with T from 1 to {most}"
            raise ValueError(f"labels: got shape {shape(labels)}, expected {expected}")
        flat = z.flatten(0, 1)
        scores = self.scores(flat, None, logit_scale, logit_bias)
        if labels is None:
            labels = scores.distinct(torch.arange(z.shape[0], device=z.device))
        columns = labels.long() if labels.ndim == 2 else labels.long().unsqueeze(1)
        columns = columns.repeat_interleave(z.shape[1], 0)
        count = columns.shape[1]
        rows, cols = {}, {}
        for name, column in zip(_COLUMNS[:count], columns.unbind(1), strict=True):
            # -1 vs -2, so that unlabelled rows never match each other
            for key, value in ((name, column), (f"{name} is there", torch.zeros_like(column))):
                rows[key] = torch.where(column < 0, -1, value)
                cols[key] = torch.where(column < 0, -2, value)
        channels = self._CHANNELS[: 3 * count]
        stats = scores.stats(channels, rows, cols)
        everything, sizes, positive = (torch.stack(stats[k::3], -1) for k in range(3))
        some = sizes > 0
        mean = positive / sizes.clamp_min(1)
        losses = torch.where(some, torch.where(some, everything, 0.0) - mean, 0.0)
        nan = nan_rows(flat).unsqueeze(1) & (columns >= 0)
        if self.reduction == "mean":
            parts = zip(losses.unbind(1), some.unbind(1), nan.unbind(1), strict=True)
            return torch.stack([self.reduce(*column) for column in parts]).sum()
        size = (*z.shape[:-1], *labels.shape[1:])
        return self.reduce(losses.reshape(size), None, nan.reshape(size))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs in which some rows have no label."""
        labels = torch.randint(-1, max(n // 3, 1), (n,), generator=generator)
        centre = torch.randn(n + 1, 1, d, generator=generator).double()
        return centre[labels] + 0.7 * torch.randn(n, 2, d, generator=generator), labels

    @staticmethod
    def reference(
        z: Tensor, labels: Tensor, *, scale: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in each column's mean."""
        n, views = z.shape[:2]
        flat = z.flatten(0, 1)
        s = (scale * (flat @ flat.mT) + bias).fill_diagonal_(-torch.inf)
        losses, counted = [], []
        for column in labels.view(n, -1).unbind(1):
            label = column.repeat_interleave(views)
            mask = ((label[:, None] == label) & (label >= 0)).fill_diagonal_(False)
            some = mask.any(1, keepdim=True)
            others = torch.where(some, s.masked_fill(label < 0, -torch.inf), 0.0)
            log_p = torch.where(mask, s - others.logsumexp(1, keepdim=True), 0.0)
            losses.append(-log_p.sum(1) / mask.sum(1).clamp_min(1))
            counted.append(mask.any(1))
        size = (n, views, *labels.shape[1:])
        return torch.stack(losses, 1).view(size), torch.stack(counted, 1).view(size)
