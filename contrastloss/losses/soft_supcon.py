"""Supervised contrastive loss with soft label similarities."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, SUM, form
from ..options import Temperature
from .base.loss import nan_rows
from .base.pair_loss import PairLoss
from .base.scores import at_least_one, wide

__all__ = ["SoftSupConLoss"]

TARGET = "target"
_WEIGHT = (form(TARGET, log=True),)


class SoftSupConLoss(PairLoss, name="soft_supcon"):
    r"""SupCon with soft positives: pairs are weighted by the similarity of their labels.

    With m the rows of ``targets``, :math:`t_{ij} = \cos(m_i, m_j)`, :math:`T_i = \sum_{j \ne i}
    t_{ij}` and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\begin{aligned}
    \text{ce: } \ell_i &= -\frac{1}{T_i} \sum_{j \ne i} t_{ij}
    \log \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}} \\
    \text{bce: } \ell_i &= \frac{1}{N - 1} \sum_{j \ne i}
    \bigl[\log(1 + e^{s_{ij}}) - t_{ij} s_{ij}\bigr]
    \end{aligned}`

    With ``'ce'``, a row with :math:`T_i = 0` has loss 0, and ``reduction='mean'`` averages over the
    other rows. With ``'bce'`` it averages over all rows.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'ce'``, a softmax over the other rows, or ``'bce'``, a sigmoid of every pair.
            Default: ``'ce'``.
        normalize_targets: False uses :math:`t_{ij} = \langle m_i, m_j \rangle`; with ``'bce'`` no
            product should exceed 1. Default: True.
        validate: additionally raise ValueError on negative targets. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, D).
        targets: (N, C), multi-hot or soft labels >= 0 of any real dtype, without gradient.
        Negative values are clamped to 0.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: after Wang et al., Multi-Label Guided Soft Contrastive Learning for Efficient Earth
    Observation Pretraining, 2024, which compares two views: ``SoftTargetLoss``.
    """

    temperature: Temperature = 0.1
    variant: Literal["ce", "bce"] = "ce"
    _: KW_ONLY
    normalize_targets: bool = True

    inputs: ClassVar[dict[str, str]] = {"z": "N D", "targets": "N C>=1 real"}
    without: ClassVar[dict[str, str]] = {
        "memory": "a queue holds one integer label per column",
        "return_stats": "its targets are soft: no pair is a positive or a negative",
    }

    _CE = (LSE(), SUM("one", weight=_WEIGHT), SUM("id", weight=_WEIGHT))
    _BCE = (SUM("softplus"), SUM("id", weight=_WEIGHT))

    def forward(
        self,
        z: Tensor,
        targets: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if self.validate and bool((targets < 0).any()):
            raise ValueError(
                f"targets: got {targets.min().item()}, expected none below 0 (validate=True)"
            )
        target = targets.detach().to(wide(z).dtype).clamp_min(0)
        if self.normalize_targets:
            target = ops.unit(target)
        scores = self.scores(z, None, logit_scale, logit_bias)
        rows, nan = {TARGET: target}, nan_rows(z)
        if self.variant == "bce":
            repulsion, attraction = scores.stats(self._BCE, rows)
            losses = (repulsion - attraction) / at_least_one(scores.count - 1)
            return self.reduce(losses, None, nan)
        everything, mass, attraction = scores.stats(self._CE, rows)
        some = mass > 0
        mean = attraction / torch.where(some, mass, 1.0)
        return self.reduce(torch.where(some, everything - mean, 0.0), some, nan)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One to three labels per row; each label has a direction."""
        size = min(max(n // 4, 2), 24)
        targets = torch.zeros(n, size, dtype=torch.int64)
        targets.scatter_(1, torch.randint(size, (n, 3), generator=generator), 1)
        centre, noise = (torch.randn(k, d, generator=generator).double() for k in (size, n))
        return targets.double().mm(centre) + 0.7 * noise, targets

    @staticmethod
    def reference(
        z: Tensor,
        targets: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        variant: str,
        normalize_targets: bool,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        m, n = targets.to(z.dtype), len(z)
        if normalize_targets:
            m = torch.nn.functional.normalize(m)
        t = (m @ m.mT).fill_diagonal_(0)
        s = scale * (z @ z.mT) + bias
        if variant == "bce":
            pairs = torch.logaddexp(s, torch.zeros_like(s)).fill_diagonal_(0) - t * s
            return pairs.sum(1) / max(n - 1, 1), torch.ones_like(t[:, 0], dtype=torch.bool)
        log_p = s - s.clone().fill_diagonal_(-torch.inf).logsumexp(1, keepdim=True)
        mass = t.sum(1)
        losses = -torch.where(t > 0, t * log_p, 0.0).sum(1) / torch.where(mass > 0, mass, 1.0)
        return losses, mass > 0
