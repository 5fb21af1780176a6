"""Supervised contrastive loss for regression (SupReMix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..channel import LSE, MAX, SUM, Channel, distance, same
from ..inputs import takes
from ..ops.merge import log_sum_exp
from ..options import Count, Positive, Temperature, check_dense, shape
from .base.label_loss import LABEL, TAKEN, LabelLoss, counted_of
from .base.loss import nan_rows
from .base.scores import Scores, wide

__all__ = ["RegressionMixtures", "SupReMixLoss"]

#: the label as a number; ``LABEL`` is an integer for comparison
VALUE = "value"
_WEIGHTS = {
    "distance": (distance(VALUE, 1.0),),
    "inverse": (distance(VALUE, -1.0),),
    None: (),
}


class RegressionMixtures(NamedTuple):
    """Mixtures that one anchor each meets, (N, K) for K of each: of row ``first`` with the share
    ``share`` and row ``second``, their labels, and whether they are positives. Where an anchor has
    fewer, ``first`` is -1."""

    first: Tensor
    second: Tensor
    share: Tensor
    labels: Tensor
    positive: Tensor


class SupReMixLoss(LabelLoss, name="supremix"):
    r"""SupCon for regression: negatives are weighted by the distance of their labels.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i} w_{ij} e^{s_{ij}}},
    \qquad w_{ij} = 1 + |y_i - y_j|,`

    so that negatives with more distant labels are pushed away more strongly. A row without a
    positive has loss 0, and ``reduction='mean'`` averages over the other rows. The mixtures of rows
    that :meth:`mixtures` makes are further negatives and positives of one row each: sums of unit
    vectors, that are constants, not normalised again and no anchors.

    Args:
        temperature: tau, positive. Default: 0.07.
        weighting: ``'distance'`` for the w above, ``'inverse'`` for
            :math:`1 / (1 + |y_i - y_j|)`, None for 1. Default: ``'distance'``.
        separate_maxima: True subtracts from the scores of the batch their largest one, with the
            row's own, and from those of the mixtures theirs, as constants: so does the authors'
            code, in which the share of the mixtures in the sum depends on it. Default: False.
        loss_weight: multiplies the loss, e.g. tau over a base temperature. Default: 1.

    Shared options:
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
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), of any real dtype, without gradient. Positives are rows with equal labels:
        floating labels are compared in fp32 (in fp64 for fp64 embeddings), others as integers.
        mixtures: five tensors (N, K), or (N V, K) for views, as of :meth:`mixtures`, whose numbers
        are those of the rows of z of this process, flattened; None for none.
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Wu et al., Mixup Your Own Pairs, 2023.
    """

    temperature: Temperature = 0.07
    _: KW_ONLY
    weighting: Literal["distance", "inverse"] | None = "distance"
    separate_maxima: bool = False

    inputs: ClassVar[dict[str, str]] = {"z": "N D | N V D", "labels": "N real"}
    without: ClassVar[dict[str, str]] = {"memory": "a queue holds one integer label per column"}

    _CHANNELS: ClassVar[dict[str | None, tuple[Channel, ...]]] = {
        name: (LSE(weight=weight), *(SUM(psi, pairs=(same(LABEL),)) for psi in ("one", "id")))
        for name, weight in _WEIGHTS.items()
    }

    @property
    def stops_gradients(self) -> bool:
        return self.separate_maxima

    def channels(self) -> tuple[Channel, ...]:
        found = self._CHANNELS[self.weighting]
        return (*found, MAX()) if self.separate_maxima else found

    def combine(  # type: ignore[override]
        self,
        everything: Tensor,
        count: Tensor,
        positive: Tensor,
        *rest: Any,
        mixed: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """``mixed``: scores of mixtures, their log-weights, and 1 for a positive, (N, K) each."""
        *top, scores = rest
        if top:
            highest = torch.maximum(top[0].value.detach(), _own(scores))
            everything, positive = everything - highest, positive - count * highest
        if mixed is not None:
            further, log_weight, counts = mixed
            if top:
                highest = further.detach().amax(1, keepdim=True)
                further = further - torch.where(highest == -torch.inf, 0.0, highest)
            sums = log_sum_exp((further + log_weight).mT)
            everything = log_sum_exp(torch.stack([everything, sums]))
            count = count + counts.sum(1)
            positive = positive + torch.where(counts > 0, further, 0.0).sum(1)
        some = count > 0
        return torch.where(some, everything - positive / count.clamp_min(1), 0.0), some

    def forward(  # type: ignore[override]
        self,
        z: Tensor,
        labels: Tensor,
        *,
        mixtures: Sequence[Tensor] | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        views, flat, dtype = 1 if z.ndim == 2 else z.shape[1], z.flatten(0, -2), wide(z).dtype
        value = labels.detach().to(dtype).repeat_interleave(views)
        label = _compared(labels.detach(), dtype).repeat_interleave(views)
        taken = self.taken(labels.detach())
        rows = {LABEL: label} if self.weighting is None else {LABEL: label, VALUE: value}
        if taken is not None:
            taken = rows[TAKEN] = taken.repeat_interleave(views)
        scores, each = self.scores(flat, None, logit_scale, logit_bias), z.shape[:-1]
        found, values = self.label_statistics(scores, self._channels, rows)
        mixed = None if mixtures is None else self._mixed(scores, value, mixtures)
        losses, counted = self.combine(*found, scores, mixed=mixed)
        counted = counted_of(counted, taken)
        assert counted is not None
        counted = counted.reshape(each)
        return self.labelled(losses.reshape(each), counted, values, nan_rows(z), taken)

    def _mixed(
        self, scores: Scores, value: Tensor, mixtures: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`combine` takes of the mixtures: a score with a sum is a sum of scores."""
        n, count = len(value), len(RegressionMixtures._fields)
        if not isinstance(mixtures, (tuple, list)) or len(mixtures) != count:
            got = f"{len(mixtures)} of them" if isinstance(mixtures, (tuple, list)) else "no tuple"
            raise TypeError(f"mixtures: got {got}, expected a tuple of {count} tensors")
        for part in mixtures:
            check_dense("mixtures", part)
            if part.ndim != 2 or part.shape != (n, *mixtures[0].shape[1:]):
                raise ValueError(f"mixtures: got shape {shape(part)}, expected ({n}, K) of each")
        if not mixtures[0].shape[1]:
            mixtures = [nn.functional.pad(part, (0, 1), value=-1) for part in mixtures]
        first, second, share, labels, positive = (part.detach() for part in mixtures)
        there, columns = first >= 0, scores.x.detach()
        near, far = (scores.gather(k.clamp_min(0), columns) for k in (first, second))
        share = share.to(near.dtype)
        found = torch.where(there, share * near + (1 - share) * far, -torch.inf)
        apart = (value[:, None] - labels.to(value.dtype)).abs().log1p()
        sign = {"distance": 1.0, "inverse": -1.0, None: 0.0}[self.weighting]
        return found, sign * apart.to(found.dtype), (positive & there).to(found.dtype)

    @staticmethod
    @torch.no_grad()
    @takes(labels="N real")
    def mixtures(
        labels: Tensor,
        *,
        negatives: Count | None = None,
        positives: Count | None = None,
        window: Positive = 5.0,
        beta: Sequence[Count] = (2, 8),
        generator: torch.Generator | None = None,
    ) -> RegressionMixtures:
        """Negatives of each row i of it and a row with another label, and positives of rows with a
        smaller and a larger label, which make its label.

        Args:
            labels: (N,), of all rows: with V views, those of ``labels.repeat_interleave(V)``.
            negatives: how many are drawn for each row; None: one with every row of another label.
            positives: how many are drawn for each row; None: one of every pair, O(N^3) in all, of
                which the largest number synchronises a GPU.
            window: a positive's labels are less than this apart from the row's.
            beta: two integers a and b: the row's share in a negative is Beta(a, b).
            generator: of the random numbers.
        """
        y = labels if labels.dtype == torch.float64 else labels.float()
        ranked, order = y.contiguous().sort()
        start, end = (torch.searchsorted(ranked, y.contiguous(), right=r) for r in (False, True))
        draw = _Draw(generator, y)
        second, share = _negatives(y, order, start, end, negatives, beta, draw)
        low, high = _positives(y, ranked, order, start, end, positives, window, draw)
        own = torch.arange(len(y), device=y.device)[:, None].expand_as(second)
        mixed = share * y[:, None] + (1 - share) * y[second.clamp_min(0)]
        part = (y[high.clamp_min(0)] - y[:, None]) / (y[high.clamp_min(0)] - y[low.clamp_min(0)])
        return RegressionMixtures(
            torch.cat([torch.where(second < 0, -1, own), low], 1),
            torch.cat([second, high], 1),
            torch.cat([share, torch.where(low < 0, 0.0, part)], 1),
            torch.cat([mixed, y[:, None].expand_as(low)], 1),
            torch.cat([torch.zeros_like(second), torch.ones_like(low)], 1).bool(),
        )

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre, noise = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        return centre[labels] + 0.7 * noise, labels

    @staticmethod
    def reference(
        z: Tensor,
        labels: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        weighting: str | None,
        separate_maxima: bool,  # of no effect without mixtures
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        views = 1 if z.ndim == 2 else z.shape[1]
        flat, label = z.flatten(0, -2), labels.repeat_interleave(views)
        s = (scale * (flat @ flat.mT) + bias).fill_diagonal_(-torch.inf)
        w = 1 + (label[:, None] - label).abs().to(s.dtype)
        log_w = torch.log(w) * {"distance": 1.0, "inverse": -1.0, None: 0.0}[weighting]
        mask = (label[:, None] == label).fill_diagonal_(False)
        pairs = torch.where(mask, (s + log_w).logsumexp(1, keepdim=True) - s, 0.0)
        losses = pairs.sum(1) / mask.sum(1).clamp_min(1)
        return losses.reshape(z.shape[:-1]), mask.any(1).reshape(z.shape[:-1])


def _compared(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Integers that are equal where the labels are; for floating labels, their bits."""
    if not labels.is_floating_point():
        return labels.long()
    value = labels.to(dtype)
    value = torch.where(value == 0, 0.0, value)  # maps -0 to 0
    return value.view(torch.int64 if dtype == torch.float64 else torch.int32).long()


# ---- mixtures ------------------------------------------------------------------------------------


def _own(scores: Scores) -> Tensor:
    """The scores of rows with themselves."""
    x = wide(scores.x.detach())
    length = (x != 0).any(1).to(x.dtype) if scores.normalize else x.square().sum(1)
    own = length * scores.inverse_temperature
    own = own if scores.bias is None else own + scores.bias
    return own.detach()


class _Draw:
    """Uniform random numbers."""

    def __init__(self, generator: torch.Generator | None, like: Tensor) -> None:
        self.generator, self.like = generator, like

    def __call__(self, *size: int) -> Tensor:
        like = self.like
        return torch.rand(size, generator=self.generator, dtype=like.dtype, device=like.device)

    def below(self, size: Tensor, count: int) -> Tensor:
        """(N, count) integers below the sizes (N,), or 0."""
        drawn = (self(len(size), count) * size[:, None]).long()
        return torch.minimum(drawn, size[:, None] - 1).clamp_min(0)


def _negatives(
    y: Tensor,
    order: Tensor,
    start: Tensor,
    end: Tensor,
    count: int | None,
    beta: Sequence[int],
    draw: _Draw,
) -> tuple[Tensor, Tensor]:
    """The other rows, -1 for none, and the shares of the anchors."""
    n, (a, b) = len(y), beta
    if count is None:
        other = torch.arange(n, device=y.device).expand(n, n)
        some = y[:, None] != y
    else:
        size = end - start
        rank = draw.below(n - size, count)
        rank = torch.where(rank < start[:, None], rank, rank + size[:, None])
        other = order[rank.clamp(max=max(n - 1, 0))]
        some = (n > size)[:, None].expand_as(other)
    other = torch.where(some, other, -1)
    # the a-th smallest of a + b - 1 uniform numbers
    return other, draw(*other.shape, a + b - 1).kthvalue(a, dim=-1).values


def _positives(
    y: Tensor,
    ranked: Tensor,
    order: Tensor,
    start: Tensor,
    end: Tensor,
    count: int | None,
    window: float,
    draw: _Draw,
) -> tuple[Tensor, Tensor]:
    """The rows with a smaller and with a larger label, -1 for none."""
    first = torch.searchsorted(ranked, (y - window).contiguous(), right=True)
    last = torch.searchsorted(ranked, (y + window).contiguous())
    below, above = start - first, last - end
    if count is None:
        pairs = below * above
        slot = torch.arange(int(pairs.max()) if len(y) else 0, device=y.device)
        some = slot < pairs[:, None]
        width = above.clamp_min(1)[:, None]
        low, high = slot // width, slot % width
    else:
        low, high = draw.below(below, count), draw.below(above, count)
        some = ((below > 0) & (above > 0))[:, None].expand_as(low)
    most = max(len(y) - 1, 0)
    low, high = (
        order[(begin[:, None] + rank).clamp(max=most)]
        for begin, rank in ((first, low), (end, high))
    )
    return torch.where(some, low, -1), torch.where(some, high, -1)
