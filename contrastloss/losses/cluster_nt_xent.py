"""NT-Xent with negatives chosen by cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..channel import LSE, Channel, Test, differs, same
from ..memory import EmbeddingQueue
from ..ops import Part
from ..options import Temperature
from .base.blocks import BATCH
from .base.positive_loss import INSTANCE, SOFTMAX, TwoViewLoss

__all__ = ["ClusterNTXentLoss"]

CLUSTER, VIEW = "cluster", "view"


class ClusterNTXentLoss(TwoViewLoss, name="cluster_nt_xent"):
    r"""NT-Xent with negatives from other clusters only, or from the same cluster only.

    :math:`\ell_i = -\log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{j \in N_i} e^{s_{ij}}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance. :math:`N_i` are
    the rows of other instances in a different cluster (``'other'``: G-SimCLR, which avoids false
    negatives) or in the same cluster (``'own'``: MCL, where the features of an earlier stage do not
    separate the negatives). A row without negatives has loss 0 and is counted: the mean is over 2N
    rows.

    Args:
        temperature: tau, positive. Default: 0.1.
        against: the clusters of the negatives, ``'other'`` or ``'own'``. Default: ``'other'``.
        across: negatives are rows of the other view only: x against y and y against x, the two
            directions of CLIP. Default: False.
        return_stats: the statistics average over the rows that have a negative.

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

    Shape:
        x, y: (N, D).
        clusters: (N,), integers; with a group, those of this rank's rows.
        memory: an EmbeddingQueue made with ``labels=True``, whose labels are clusters: additional
        negatives.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (2N,) for ``reduction='none'``, x's rows first.

    Source: Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided
    Projection via Pseudo Labelling, 2020; Zhang et al., Learning the Unlearned: Mitigating Feature
    Suppression in Contrastive Learning, 2024.
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    against: Literal["other", "own"] = "other"
    across: bool = False

    _TESTS: ClassVar[dict[str, Test]] = {"other": differs(CLUSTER), "own": same(CLUSTER)}

    inputs: ClassVar[dict[str, str]] = {"x": "N D", "y": "N D", "clusters": "N int"}
    OF_ROWS_WITH_NEGATIVES = True

    @property
    def negatives(self) -> tuple[Test, ...]:  # type: ignore[override]
        pairs = (differs(INSTANCE), self._TESTS[self.against])
        return (*pairs, differs(VIEW)) if self.across else pairs

    def channels(self) -> tuple[Channel, ...]:
        return (LSE(pairs=self.negatives),)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        clusters: Tensor,
        *,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        n = x.shape[0]
        blocks = (BATCH, *self.stored(memory, ids, ("x", x), labels=CLUSTER, copies=2))
        z = torch.cat([x, y])
        scores = self.scores(z, None, logit_scale, logit_bias, copies=2, blocks=blocks)
        position = torch.arange(2 * n, device=x.device)
        rows = {
            INSTANCE: scores.distinct(position % max(n, 1)),
            CLUSTER: clusters.repeat(2),
        }
        if self.across:
            rows[VIEW] = position // max(n, 1)
        return self.evaluate(scores, rows)

    def parts(self) -> Sequence[Part]:
        return SOFTMAX

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Positives about as similar as the most similar negative."""
        x, other = torch.randn(2, n, d, generator=generator).double()
        cosine = min(0.8, math.sqrt(2 * math.log(n + 2) / d))
        y = cosine * x + math.sqrt(1 - cosine**2) * other
        return x, 2 * y, torch.randint(0, 3, (n,), generator=generator)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        clusters: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        against: str,
        across: bool,
    ) -> Tensor:
        z, n = torch.cat([x, y]), len(x)
        s, i = scale * (z @ z.mT) + bias, torch.arange(2 * n, device=x.device)
        label = clusters.repeat(2)
        kept = (label[:, None] == label) == (against == "own")
        kept &= i[:, None] % n != i % n
        if across:
            kept &= i[:, None] // n != i // n
        positive = s[i, i.roll(n)]
        kept[i, i.roll(n)] = True
        return s.masked_fill(~kept, -torch.inf).logsumexp(1) - positive
