"""Soft targets between two views, of a teacher's scores or of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import COL, EXPECT, INDEX, LSE, ROW, SUM, Axis, col_weight, form, row_weight, same
from ..options import NonNegative, Temperature, shape
from .base.loss import nan_rows, softplus
from .base.pair_loss import PairLoss
from .base.scores import Scores, at_least_one

__all__ = ["PULLS", "SoftTargetLoss"]

TARGET, MINUS_LSE = "target", "minus_lse"
_AXES: tuple[Axis, Axis] = (ROW, COL)

#: the weights of pairs, of each axis: a teacher's softmax, whose scores are the form, with minus
#: their log-sum-exp of rows and of columns; or how labels agree
_SOFTMAX = {
    ROW: (form(TARGET), row_weight(MINUS_LSE)),
    COL: (form(TARGET), col_weight(MINUS_LSE)),
}
_AGREEMENT = dict.fromkeys(_AXES, (form(TARGET, log=True),))
#: the weighted scores, and the weights, by the kind of targets. A teacher's weights sum to 1, but
#: for rounding, which large scores would show.
PULLS, _MASSES = (
    {
        targets: {axis: SUM(psi, axis=axis, weight=weights[axis]) for axis in _AXES}
        for targets, weights in (("teacher", _SOFTMAX), ("labels", _AGREEMENT))
    }
    for psi in ("id", "one")
)
_EVERYTHING = {axis: LSE(axis=axis) for axis in _AXES}
_SOFTPLUS = {axis: SUM("softplus", axis=axis) for axis in _AXES}
_EXPECTED = {axis: EXPECT(axis=axis) for axis in _AXES}
_ALIGNED = SUM("id", pairs=(same(INDEX),))


class SoftTargetLoss(PairLoss, name="soft_target"):
    r"""The scores of two views follow targets: a teacher's scores, or how labels agree.

    With :math:`s_{ij} = \cos(x_i, y_j) / \tau`, its softmax :math:`q_{ij}` over j, the rows m and n
    of the targets of both views, and

    :math:`\text{teacher: } p_{ij} = \frac{e^{t_{ij}}}{\sum_k e^{t_{ik}}}, \quad
    t_{ij} = \cos(m_i, n_j) / \tau_t
    \qquad
    \text{labels: } p_{ij} = \frac{\cos(m_i, n_j)}{\sum_k \cos(m_i, n_k)}`

    the losses of rows are

    :math:`\begin{aligned}
    \text{ce: } \ell_i &= -\sum_j p_{ij} \log q_{ij} \\
    \text{kl: } \ell_i &= \sum_j p_{ij} \log \frac{p_{ij}}{q_{ij}} \\
    \text{bce: } \ell_i &= \frac1N \sum_j \bigl[\log(1 + e^{s_{ij}}) - p_{ij} s_{ij}\bigr]
    \end{aligned}`

    where p of ``'bce'`` with labels is the cosine itself. Columns have the same losses, with the
    softmax over i; the loss is the mean of both. ``identity`` adds so many times the loss whose
    target for row i is column i.

    Args:
        temperature: tau of the student, positive. Element i of an (N,) tensor divides
            :math:`s_{ij}` of rows and of columns. Default: 0.07.
        variant: ``'ce'``, ``'kl'``, whose gradient is that of ``'ce'``, or ``'bce'``. With labels
            there is no ``'kl'``. Default: ``'ce'``.
        targets: ``'teacher'`` or ``'labels'``. Default: ``'teacher'``.
        target_temperature: tau_t, a float or a 0-dim tensor, without gradient. Default: 0.07.
        symmetric: False leaves the losses of columns out: InfoNCE distillation. Default: True.
        identity: the weight of the identity target, at least 0: 1 for CLIP distillation and for
            SoftCon, whose other weight is ``loss_weight``. Default: 0.
        normalize_targets: False uses products in place of the cosines of targets. Default: True.
        validate: additionally raise ValueError on negative labels. Default: False.

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
        x, y: (M, D) and (N, D). M = N, unless ``symmetric=False`` and ``identity=0``.
        target_x, target_y: (M, C) and (N, C), the teacher's embeddings, or multi-hot or soft labels
        >= 0, of any real dtype, without gradient. Negative labels are clamped to 0.
        target_scale: () or a float, 1 / tau_t as the teacher has it, in place of the option.
        row_weight: (M,), multiplies the losses of pairs; 'mean' still divides by M. None for 1.
        Loss: (), or (M,) for ``reduction='none'``. A row without a label has target 0, and with
        ``'ce'`` loss 0.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; open_clip's
    DistillClipLoss; Wang et al., Multi-Label Guided Soft Contrastive Learning for Efficient Earth
    Observation Pretraining, 2024.
    """

    temperature: Temperature = 0.07
    variant: Literal["ce", "kl", "bce"] = "ce"
    _: KW_ONLY
    targets: Literal["teacher", "labels"] = "teacher"
    target_temperature: Temperature = 0.07
    symmetric: bool = True
    identity: NonNegative = 0.0
    normalize_targets: bool = True

    inputs: ClassVar[Mapping[str, str]] = {
        **{"x": "M D", "y": "N D", "target_x": "M C>=1 real", "target_y": "N C>=1 real"},
        "row_weight": "M float",
    }
    without: ClassVar[dict[str, str]] = {
        "memory": "a queue holds no targets",
        "return_stats": "its targets are soft: no pair is a positive or a negative",
    }

    def check(self) -> None:
        super().check()
        if self.variant == "kl" and self.targets == "labels":
            raise ValueError("variant: got 'kl' with targets='labels', expected 'ce' or 'bce'")

    @property
    def axes(self) -> tuple[Axis, ...]:
        return _AXES if self.symmetric else (ROW,)

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"target_x", "target_y"})

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        target_x: Tensor,
        target_y: Tensor,
        *,
        target_scale: Tensor | float | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if x.shape[0] != y.shape[0] and (self.symmetric or self.identity):
            expected = f"({x.shape[0]}, {y.shape[1]}), or symmetric=False and identity=0"
            raise ValueError(f"y: got shape {shape(y)}, expected {expected}")
        scores = self.scores(x, y, logit_scale, logit_bias)
        scores.row_weight = row_weight
        rows, cols, entropy = self._targets(scores, target_x, target_y, target_scale)
        sums = _SOFTPLUS if self.variant == "bce" else _EVERYTHING
        wanted = [sums, PULLS[self.targets]]
        if (self.targets, self.variant) != ("labels", "bce"):
            wanted.append(_MASSES[self.targets])
        asked = [channels[axis] for channels in wanted for axis in self.axes]
        asked += [_ALIGNED] if self.identity else []
        found = scores.stats(asked, rows, cols)
        positive = found.pop() if self.identity else None
        count, losses = len(self.axes), []
        for k in range(count):
            everything, pull, *mass = found[k::count]
            losses.append(self._loss(scores, everything, pull, mass, positive) + entropy[k])
        mean = losses[0] if count == 1 else 0.5 * (losses[0] + losses[1])
        return self.reduce(scores.weighted(mean), None, nan_rows(x))

    def _loss(
        self,
        scores: Scores,
        everything: Tensor,
        pull: Tensor,
        mass: list[Tensor],
        positive: Tensor | None,
    ) -> Tensor:
        """Of the rows, or columns."""
        if mass:
            some = mass[0] != 0  # true of NaN
            pull = torch.where(some, pull / torch.where(some, mass[0], 1.0), everything)
        loss = everything - pull
        if positive is not None:
            loss = loss + self.identity * (everything - positive)
        return loss / at_least_one(scores.batch_columns) if self.variant == "bce" else loss

    @torch.no_grad()
    def _targets(
        self, scores: Scores, m: Tensor, n: Tensor, scale: Tensor | float | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Any]]:
        """What channels call of rows and columns, and what each axis adds to its losses."""
        m, n = (v.detach().to(scores.stat_dtype) for v in (m, n))
        if self.targets == "labels":
            if self.validate:
                _check_labels(target_x=m, target_y=n)
            m, n = m.clamp_min(0), n.clamp_min(0)
        if self.normalize_targets:
            m, n = ops.unit(m), ops.unit(n)
        if self.targets == "labels":
            return {TARGET: m}, {TARGET: n}, [0.0, 0.0]
        if scale is not None:
            m = m * self._scalar("target_scale", scale, Temperature, scores.x)
        else:
            m = m / self.target_temperature
        plain = {"scale": 1.0, "row_scale": None, "bias": None, "normalize": False}
        taught = scores.between(m, n).but(compute_dtype=scores.stat_dtype, **plain)
        kl = self.variant == "kl"
        found = taught.stats([(_EXPECTED if kl else _EVERYTHING)[axis] for axis in self.axes])
        lse = [value.lse if kl else value for value in found]
        rows, cols = {TARGET: m, MINUS_LSE: -lse[0]}, {TARGET: n}
        if self.symmetric:
            cols[MINUS_LSE] = -lse[1]
        return rows, cols, [value.value - value.lse if kl else 0.0 for value in found]

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Pairs that are a little alike; the teacher has other features, of which it is surer."""
        centre, *noise = (torch.randn(n, d, generator=generator).double() for _ in range(3))
        wide_centre = torch.randn(d, d + 2, generator=generator).double() / d**0.5
        x, y = (centre + 0.9 * v for v in noise)
        m, o = ((centre + 0.6 * v).mm(wide_centre) for v in reversed(noise))
        return x, y, m, o

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        target_x: Tensor,
        target_y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        variant: str,
        targets: str,
        target_temperature: float,
        symmetric: bool,
        identity: float,
        normalize_targets: bool,
    ) -> Tensor:
        m, n = (v.detach().to(x.dtype) for v in (target_x, target_y))
        if targets == "labels":
            m, n = m.clamp_min(0), n.clamp_min(0)
        if normalize_targets:
            m, n = (torch.nn.functional.normalize(v) for v in (m, n))
        s, t = scale * (x @ y.mT) + bias, m @ n.mT
        losses = []
        for scores, own in ((s, t), (s.mT, t.mT))[: 1 + symmetric]:
            p = own
            if targets == "teacher":
                p = (own / target_temperature).softmax(1)
            elif variant != "bce":
                p = own / own.sum(1, keepdim=True).where(own.sum(1, keepdim=True) > 0, 1.0)
            one = torch.eye(*p.shape, dtype=p.dtype, device=p.device) if identity else 0.0
            q = p + identity * one
            if variant == "bce":
                pairs = (1 + identity) * softplus(scores) - q * scores
                losses.append(pairs.sum(1) / max(p.shape[1], 1))
            else:
                entropy = torch.special.entr(p).sum(1) if variant == "kl" else 0.0
                losses.append(-(q * scores.log_softmax(1)).sum(1) - entropy)
        return sum(losses) / len(losses)  # type: ignore[return-value]


def _check_labels(**labels: Tensor) -> None:
    for name, value in labels.items():
        if bool((value < 0).any()):
            got = value.min().item()
            raise ValueError(f"{name}: got {got}, expected none below 0 (validate=True)")
