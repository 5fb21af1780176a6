"""Contrastive attraction and contrastive repulsion (CACR)."""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import EXPECT, INDEX, differs
from ..memory import EmbeddingQueue
from ..options import NonNegative, Positive, Prior, Temperature, shape
from .base.checks import check_queue
from .base.loss import ScoreLoss
from .base.reweighting import with_constant_weights
from .base.scores import lacking, wide

__all__ = ["CACRLoss"]

SLOT = "slot"


class CACRLoss(ScoreLoss, name="cacr"):
    r"""CACR: attracts far positives and repels near negatives the most.

    With the squared distances :math:`D_{ij} = |x_i - y_j|^2 / \tau` of unit vectors,

    :math:`\ell_i = \alpha \sum_k \frac{e^{t^+ D_{ik}}}{\sum_l e^{t^+ D_{il}}} D_{ik} -
    \beta \sum_{j \ne i} \frac{e^{-t^- D_{ij}}}{\sum_{l \ne i} e^{-t^- D_{il}}} D_{ij}`

    The first sum is over the positives of row i, the second over the first positive of every other
    row. Of V views, the attraction is the mean over views, to the V - 1 other ones, and the
    repulsion the mean over pairs of views. ``tau_plus`` debiases the repulsion :math:`R_i`, the
    second term, to :math:`(R_i - \tau^+ D_{ii}) / (1 - \tau^+)`, for classes of unequal sizes.

    Args:
        temperature: tau, positive. Default: 1.
        alpha: weight of the attraction, >= 0; 0 leaves it out. Default: 1.
        beta: weight of the repulsion, >= 0; 0 leaves it out. Not both are 0. Default: 1.
        t_positive: t+, positive; larger values emphasise the farthest positives. Default: 1.
        t_negative: t-, positive; larger values emphasise the nearest negatives. Default: 2.
        detach_weights: whether both softmaxes are constants; False differentiates them, as in the
            authors' code for small images. Default: False.
        tau_plus: the prior of a class, in [0, 1); 0 does not debias. Default: 0.
        normalize: whether x and y are normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x: (N, D), or (N, V, D) for V >= 2 views of each instance, without y.
        y: (N, D), or (N, K, D) for K positives per row; None for views.
        memory: an EmbeddingQueue of further negatives, whose weights' gradient by their own
        distances is left out, as in the authors' code; None for none.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has the attraction only.

    Source: Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation
    Learning, 2023.
    """

    temperature: Temperature = 1.0
    alpha: NonNegative = 1.0
    beta: NonNegative = 1.0
    t_positive: Positive = 1.0
    t_negative: Positive = 2.0
    detach_weights: bool = False
    tau_plus: Prior = 0.0

    inputs: ClassVar[dict[str, str]] = {"x": "N D | N V>=2 D", "y": "N D | N K>=1 D"}
    without: ClassVar[dict[str, str]] = {
        "group": "its repulsion is between the rows of one process",
        "return_stats": "it compares distances, not scores",
    }

    def check(self) -> None:
        super().check()
        if not (self.alpha or self.beta):
            raise ValueError("beta: got 0.0 with alpha=0, expected one of them to be positive")

    def prepare(self) -> None:
        super().prepare()
        # -D is 2 s plus a constant per row
        theta = 2.0 * self.t_negative
        self._negatives = (EXPECT(theta=theta, pairs=(differs(INDEX),)),)
        self._stored = (EXPECT(theta=theta, pairs=(differs(SLOT),)),)

    @property
    def stops_gradients(self) -> bool:
        return self.detach_weights

    def forward(
        self, x: Tensor, y: Tensor | None = None, *, memory: EmbeddingQueue | None = None
    ) -> Tensor:
        if (x.ndim == 3) != (y is None):
            got = "None" if y is None else f"a value with x of shape {shape(x)}"
            raise ValueError(f"y: got {got}, expected {'None' if x.ndim == 3 else 'a tensor'}")
        if memory is not None:
            check_queue(self, "memory", memory, ("x", x), x.shape[0], None)
        scale = self.scores(x.flatten(0, -2), None).scale
        if y is None:
            return self.reduce(self._of_views(x, scale, memory))
        y = y.unsqueeze(1) if y.ndim == 2 else y
        losses = x.new_zeros(x.shape[0], dtype=wide(x).dtype)
        if self.alpha:
            losses = losses + self.alpha * self._attraction(x, y, scale)
        if self.beta:
            losses = losses + self._debiased(x, y[:, 0], scale, memory)
        return self.reduce(losses)

    def _of_views(self, x: Tensor, scale: Tensor | float, memory: EmbeddingQueue | None) -> Tensor:
        views = x.unbind(1)
        parts = []
        if self.alpha:
            for k, view in enumerate(views):
                others = torch.stack([*views[:k], *views[k + 1 :]], 1)
                parts.append(self.alpha / len(views) * self._attraction(view, others, scale))
        if self.beta:
            pairs = list(combinations(views, 2))
            for one, other in pairs:
                parts.append(self._debiased(one, other, scale, memory) / len(pairs))
        return torch.stack(parts).sum(0)

    def _attraction(self, x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
        """Weighted mean distance of the positives."""
        distance = self._distance(x, y) * scale
        weights = (self.t_positive * distance).softmax(1)
        return ((weights.detach() if self.detach_weights else weights) * distance).sum(1)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the rows of x to their positives (N, K, D), computed from differences: 2 - 2 cos loses
        all digits of small distances."""
        x, y = wide(x), wide(y)
        if self.normalize:
            x, y = (ops.unit(v) for v in (x, y))
        distance = (x.unsqueeze(1) - y).square().sum(-1)
        if self.normalize:
            distance = distance + lacking(x).unsqueeze(1) + lacking(y)
        return distance

    def _debiased(
        self, x: Tensor, y: Tensor, scale: Tensor | float, memory: EmbeddingQueue | None
    ) -> Tensor:
        """The repulsion, times its weight."""
        repulsion, some = self._repulsion(x, y, scale, memory)
        repulsion = self.beta * repulsion
        if not self.tau_plus:
            return repulsion
        own = self._distance(x, y.unsqueeze(1)).squeeze(1) * scale
        repulsion = (repulsion - self.tau_plus * own) / (1.0 - self.tau_plus)
        return torch.where(some, repulsion, 0.0)

    def _repulsion(
        self, x: Tensor, y: Tensor, scale: Tensor | float, memory: EmbeddingQueue | None
    ) -> tuple[Tensor, Tensor]:
        """Minus the weighted mean distance of the negatives, and which rows have any."""
        theta = self._negatives[0].theta
        found = self._expectation(x, y, scale, self._negatives)
        some, lse, mean = found.lse != -torch.inf, found.lse, found.value
        if self.detach_weights:
            mean = with_constant_weights(found, theta)
        if memory is not None:
            queue = memory.snapshot()
            assert queue.steps is not None
            step = queue.steps.new_full((x.shape[0],), -1)
            ids = {"rows": {SLOT: step}, "cols": {SLOT: queue.steps}}
            stored = self._expectation(wide(x), wide(queue.embeddings), scale, self._stored, **ids)
            there = stored.lse != -torch.inf
            theirs = with_constant_weights(stored, theta)
            # their share of the weights is constant but for the log-sum-exp of the batch
            own = lse.detach() if self.detach_weights else lse
            both = torch.where(some, own - torch.where(there, stored.lse.detach(), 0.0), 0.0)
            share = torch.where(there & some, torch.sigmoid(-both), there.to(both.dtype))
            mean = share * theirs + (1.0 - share) * mean
            some = some | there
        length: Tensor | float = 2.0 if self.normalize else wide(x).square().sum(1)
        return torch.where(some, 2.0 * mean - length * scale, 0.0), some

    def _expectation(
        self, x: Tensor, y: Tensor, scale: Tensor | float, channels: tuple[EXPECT], **ids: Any
    ) -> Any:
        bias = rounded = None
        if not self.normalize:
            bias = -0.5 * scale * wide(y).square().sum(1)
            rounded = x.dtype  # also under autocast, since distances are differences
        (found,) = ops.pair_stats(
            x,
            y,
            channels,
            scale=scale,
            col_bias=bias,
            cosine=self.normalize,
            compute_dtype=rounded,
            backend=self.backend,
            **ids,
        )
        return found

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        alpha: float,
        beta: float,
        t_positive: float,
        t_negative: float,
        detach_weights: bool,
        tau_plus: float,
        normalize: bool,
    ) -> Tensor:
        if normalize:
            x, y = (torch.nn.functional.normalize(v, dim=-1) for v in (x, y))

        def mean(distance: Tensor, t: float, out: Tensor | None = None) -> Tensor:
            logits = t * distance
            weights = (logits if out is None else logits.masked_fill(out, -torch.inf)).softmax(1)
            return ((weights.detach() if detach_weights else weights) * distance).sum(1)

        def distances(views: Tensor) -> Tensor:
            """Distances, with cosine 0 for a zero vector."""
            rest = [((v == 0).all(-1) & normalize).to(v.dtype) for v in (x[:, None], views)]
            return scale * ((x[:, None] - views).square().sum(2) + rest[0] + rest[1])

        views = y if y.ndim == 3 else y[:, None]
        near = distances(views)
        losses = alpha * mean(near, t_positive)
        if len(x) > 1:
            far = distances(views[None, :, 0])
            own = torch.eye(len(x), dtype=torch.bool, device=x.device)
            repulsion = -beta * mean(far, -t_negative, own)
            if tau_plus:
                repulsion = (repulsion - tau_plus * near[:, 0]) / (1 - tau_plus)
            losses = losses + repulsion
        return losses
