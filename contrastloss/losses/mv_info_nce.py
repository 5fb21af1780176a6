"""InfoNCE with any number of views."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import LSE, Channel, differs, same
from ..memory import EmbeddingQueue
from ..ops.merge import log_sum_exp
from ..options import Temperature
from .base.blocks import BATCH
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.positive_loss import INSTANCE
from .base.views import views_example

__all__ = ["MVInfoNCELoss"]

VIEW = "view"
POSITIVES = LSE(pairs=(same(INSTANCE),))
NEGATIVES: dict[bool, Channel] = {
    False: LSE(pairs=(differs(INSTANCE), differs(VIEW))),
    True: LSE(pairs=(differs(INSTANCE),)),
}


class MVInfoNCELoss(PairLoss, name="mv_info_nce"):
    r"""Multi-view InfoNCE: one term per instance, with all of its views as positives.

    With the views :math:`z_{il}` and :math:`s_{il,jm} = \cos(z_{il}, z_{jm}) / \tau`,

    :math:`\ell_i = -\log \frac{\sum_{l \ne m} e^{s_{il,im}}}
    {\sum_{l \ne m} \sum_j e^{s_{il,jm}}}`

    Args:
        temperature: tau, positive. Default: 0.1.
        same_view: whether the denominator includes other instances in the same view, l = m: True
            in the released code, False in the paper. Default: False.

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
        z: (N, V, D), V >= 2 views of each instance.
        memory: an EmbeddingQueue of additional negatives for all views.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025.
    """

    temperature: Temperature = 0.1
    same_view: bool = False

    inputs: ClassVar[dict[str, str]] = {"z": "N V>=2 D"}
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    without: ClassVar[dict[str, str]] = {
        "return_stats": "all positives of an instance are in one term"
    }

    def forward(
        self,
        z: Tensor,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        n, views = z.shape[:2]
        blocks = (BATCH, *self.stored(memory, ids, ("z", z), views=views))
        scores = self.scores(z.flatten(0, 1), None, logit_scale, logit_bias, blocks=blocks)
        instance = scores.distinct(torch.arange(n, device=z.device))
        rows = {INSTANCE: instance.repeat_interleave(views)}
        if not self.same_view:
            rows[VIEW] = torch.arange(views, device=z.device).repeat(n)
        found = scores.stats((POSITIVES, NEGATIVES[self.same_view]), rows)
        positive, negative = (log_sum_exp(v.view(n, views).mT) for v in found)
        return self.reduce(softplus(negative - positive))

    @staticmethod
    def reference(z: Tensor, *, scale: Tensor, bias: Tensor, same_view: bool) -> Tensor:
        n, views = z.shape[:2]
        s = scale * torch.einsum("ild,jmd->iljm", z, z) + bias
        own = torch.eye(n, dtype=torch.bool, device=z.device)[:, None, :, None]
        alike = torch.eye(views, dtype=torch.bool, device=z.device)[:, None]
        pairs = ~(own & alike) if same_view else ~alike.expand_as(s)
        positive = s.masked_fill(~(own & ~alike), -torch.inf).flatten(1).logsumexp(1)
        return s.masked_fill(~pairs, -torch.inf).flatten(1).logsumexp(1) - positive

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return views_example(n, d, generator)
