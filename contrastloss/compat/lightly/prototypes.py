"""Lightly's losses of scores with prototypes, which their networks compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed as dist, nn

from ...losses.base.scores import wide
from ..ranks import gathered, needs_ranks, over_ranks

__all__ = ["DINOLoss", "SwaVLoss"]


@torch.no_grad()
def _codes(scores: Tensor, iterations: int, eps: float, gather: bool) -> Tensor:
    """Sinkhorn's assignments of rows to prototypes, (N, K). Every iteration gives all prototypes
    the same mass over the rows, of all ranks if they ``gather``, and then all rows theirs. In
    logarithms, since a prototype's mass may underflow."""

    def of_rows(values: Tensor) -> Tensor:
        mass = values.logsumexp(0)
        return gathered(mass[None], "none").logsumexp(0) if gather else mass

    log_q = scores / eps
    if iterations == 0:  # a mass of 1 for all, times the number of rows
        ranks = dist.get_world_size() if gather else 1
        log_q = log_q - of_rows(log_q).logsumexp(0)
        return log_q.exp() * (len(scores) * ranks)
    for _ in range(iterations):
        log_q = log_q - of_rows(log_q)
        log_q = log_q.log_softmax(1)
    return log_q.exp()


class SwaVLoss(nn.Module):
    r"""Each crop predicts the balanced assignments of the others: the mean, over high-resolution
    crops and the other crops of either kind, of

    :math:`-\operatorname{mean}_i \sum_k q_{ik} \log \operatorname{softmax}_k(z_i / \tau)`

    ``forward(high_resolution_outputs, low_resolution_outputs, queue_outputs=None)`` has lists of
    scores with prototypes, (N, K); those of a queue, one (Q, K) for each high-resolution crop, take
    part in its assignments. The loss has shape (1,). Assignments get no gradient.

    Args:
        temperature: tau.
        sinkhorn_iterations: how often assignments are balanced.
        sinkhorn_epsilon: what scores are divided by in the assignments.
        sinkhorn_gather_distributed: assignments are balanced over the rows of all ranks.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments, 2020.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        sinkhorn_epsilon: float = 0.05,
        sinkhorn_gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        needs_ranks(sinkhorn_gather_distributed)
        self.temperature = temperature
        self.sinkhorn_iterations = sinkhorn_iterations
        self.sinkhorn_epsilon = sinkhorn_epsilon
        self.sinkhorn_gather_distributed = sinkhorn_gather_distributed

    def subloss(self, z: Tensor, q: Tensor) -> Tensor:
        """The cross entropy of the scores z with the codes q."""
        z = wide(z) / self.temperature
        return (q.sum(1) * z.logsumexp(1) - (q * z).sum(1)).mean()

    def forward(
        self,
        high_resolution_outputs: Sequence[Tensor],
        low_resolution_outputs: Sequence[Tensor],
        queue_outputs: Sequence[Tensor] | None = None,
    ) -> Tensor:
        high, low = list(high_resolution_outputs), list(low_resolution_outputs)
        gather = over_ranks(self.sinkhorn_gather_distributed)
        loss = wide(high[0]).new_zeros(1)
        for k, own in enumerate(high):
            scores = own.detach()
            if queue_outputs is not None:
                scores = torch.cat([scores, queue_outputs[k].detach()])
            codes = _codes(wide(scores), self.sinkhorn_iterations, self.sinkhorn_epsilon, gather)
            found = torch.zeros_like(loss)
            for other in (*high[:k], *high[k + 1 :], *low):
                found = found + self.subloss(other, codes[: len(own)])
            loss = loss + found / (len(high) + len(low) - 1)  # NaN for one crop alone
        return loss / len(high)


class DINOLoss(nn.Module):
    r"""Cross entropy of the student's softmax with the teacher's, sharpened and centred: the mean
    over all pairs of a teacher's and a student's view of different places, and over the batch, of

    :math:`-\sum_k \operatorname{softmax}_k((t - m) / \tau_t)
    \log \operatorname{softmax}_k(s / \tau)`

    ``forward(teacher_out, student_out, teacher_temp=None, epoch=None)`` has lists of scores with
    prototypes, (N, K). The centre m, a moving average of the mean of all ranks' teachers, follows
    after the loss.

    Args:
        output_dim: K.
        warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs: tau_t, if ``forward`` gets
            none: the last, or in an ``epoch`` before the given number, one that rises evenly.
        student_temp: tau.
        center_momentum: how much of the centre stays.
        center_mode: ``'mean'``.

    Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.
    """

    center: Tensor

    def __init__(
        self,
        output_dim: int = 65536,
        warmup_teacher_temp: float = 0.04,
        teacher_temp: float = 0.04,
        warmup_teacher_temp_epochs: int = 30,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        center_mode: str = "mean",
    ) -> None:
        super().__init__()
        if center_mode != "mean":
            raise ValueError(f"center_mode: got {center_mode!r}, expected 'mean'")
        self.teacher_temp = teacher_temp
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, 1, output_dim))
        self.warmup_teacher_temp_epochs = warmup_teacher_temp_epochs
        self.teacher_temp_schedule = torch.linspace(
            warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs
        )

    def forward(
        self,
        teacher_out: Sequence[Tensor],
        student_out: Sequence[Tensor],
        teacher_temp: float | None = None,
        epoch: int | None = None,
    ) -> Tensor:
        tau: float | Tensor = self.teacher_temp if teacher_temp is None else teacher_temp
        if teacher_temp is None and epoch is not None and epoch < self.warmup_teacher_temp_epochs:
            tau = self.teacher_temp_schedule[epoch]
        teacher, student = wide(torch.stack([*teacher_out])), wide(torch.stack([*student_out]))
        (views, n, _), count = teacher.shape, len(student)
        terms = views * count - min(views, count)
        if not terms:
            got = f"{views} and {count} views"
            raise ValueError(f"teacher_out, student_out: got {got}, expected another view")
        # a temperature of fp32, as there
        p = ((teacher - self.center) / torch.as_tensor(tau, dtype=torch.float32)).softmax(-1)
        s = student / self.student_temp
        products = p.flatten(1) @ s.flatten(1).mT  # no log-softmax of a student is stored
        found = s.logsumexp(-1).sum(1) - products
        other = ~torch.eye(views, count, dtype=torch.bool, device=found.device)
        loss = torch.where(other, found, 0.0).sum() / (terms * n)
        self.update_center(teacher)
        return loss

    @torch.no_grad()
    def update_center(self, teacher_out: Tensor) -> None:
        """Moves the centre towards the mean of ``teacher_out``, (V, N, K), of all ranks."""
        mean = teacher_out.mean((0, 1), keepdim=True)
        if over_ranks(True):
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.center = self.center * self.center_momentum + mean * (1 - self.center_momentum)
