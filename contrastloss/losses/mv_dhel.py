"""MV-DHEL: multi-view contrastive loss with decoupled alignment and uniformity."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import INDEX, LSE, precedes
from ..ops.merge import log_sum_exp
from ..options import Temperature
from .base.loss import nan_rows
from .base.pair_loss import PairLoss
from .base.views import views_example

__all__ = ["MVDHELLoss"]

UNIFORM = (LSE(),)
#: every pair of views of an instance once
ALIGNED = (LSE(pairs=(precedes(INDEX),)),)


class MVDHELLoss(PairLoss, name="mv_dhel"):
    r"""MV-DHEL: uniformity within each view, alignment of all views in one term.

    With the views :math:`z_{il}` and :math:`s_{il,jm} = \cos(z_{il}, z_{jm}) / \tau`,

    :math:`\ell_i = \sum_l \log \sum_{j \ne i} e^{s_{il,jl}} -
    \log \sum_{l < m} e^{s_{il,im}}`

    This is a sum of logarithms, since a product of sums would overflow at a low temperature.

    Args:
        temperature: tau, positive. Default: 0.1.
        group: the views of all ranks are always gathered, whatever the strategy.

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

    Shape:
        z: (N, V, D), V >= 2 views of each instance.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025.
    """

    temperature: Temperature = 0.1

    inputs: ClassVar[dict[str, str]] = {"z": "N V>=2 D"}
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    without: ClassVar[dict[str, str]] = {
        "memory": "negatives are of the same view, and a queue holds no views",
        "return_stats": "all positives of an instance are in one term",
    }

    def forward(
        self,
        z: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        over = logit_scale, logit_bias
        (spread,) = self.scores(z.movedim(1, 0), None, *over).stats(UNIFORM)
        (near,) = self.scores(z, None, *over, alone=True).stats(ALIGNED)
        some = spread != -torch.inf
        spread = torch.where(some, spread, 0.0).sum(0)
        rows = spread - log_sum_exp(near.mT)
        return self.reduce(torch.where(some[0], rows, 0.0), None, nan_rows(z).any(1))

    @staticmethod
    def reference(z: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
        n, views = z.shape[:2]
        if n < 2:
            return 0.0 * z.sum((1, 2))
        s = scale * torch.einsum("ild,jld->lij", z, z) + bias
        own = torch.eye(n, dtype=torch.bool, device=z.device)
        spread = s.masked_fill(own, -torch.inf).logsumexp(2).sum(0)
        one, two = torch.triu_indices(views, views, 1, device=z.device)
        return spread - (scale * (z[:, one] * z[:, two]).sum(-1) + bias).logsumexp(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return views_example(n, d, generator)
