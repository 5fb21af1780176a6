"""What losses share in which a teacher's softmax over prototypes is the student's target."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import ops
from ...channel import COL, EXPECT, LSE, col_weight, form
from ...distributed import Peers, log_total
from .loss import ScoreLoss
from .scores import Scores, wide

__all__ = ["PrototypeLoss", "sinkhorn"]

TEACHER, BIAS = "teacher", "bias"


class PrototypeLoss(ScoreLoss):
    """Cross entropies of softmaxes over prototypes. Neither softmax is held: the target is the
    log-weight of a channel."""

    #: the student's log-normaliser, and its mean score under the teacher's softmax
    _CHANNELS = (LSE(), EXPECT(0.0, weight=(col_weight(BIAS), form(TEACHER))))

    def cross_entropy(
        self, scores: Scores, teacher: Tensor, columns: Tensor, bias: Tensor
    ) -> Tensor:
        """Of rows with these scores of prototypes with the target softmax_k(<teacher_i, columns_k>
        + bias_k), a constant."""
        rows, cols = {TEACHER: teacher}, {TEACHER: columns, BIAS: bias}
        everything, target = scores.stats(self._CHANNELS, rows, cols)
        return everything - target.value

    def constant(self, x: Tensor) -> Tensor:
        """As the teacher sees it: fp32, without gradient and, for cosines, of unit length."""
        x = wide(x.detach())
        return ops.unit(x) if self.normalize else x


_OF_COLUMNS, _OF_ROWS = (LSE(axis=COL),), (LSE(),)


@torch.no_grad()
def sinkhorn(
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.05,
    iterations: int = 3,
    backend: str | None = None,
    there: Tensor | None = None,
    peers: Peers | None = None,
) -> Tensor:
    r"""The columns' log-potentials v, (K,), of Sinkhorn's assignments: row i's is the softmax

    :math:`q_{ik} = \frac{e^{\langle x_i, y_k \rangle / \varepsilon + v_k}}
    {\sum_l e^{\langle x_i, y_l \rangle / \varepsilon + v_l}}`

    Every iteration gives all columns the same mass and then all rows the same one, as two passes
    of log-sum-exps; the last one's second half is that softmax. Neither the scores nor q are held,
    and nothing has a gradient.

    Args:
        x: rows, (N, D). Products are taken in its dtype, autocast or not.
        y: columns, (K, D), of the same dtype.
        eps: the entropy's weight, 0.05.
        iterations: how many, 3; at least 1.
        backend: the name of a backend; None chooses.
        there: (N,), False for a row that takes no part; None: all do.
        peers: the ranks over which the rows are spread, with the same columns on each; None: all
            rows are here.
    """
    out = None if there is None else x.new_zeros(len(x)).masked_fill(~there, -torch.inf)
    u = out
    for left in range(iterations, 0, -1):
        v = _potential(_OF_COLUMNS, x, y, eps, u, None, backend, peers)
        if left > 1:
            u = _potential(_OF_ROWS, x, y, eps, None, v, backend)
            u = u if out is None else u + out
    return v


def _potential(
    channels: tuple[LSE],
    x: Tensor,
    y: Tensor,
    eps: float,
    u: Tensor | None,
    v: Tensor | None,
    backend: str | None,
    peers: Peers | None = None,
) -> Tensor:
    (mass,) = ops.pair_stats(
        x,
        y,
        channels,
        scale=1.0 / eps,
        row_bias=u,
        col_bias=v,
        compute_dtype=x.dtype,
        backend=backend,
    )
    if peers is not None:
        mass = log_total(mass, peers)
    # no rows leave nothing to balance
    return torch.where(mass == -torch.inf, 0.0, -mass)
