"""Self-distillation with prototypes (DINO)."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..ops.check import check_embeddings
from ..options import Temperature, shape
from .base.checks import check_matrix
from .base.prototypes import PrototypeLoss
from .base.scores import wide

__all__ = ["DINOLoss"]


class DINOLoss(PrototypeLoss, name="dino"):
    r"""DINO: the student's softmax over prototypes matches the teacher's, sharpened and centred.

    With rows s and prototypes c of the student, rows t and prototypes c' of the teacher, and a
    centre m,

    :math:`\ell_i = -\sum_k p_{ik}
    \log \frac{e^{\cos(s_i, c_k) / \tau}}{\sum_l e^{\cos(s_i, c_l) / \tau}}, \qquad
    p_{ik} = \frac{e^{(\cos(t_i, c'_k) - m_k) / \tau_t}}
    {\sum_l e^{(\cos(t_i, c'_l) - m_l) / \tau_t}}`

    The teacher's softmax is a constant. The centre, a moving average of :meth:`center` over
    batches, keeps rows from collapsing to one prototype. For several crops, sum over pairs of
    views. Rows may be patches, as in iBOT.

    Args:
        temperature: tau, the student's temperature, positive. Default: 0.1.
        teacher_temperature: tau_t, positive, a float or a 0-dim tensor. Default: 0.04.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        student, teacher: (N, D).
        prototypes: (K, D).
        teacher_prototypes: (K, D); None uses the student's, without gradient.
        center: (K,); None for 0.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.
    """

    temperature: Temperature = 0.1
    _: KW_ONLY
    teacher_temperature: Temperature = 0.04

    inputs: ClassVar[dict[str, str]] = {
        "student": "N D",
        "teacher": "N D",
        "prototypes": "K>=1 D",
        "teacher_prototypes": "K D",
        "center": "K float",
    }
    without: ClassVar[dict[str, str]] = {
        "group": "rows meet prototypes only, not each other: its mean is that of one process",
        "memory": "its columns are prototypes",
        "return_stats": "its targets are soft: no pair is a positive or a negative",
    }

    @property
    def constants(self) -> frozenset[str]:
        return frozenset({"teacher"})

    @property
    def stops_gradients(self) -> bool:
        return True  # by default the teacher uses the student's prototypes, detached

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        prototypes: Tensor,
        *,
        teacher_prototypes: Tensor | None = None,
        center: Tensor | None = None,
    ) -> Tensor:
        if teacher_prototypes is None:
            teacher_prototypes = prototypes
        columns = self.constant(teacher_prototypes)
        tau = self.teacher_temperature
        tau = tau.detach() if isinstance(tau, Tensor) else tau
        if center is None:
            bias = columns.new_zeros(columns.shape[0])
        else:
            bias = -center.detach().to(columns.dtype) / tau
        target = (self.constant(teacher) / tau).to(columns.dtype)
        scores = self.scores(student, prototypes)
        return self.reduce(self.cross_entropy(scores, target, columns, bias.to(columns.dtype)))

    @staticmethod
    @torch.no_grad()
    def center(teacher: Tensor, teacher_prototypes: Tensor, *, normalize: bool = True) -> Tensor:
        """Mean score of a batch with each prototype, (K,), in fp32 (fp64 for fp64), in O((N + K) D)
        time. The centre is a moving average of it. ``normalize`` is the loss's option. Without rows
        it is 0."""
        check_matrix("teacher", teacher)
        check_matrix("teacher_prototypes", teacher_prototypes)
        check_embeddings("teacher_prototypes", teacher_prototypes, ("teacher", teacher))
        if teacher_prototypes.shape[1] != teacher.shape[1]:
            got, d = shape(teacher_prototypes), teacher.shape[1]
            raise ValueError(f"teacher_prototypes: got shape {got}, expected (K, {d})")
        t, c = wide(teacher), wide(teacher_prototypes)
        if normalize:
            t, c = (ops.unit(v) for v in (t, c))
        return (c * (t.sum(0) / max(len(t), 1))).sum(1)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher gets no gradient."""
        k = n // 3 + 3
        prototypes, z, *noise = (
            torch.randn(m, d, generator=generator).double() for m in (k, n, n, n)
        )
        student, teacher = (z + 0.7 * v for v in noise)
        return student, 2 * teacher, 1.5 * prototypes

    @staticmethod
    def reference(
        student: Tensor,
        teacher: Tensor,
        prototypes: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        teacher_temperature: float,
        teacher_prototypes: Tensor | None = None,
        center: Tensor | None = None,
    ) -> Tensor:
        columns = prototypes if teacher_prototypes is None else teacher_prototypes
        t = (teacher @ columns.mT).detach()
        p = ((t if center is None else t - center) / teacher_temperature).softmax(1)
        s = scale * (student @ prototypes.mT) + bias
        return -(p * s.log_softmax(1)).sum(1)
