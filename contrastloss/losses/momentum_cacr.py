"""Contrastive attraction and repulsion against a momentum encoder's keys (CACR)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import EXPECT, LSE, SUM, Channel, differs, same
from ..options import Temperature
from .base.pair_loss import PairLoss
from .base.reweighting import with_constant_weights
from .base.scores import Scores, lacking, wide

__all__ = ["MomentumCACRLoss"]

INSTANCE = "instance"
_OWN = SUM("id", pairs=(same(INSTANCE),))
_CHANNELS: dict[str, tuple[Channel, ...]] = {
    "rbf": (LSE(), _OWN),
    "euclidean": (EXPECT(pairs=(differs(INSTANCE),)), _OWN),
}


class MomentumCACRLoss(PairLoss, name="momentum_cacr"):
    r"""CACR of several queries and a key of each instance: far queries are attracted the most.

    With queries :math:`q_{iv}`, keys :math:`k_i`, :math:`s_{iv,j} = \cos(q_{iv}, k_j) / \tau` and
    the weights

    :math:`w_{iv} = \frac{e^{|q_{iv} - k_i|^2 / \tau}}{\sum_u e^{|q_{iu} - k_i|^2 / \tau}}`

    of unit vectors, which are constants,

    :math:`\begin{aligned}
    \text{rbf: } \ell_i &= -\sum_v w_{iv} \log \frac{e^{s_{iv,i}}}{\sum_j e^{s_{iv,j}}} \\
    \text{euclidean: } \ell_i &= \sum_v w_{iv} \Bigl[ d_{iv,i} - \sum_{j \ne i}
    \frac{e^{-d_{iv,j} / \tau}}{\sum_{l \ne i} e^{-d_{iv,l} / \tau}} d_{iv,j} \Bigr],
    \qquad d = 1 - \cos
    \end{aligned}`

    where the softmax of the repulsion is constant, too. The authors' code multiplies the first by 2
    tau, and sums the second over the rows.

    Args:
        temperature: tau, positive. Default: 1.
        cost: ``'rbf'`` or ``'euclidean'``. Default: ``'rbf'``.

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
        queries: (N, V, D), those of other crops than the key's.
        keys: (N, D), without gradient. With a group, queries meet those of all ranks.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation
    Learning, 2023: pre-training on ImageNet.
    """

    temperature: Temperature = 1.0
    _: KW_ONLY
    cost: Literal["rbf", "euclidean"] = "rbf"

    inputs: ClassVar[dict[str, str]] = {"queries": "N V>=1 D", "keys": "N D"}
    without: ClassVar[dict[str, str]] = {
        "memory": "its negatives are the keys of the batch",
        "return_stats": "a row has several queries",
    }
    VECTORS = frozenset()

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"keys"})

    @property
    def stops_gradients(self) -> bool:
        return True  # the weights

    def channels(self) -> tuple[Channel, ...]:
        return _CHANNELS[self.cost]

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        (n, views), keys = queries.shape[:2], keys.detach()
        scores = self.scores(queries.flatten(0, 1), keys, logit_scale, logit_bias)
        own = scores.distinct(torch.arange(n, device=keys.device))
        ids = {INSTANCE: own.repeat_interleave(views)}, {INSTANCE: own}
        found, positive = scores.stats(self._channels, *ids)
        if self.cost == "rbf":
            losses = found - positive
        else:
            losses = self._euclidean(scores, found, positive)
        weights = self._weights(queries.detach(), keys, scores)
        return self.reduce((weights * losses.view(n, views)).sum(1))

    def _euclidean(self, scores: Scores, found: Any, positive: Tensor) -> Tensor:
        some = found.lse != -torch.inf
        mean, tau = with_constant_weights(found), 1.0 / scores.inverse_temperature
        return torch.where(some, tau * (mean - positive), 1.0 - scores.cosines(positive))

    @torch.no_grad()
    def _weights(self, queries: Tensor, keys: Tensor, scores: Scores) -> Tensor:
        q, k = wide(queries), wide(keys)
        if self.normalize:
            q, k = ops.unit(q), ops.unit(k)
        distance = (q - k.unsqueeze(1)).square().sum(2)
        if self.normalize:
            distance = distance + lacking(q) + lacking(k).unsqueeze(1)
        return (distance * scores.inverse_temperature).softmax(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        centre, noise = torch.randn(2, n, 1, d, generator=generator).double()
        queries = centre + 0.9 * torch.randn(n, 3, d, generator=generator).double()
        return queries, (centre + 0.9 * noise).squeeze(1)

    @staticmethod
    def reference(
        queries: Tensor,
        keys: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        cost: str,
        normalize: bool,
    ) -> Tensor:
        keys = keys.detach()
        if normalize:
            queries, keys = (torch.nn.functional.normalize(v, dim=-1) for v in (queries, keys))
        cosines = torch.einsum("nvd,md->nvm", queries, keys)
        apart = (queries - keys[:, None]).square().sum(2)
        if normalize:
            zero = (queries == 0).all(2) | (keys == 0).all(1)[:, None]
            apart = torch.where(zero, 2.0, apart)
        weights = (apart * scale).softmax(1).detach()
        own = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
        positive = (cosines * own[:, None]).sum(2)
        if cost == "rbf":
            losses = (scale * cosines + bias).logsumexp(2) - scale * positive - bias
        else:
            losses = 1 - positive + 0 * (scale + bias)
            if len(keys) > 1:
                far = (cosines - 1).masked_fill(own[:, None], -torch.inf)
                p = (far * scale).softmax(2).detach()
                losses = losses + (p * torch.where(own[:, None], 0.0, far)).sum(2)
        return (weights * losses).sum(1)
