"""SepCLR: separate spaces for common and salient patterns."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import LSE, SUM, Channel, col_weight, form, row_weight
from ..ops.merge import log_sum_exp
from ..options import Positive
from .base.loss import Loss, softplus
from .base.scores import wide

__all__ = ["SepCLRLoss"]

_OWN, _PRODUCT = "own", "product"
_ALL = (LSE(),)
# e^{-|a - b|^2 / 2s} = e^{-a^2 / 2s} e^{-b^2 / 2s} e^{ab / s}
_KERNEL = (SUM("id", weight=(row_weight(_OWN), col_weight(_OWN), form(_PRODUCT))),)


class SepCLRLoss(Loss, name="sepclr"):
    r"""SepCLR: separates patterns common to all rows from salient patterns of the targets.

    Let c be the unit vectors of the common space, s the salient vectors (set to 0 for rows that are
    not targets), F the targets and B the other rows. The loss is the weighted sum of four terms;
    expressions of a single view are averaged over both views.

    :math:`\begin{aligned}
    \text{common} &= \operatorname{mean}_i \frac{|c_i - c'_i|^2}{2 \tau} + \lambda\, U(c) \\
    \text{salient} &= \operatorname{mean}_{i \in F} \frac{|s_i - s'_i|^2}{2 \tau} +
    \lambda\, U(s), \qquad
    U(z) = \log \operatorname{mean}_{i < j} e^{-|z_i - z_j|^2 / 2 \tau} \\
    \text{background} &= \operatorname{mean}_{i \in B} \frac{|s_i|^2}{2 \tau},
    \text{ before it is set to } 0 \\
    \text{joint} &= \operatorname{mean}_i \log \operatorname{mean}_j
    e^{-(|c_i - c_j|^2 + |s_i - s_j|^2) / 2 \tau}
    \end{aligned}`

    The joint term, an entropy that keeps both spaces independent, takes one pass over the scores of
    the concatenation [c, s]. With real labels y of the targets, the alignment of s is the
    supervised one, :math:`\operatorname{mean}_{i < j \in F} e^{-|y_i - y_j|^2 / 2 \sigma}
    |s_i - s_j|^2`.

    Args:
        temperature: tau, positive. Default: 0.5.
        uniformity: lambda. Default: 2.
        common, salient, background: weights of these terms. The released code has 1000 for salient
            and background on CelebA. Default: 1.
        joint: weight of the joint term. Default: 10.
        label_variance: sigma, positive. Default: 0.025.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        common_x, common_y: (N, C), two views.
        salient_x, salient_y: (N, S), two views.
        targets: (N,), bool; None for all rows.
        labels: (N,) or (N, E), which get no gradient.
        Loss: (). A mean over an empty set is 0.

    Source: Louiset et al., SepCLR: Separating Common from Salient Patterns with Contrastive
    Representation Learning, 2024.
    """

    temperature: Positive = 0.5
    uniformity: float = 2.0
    common: float = 1.0
    salient: float = 1.0
    background: float = 1.0
    joint: float = 10.0
    label_variance: Positive = 0.025

    inputs: ClassVar[dict[str, str]] = {
        "common_x": "N C>=1",
        "common_y": "N C",
        "salient_x": "N S>=1",
        "salient_y": "N S",
        "targets": "N bool",
        "labels": "N real | N L real",
    }

    def forward(
        self,
        common_x: Tensor,
        common_y: Tensor,
        salient_x: Tensor,
        salient_y: Tensor,
        targets: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        commons = [ops.unit(c) for c in (wide(common_x), wide(common_y))]
        salients = [wide(s) for s in (salient_x, salient_y)]
        n = common_x.shape[0]
        if n == 0:
            return self.scaled(sum([v.sum() for v in (*commons, *salients)], commons[0].sum()))
        if targets is None:
            targets = torch.ones(n, dtype=torch.bool, device=common_x.device)
        scale = 1 / (2 * self.temperature)
        teachers = [torch.where(targets[:, None], s, 0.0) for s in salients]
        nothing = [torch.where(targets[:, None], 0.0, s).square().sum(1) for s in salients]
        common = scale * _square(*commons).mean()
        if labels is None:
            salient = scale * _mean(_square(*teachers), targets)
        else:
            y = wide(labels) if labels.is_floating_point() else labels.to(salients[0].dtype)
            y = y.detach().view(n, -1)
            salient = sum([self._aligned(z, y, targets) for z in salients], 0 * common) / 2
        background = scale * (_mean(nothing[0], ~targets) + _mean(nothing[1], ~targets)) / 2
        joint = torch.zeros_like(common)
        for c, s in zip(commons, teachers, strict=True):
            common = common + self.uniformity / 2 * self._uniform(c)
            salient = salient + self.uniformity / 2 * self._uniform(s)
            # softplus adds the term j = i of the mean
            others = softplus(self._neighbours(torch.cat([c, s], 1)))
            joint = joint + (others.mean() - torch.full_like(common, n).log()) / 2
        return self.scaled(
            self.common * common
            + self.salient * salient
            + self.background * background
            + self.joint * joint
        )

    def _stats(
        self, z: Tensor, channels: tuple[Channel, ...], scale: float, **operands: Any
    ) -> Tensor:
        """Channels over the scores ``-scale |z_i - z_j|^2 / 2``, without low-precision products,
        since their terms cancel."""
        norm = -0.5 * scale * z.square().sum(1)
        (found,) = ops.pair_stats(
            z, None, channels, scale=scale, row_bias=norm, col_bias=norm,
            compute_dtype=z.dtype, backend=self.backend, **operands,
        )  # fmt: skip
        return found

    def _neighbours(self, z: Tensor) -> Tensor:
        return self._stats(z, _ALL, 1 / self.temperature)

    def _uniform(self, z: Tensor) -> Tensor:
        rows = self._neighbours(z)
        n = rows.shape[0]
        total = log_sum_exp(rows)
        some = total != -torch.inf
        return torch.where(some, total - torch.full_like(total, max(n * (n - 1), 1)).log(), 0.0)

    def _aligned(self, z: Tensor, y: Tensor, targets: Tensor) -> Tensor:
        y = torch.where(targets[:, None], y, 0.0)
        # centre the targets' labels to reduce rounding errors; other labels have no effect
        y = torch.where(targets[:, None], y - y.sum(0) / targets.sum().clamp_min(1), 0.0)
        own = -0.5 / self.label_variance * y.square().sum(1)
        own = torch.where(targets, own, -torch.inf)
        rows = {_OWN: own, _PRODUCT: y / self.label_variance}
        sums = self._stats(z, _KERNEL, 1.0, rows=rows, cols={_OWN: own, _PRODUCT: y})
        count = targets.sum()
        return -2 * sums.sum() / (count * (count - 1)).clamp_min(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Two noisy views; all rows are targets."""
        x, noise = torch.randn(2, n, 2 * d, generator=generator, dtype=torch.float64)
        (common_x, salient_x), (common_y, salient_y) = x.chunk(2, -1), (x + noise).chunk(2, -1)
        return common_x, common_y, salient_x, salient_y

    @staticmethod
    def reference(
        common_x: Tensor,
        common_y: Tensor,
        salient_x: Tensor,
        salient_y: Tensor,
        targets: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        temperature: float,
        uniformity: float,
        common: float,
        salient: float,
        background: float,
        joint: float,
        label_variance: float,
    ) -> Tensor:
        width = 2 * temperature
        if targets is None:
            targets = torch.ones(len(common_x), dtype=torch.bool, device=common_x.device)
        c = [torch.nn.functional.normalize(v, dim=1) for v in (common_x, common_y)]
        s = [v * targets[:, None] for v in (salient_x, salient_y)]
        near = (c[0] - c[1]).square().sum(1).mean() / width
        if labels is None:
            tied = _mean_of((s[0] - s[1])[targets].square().sum(1)) / width
        else:
            y = labels.to(c[0].dtype).view(len(labels), -1)[targets]
            kernel = torch.exp(-_distances(y) / (2 * label_variance)).fill_diagonal_(0)
            pairs = max(len(y) * (len(y) - 1), 1)
            tied = sum([(kernel * _distances(v[targets])).sum() / pairs for v in s], near * 0) / 2
        away = [v[~targets].square().sum(1) for v in (salient_x, salient_y)]
        empty = (_mean_of(away[0]) + _mean_of(away[1])) / 2 / width
        together = near * 0
        off = ~torch.eye(len(targets), dtype=torch.bool, device=near.device)
        for a, b in zip(c, s, strict=True):
            da, db = _distances(a) / width, _distances(b) / width
            if len(targets) > 1:
                near = near + uniformity / 2 * torch.exp(-da)[off].mean().log()
                tied = tied + uniformity / 2 * torch.exp(-db)[off].mean().log()
            together = together + torch.exp(-da - db).mean(1).log().mean() / 2
        return common * near + salient * tied + background * empty + joint * together


def _mean_of(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(1)


def _distances(x: Tensor) -> Tensor:
    return (x[:, None] - x).square().sum(2)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
