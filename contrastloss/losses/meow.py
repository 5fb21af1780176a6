"""Contrastive loss with negatives weighted by clusterings (MEOW)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import LSE, differing
from ..options import Temperature, shape
from .base.positive_loss import CrossLoss

__all__ = ["MEOWLoss"]

#: names of the clusterings
_NAMES = tuple(f"cluster{t}" for t in range(16))
#: the channel for 1, 2, ... clusterings
_BY_COUNT = tuple(LSE(weight=(differing(*_NAMES[: t + 1]),)) for t in range(len(_NAMES)))


class MEOWLoss(CrossLoss, name="meow"):
    r"""MEOW: negatives are weighted by the number of clusterings that separate the pair.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{\sum_j w_{ij} e^{s_{ij}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau, \quad w_{ij} = \#\{t : c_{it} \ne c_{jt}\}`

    Since :math:`w_{ii} = 0`, the positive is not in the denominator, and the loss can be negative.
    A row that shares its clusters with all others in every clustering has loss 0 and is counted in
    the mean.

    Args:
        temperature: tau, positive. Default: 0.5.

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
        x, y: (N, D).
        clusters: (N, T), integers, for T <= 16 clusterings; with a group, those of this rank's
        rows.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, 2022. The paper adds ProtoNCE.
    """

    temperature: Temperature = 0.5

    without: ClassVar[dict[str, str]] = {"memory": "a queue holds one integer label per column"}

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D", "clusters": "N T int"}

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        clusters: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        count = clusters.shape[1]
        if not 1 <= count <= len(_NAMES):
            expected = f"({x.shape[0]}, T) with T from 1 to {len(_NAMES)}"
            raise ValueError(f"clusters: got shape {shape(clusters)}, expected {expected}")
        ids = dict(zip(_NAMES[:count], clusters.unbind(1), strict=True))
        channels = (_BY_COUNT[count - 1], self.positive)
        scores = self.scores(x, y, logit_scale, logit_bias)
        (negative, positive), extra = self.measure(scores, channels, ids, ids)
        alike = (negative == -torch.inf) & ~positive.isnan()
        losses = torch.where(alike, 0.0, negative - positive)
        return self.finish(losses, extra, positive)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        centre, *noise = (torch.randn(n, d, generator=generator).double() for _ in range(3))
        x, y = (centre + v for v in noise)
        return x, 2 * y, torch.randint(0, 3, (n, 4), generator=generator)

    @staticmethod
    def reference(x: Tensor, y: Tensor, clusters: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        s = scale * (x @ y.mT) + bias
        w = (clusters[:, None] != clusters).sum(2).to(s.dtype)
        some = w.any(1)
        w = w + torch.eye(len(x), device=x.device, dtype=s.dtype) * ~some[:, None]
        return (s + torch.log(w)).logsumexp(1) - s.diag()
