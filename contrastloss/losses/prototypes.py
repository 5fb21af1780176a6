"""What losses share in which a teacher's softmax over prototypes is the student's target."""

from __future__ import annotations

from torch import Tensor

from .. import ops
from ..channel import EXPECT, LSE, col_weight, form
from ..ops.check import shape
from .check import check_columns, check_matrix
from .loss import ScoreLoss
from .scores import wide

__all__ = ["PrototypeLoss"]

TEACHER, BIAS = "teacher", "bias"


class PrototypeLoss(ScoreLoss):
    """Cross entropies of softmaxes over prototypes. Neither softmax is held: the target is the
    log-weight of a channel."""

    #: the student's log-normaliser, and its mean score under the teacher's softmax
    _CHANNELS = (LSE(), EXPECT(0.0, weight=(col_weight(BIAS), form(TEACHER))))

    def cross_entropy(
        self, x: Tensor, prototypes: Tensor, teacher: Tensor, columns: Tensor, bias: Tensor
    ) -> Tensor:
        """Of rows x with the target softmax_k(<teacher_i, columns_k> + bias_k), a constant."""
        rows, cols = {TEACHER: teacher}, {TEACHER: columns, BIAS: bias}
        everything, target = self.scores(x, prototypes).stats(self._CHANNELS, rows, cols)
        return everything - target.value

    def constant(self, x: Tensor) -> Tensor:
        """As the teacher sees it: fp32, without gradient and, for cosines, of unit length."""
        x = wide(x.detach())
        return ops.unit(x) if self.normalize else x

    def check_prototypes(self, name: str, prototypes: Tensor, like: tuple[str, Tensor]) -> None:
        check_matrix(name, prototypes)
        check_columns(self, name, prototypes, like)
        if not prototypes.shape[0]:
            got, d = shape(prototypes), prototypes.shape[1]
            raise ValueError(f"{name}: got shape {got}, expected (K, {d}) with K >= 1")

    def check_like(self, name: str, others: Tensor, prototypes: Tensor) -> None:
        """Others of the same shape as ``prototypes``."""
        check_matrix(name, others)
        check_columns(self, name, others, ("prototypes", prototypes))
        if others.shape != prototypes.shape:
            got, expected = shape(others), shape(prototypes)
            raise ValueError(f"{name}: got shape {got}, expected prototypes' {expected}")
