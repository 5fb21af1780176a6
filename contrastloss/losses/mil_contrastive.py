"""Multiple-instance contrastive loss between two modalities."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..channel import LSE, col_weight
from ..ops.check import check_range
from ..options import Count, Temperature
from .base.loss import ScoreLoss, softplus
from .base.scores import wide

__all__ = ["MILContrastiveLoss"]

_BACKGROUND, _NORMAL = "background", "normal"
_CHANNELS = tuple(LSE(weight=(col_weight(name),)) for name in (_BACKGROUND, _NORMAL))


class MILContrastiveLoss(ScoreLoss, name="mil_contrastive"):
    r"""Aligns the top-scoring snippets of positive bags across two modalities, against normal ones.

    In bag b of length :math:`T_b`, each modality selects its :math:`k_b = \lfloor T_b /
    \text{divisor} \rfloor + 1` snippets with the highest scores and its :math:`k_b` snippets with
    the lowest scores. With :math:`\bar x_b`, :math:`\bar y_b` the means of the highest-scoring
    snippets, the loss of a positive bag is

    :math:`\ell_b = \sum_{V \in \{\text{background}, \text{normal}\}}
    -\log \frac{e^{s(\bar x_b, \bar y_b)}}
    {e^{s(\bar x_b, \bar y_b)} + \sum_{v \in V_y} e^{s(\bar x_b, v)}}
    -\log \frac{e^{s(\bar y_b, \bar x_b)}}
    {e^{s(\bar y_b, \bar x_b)} + \sum_{v \in V_x} e^{s(\bar y_b, v)}}`

    where :math:`s = \cos / \tau`. The background is the lowest-scoring snippets of all bags; the
    normal set is the highest-scoring snippets of the negative bags. A term without negatives is 0.
    Every positive bag counts once; with ``released=True``, :math:`k_b` times.

    Args:
        temperature: tau, positive. Default: 0.1.
        divisor: determines :math:`k_b`, at least 1. Default: 16.
        released: as the released code has it, which repeats a bag's query :math:`k_b` times, so
            that longer bags count more, and whose loss is 0 if no bag is negative. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x, y: (B, T, D), the snippets in both modalities.
        scores_x, scores_y: (B, T), the scores of each modality, which get no gradient.
        labels: (B,), bool or integers; nonzero for positive bags.
        lengths: (B,), integers; later snippets are padding. None: all have length T.
        Loss: (), or (B,) for ``reduction='none'``. Negative and empty bags have loss 0 and are not
        counted in the mean.

    Source: Yu et al., Modality-Aware Contrastive Instance Learning with Self-Distillation for
    Weakly-Supervised Audio-Visual Violence Detection, 2022.
    """

    temperature: Temperature = 0.1
    divisor: Count = 16
    released: bool = False

    inputs: ClassVar[dict[str, str]] = {
        "x": "B T>=1 D",
        "y": "B T D",
        "scores_x": "B T float",
        "scores_y": "B T float",
        "labels": "B int",
        "lengths": "B int",
    }
    without: ClassVar[dict[str, str]] = {
        "group": "its snippets are chosen from the bags of one process",
        "memory": "its negatives are snippets of the bags of the batch",
        "return_stats": "a bag has two queries and two kinds of negatives",
    }

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"scores_x", "scores_y"})

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        scores_x: Tensor,
        scores_y: Tensor,
        labels: Tensor,
        lengths: Tensor | None = None,
    ) -> Tensor:
        bags, steps, d = x.shape
        if lengths is None:
            lengths = torch.full((bags,), steps, device=x.device)
        check_range("lengths", lengths, 0, steps, "the steps of x")
        lengths = lengths.long().clamp(0, steps)
        count = torch.minimum(lengths // self.divisor + 1, lengths)[:, None]
        most = min(steps, steps // self.divisor + 1)
        used = torch.arange(most, device=x.device) < count
        padding = torch.arange(steps, device=x.device) >= lengths[:, None]
        positive = labels != 0
        kept = {_BACKGROUND: used, _NORMAL: used & ~positive[:, None]}
        no = torch.zeros_like(used)
        cols = {
            name: torch.where(torch.cat(sides).flatten(), 0.0, -torch.inf)
            for name, sides in (
                (_BACKGROUND, [kept[_BACKGROUND], no]),
                (_NORMAL, [no, kept[_NORMAL]]),
            )
        }
        means, negatives = [], []
        for z, scores in ((x, scores_x), (y, scores_y)):
            high, low = _extremes(wide(z), scores.detach(), padding, most)
            high, low = (torch.where(used[..., None], v, 0.0) for v in (high, low))
            means.append(high.sum(1) / count.clamp_min(1))
            negatives.append(torch.cat([low, high]).view(-1, d))
        losses = torch.zeros_like(means[0][:, 0])
        for query, key, others in (
            (means[0], means[1], negatives[1]),
            (means[1], means[0], negatives[0]),
        ):
            own = self.scores(query, key).aligned()
            for negative in self.scores(query, others).stats(_CHANNELS, cols=cols):
                losses = losses + softplus(negative - own)
        counted = positive & (lengths > 0)
        if not self.released:
            return self.reduce(losses, counted)
        counted = torch.where(counted & kept[_NORMAL].any(), count.squeeze(1), 0)
        return self.reduce(losses * count.squeeze(1), counted)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Bags of five snippets, whose scores are distinct in every dtype."""
        shared, *noise = torch.randn(3, n, 5, d, generator=generator, dtype=torch.float64)
        scores = torch.rand(2, n, 5, generator=generator).argsort(-1).double()
        return *(shared + v for v in noise), *scores, torch.arange(n) % 2

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        scores_x: Tensor,
        scores_y: Tensor,
        labels: Tensor,
        lengths: Tensor | None = None,
        *,
        scale: float,
        bias: float,
        divisor: int,
        released: bool,
        normalize: bool,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the bags that count in the mean."""
        if lengths is None:
            lengths = torch.full_like(labels, x.shape[1], dtype=torch.int64)
        mean, low, normal = ([[], []] for _ in range(3))  # type: ignore[var-annotated]
        for b, length in enumerate(lengths.tolist()):
            k = min(length // divisor + 1, length)
            for side, (z, scores) in enumerate(((x, scores_x), (y, scores_y))):
                order = scores[b, :length].argsort(descending=True)
                mean[side].append(z[b, order[:k]].sum(0) / max(k, 1))
                low[side].append(z[b, order[length - k :]])
                normal[side].append(z[b, order[: 0 if labels[b] else k]])
        unit = torch.nn.functional.normalize if normalize else lambda v: v
        losses = torch.zeros_like(x[:, 0, 0])
        for a, b in ((0, 1), (1, 0)):
            query, key = (unit(torch.stack(mean[side])) for side in (a, b))
            own = scale * (query * key).sum(1, keepdim=True) + bias
            for columns in (low[b], normal[b]):
                s = scale * (query @ unit(torch.cat(columns)).mT) + bias
                losses = losses + (torch.cat([own, s], 1).logsumexp(1) - own[:, 0])
        counted = (labels != 0) & (lengths > 0)
        if released:
            some = ((labels == 0) & (lengths > 0)).any()
            counted = counted * some * torch.minimum(lengths // divisor + 1, lengths)
            return counted * losses, counted
        return torch.where(counted, losses, 0.0), counted


def _extremes(z: Tensor, scores: Tensor, padding: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The snippets with the k highest and the k lowest scores, (B, k, D) each. If any score of a
    bag is NaN, its order is undefined and all of its snippets are NaN."""
    found = []
    unknown = (scores.isnan() & ~padding).any(1)[:, None, None]
    scores = scores.clamp(torch.finfo(scores.dtype).min, torch.finfo(scores.dtype).max)
    for largest in (True, False):  # padding ranks after all scores
        ranked = scores.masked_fill(padding, -torch.inf if largest else torch.inf)
        index = ranked.topk(k, dim=1, largest=largest).indices
        chosen = z.gather(1, index[..., None].expand(-1, -1, z.shape[2]))
        found.append(torch.where(unknown, torch.nan, chosen))
    return found[0], found[1]
