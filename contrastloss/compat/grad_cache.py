"""The losses of GradCache (``grad_cache.loss``): plain callables, not modules."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, distributed as dist

from .. import functional
from .ranks import gathered, warn_of_the_share

__all__ = ["DistributedContrastiveLoss", "SimpleContrastiveLoss"]


class SimpleContrastiveLoss:
    r"""Cross entropy of each row's target among the rows of y, of plain products:

    :math:`\ell_i = -\log \frac{e^{\langle x_i, y_{t_i} \rangle}}
    {\sum_j e^{\langle x_i, y_j \rangle}}`

    Args:
        n_hard_negatives: how many rows of y follow each row's positive; targets are its multiples
            of this number plus one.
    """

    def __init__(self, n_hard_negatives: int = 0) -> None:
        self.n_hn = n_hard_negatives

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        target: Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> Tensor:
        """The loss of x (N, D) against y (M, D); ``target`` (N,) are places in y, of which
        -100 leaves a row out, as cross entropy has it."""
        positives = None  # row i of y is that of row i of x
        if target is not None:
            positives = torch.where(target == -100, -1, target)
        elif self.n_hn or len(x) != len(y):
            step = self.n_hn + 1
            positives = torch.arange(0, len(x) * step, step, device=x.device)
        return functional.info_nce(
            x,
            y,
            positives=positives,
            temperature=1.0,
            normalize=False,
            reduction=reduction,
        )


class DistributedContrastiveLoss(SimpleContrastiveLoss):
    """The same of the rows of all ranks. The loss is that of the whole batch on every rank; the
    rows of other ranks are constants, so that gradients averaged over W ranks are 1/W of those of
    the whole batch.

    Raises:
        RuntimeError: the default process group is not initialised.
    """

    def __init__(self, n_hard_negatives: int = 0) -> None:
        if not dist.is_initialized():
            raise RuntimeError("torch.distributed: expected an initialised process group, got none")
        super().__init__(n_hard_negatives=n_hard_negatives)
        self.word_size = dist.get_world_size()  # their spelling
        self.rank = dist.get_rank()
        warn_of_the_share(type(self).__name__, self.word_size, "contrastloss.InfoNCELoss(group=)")

    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        target: Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> Tensor:
        """``target`` and ``reduction`` are of the rows of all ranks."""
        return super().__call__(self.gather_tensor(x), self.gather_tensor(y), target, reduction)

    def gather_tensor(self, t: Tensor) -> Tensor:
        """The rows of all ranks; those of this rank keep their gradient."""
        return gathered(t, "own")
