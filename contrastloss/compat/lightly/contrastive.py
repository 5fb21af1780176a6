"""Lightly's losses of two views against each other, and its memory bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import distributed, ops
from ...channel import LSE, differs
from ...losses.base.loss import softplus
from ...losses.base.scores import cosine, wide
from ..ranks import gathered, needs_ranks, over_ranks, rank_of

__all__ = [
    "DCLLoss",
    "DCLWLoss",
    "DirectCLRLoss",
    "MemoryBankModule",
    "NTXentLoss",
    "among_stored",
]

_INSTANCE = "instance"
_OTHERS, _STORED = (LSE(pairs=(differs(_INSTANCE),)),), (LSE(),)


def _of_views(x: Tensor, y: Tensor, temperature: float, gather: bool) -> tuple[Tensor, Tensor]:
    """For each row of ``[x; y]``, (2N,): the log-sum-exp of its scores with both views of other
    instances, those of all ranks if they ``gather``; and its score with its own other view."""
    z, scale = torch.cat([x, y]), 1 / temperature
    ids = torch.arange(len(x), device=x.device).repeat(2)
    options: dict[str, Any] = {"scale": scale, "cosine": True}
    if gather:
        options["rows"] = {_INSTANCE: ids + (rank_of() << 40)}
        (negative,), _ = distributed.pair_stats(
            z, None, _OTHERS, group=distributed.WORLD, **options
        )
    else:
        (negative,) = ops.pair_stats(z, None, _OTHERS, rows={_INSTANCE: ids}, **options)
    return negative, (cosine(x, y) * scale).repeat(2)


def among_stored(x: Tensor, y: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """The mean cross entropy of each row of x's own row of y, among it and the rows of a bank, of
    plain products over the temperature."""
    scale = 1 / temperature
    (negative,) = ops.pair_stats(x, bank, _STORED, scale=scale)
    return softplus(negative - scale * (wide(x) * wide(y)).sum(1)).mean()


class MemoryBankModule(nn.Module):
    """The stored embeddings of earlier batches. They start as random unit vectors, and none of them
    gets a gradient.

    ``forward(output, labels=None, update=False)`` returns the output, and the bank as it was before
    the ``update`` or, without one, None. Where a batch does not fit behind the last, its tail is
    dropped and the next one starts at the first slot.

    Args:
        size: (slots, D), or 0 for none.
        gather_distributed: whether an update stores the outputs of all ranks.
        feature_dim_first: return (D, slots) rather than (slots, D).
    """

    bank: Tensor
    bank_ptr: Tensor

    def __init__(
        self,
        size: int | Sequence[int],
        gather_distributed: bool = False,
        feature_dim_first: bool = True,
    ) -> None:
        super().__init__()
        shape = (size,) if isinstance(size, int) else tuple(size)
        if any(length < 0 for length in shape) or (shape != (0,) and len(shape) != 2):
            raise ValueError(f"size: got {size}, expected 0 or (slots, dim), none negative")
        self.size = shape
        self.gather_distributed = gather_distributed
        self.feature_dim_first = feature_dim_first
        bank = torch.empty(shape) if len(shape) < 2 else F.normalize(torch.randn(shape), dim=-1)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long), persistent=False)

    def forward(
        self, output: Tensor, labels: Tensor | None = None, update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        if self.size[0] == 0:
            return output, None
        bank = self.bank.clone()
        if update:
            self._enqueue(output)
        return output, bank.mT if self.feature_dim_first else bank

    @torch.no_grad()
    def _enqueue(self, batch: Tensor) -> None:
        if over_ranks(self.gather_distributed):
            batch = gathered(batch, "none")
        first = int(self.bank_ptr)
        last = first + len(batch)
        self.bank[first:last] = batch[: self.size[0] - first].to(self.bank.dtype)
        self.bank_ptr.fill_(0 if last >= self.size[0] else last)


class NTXentLoss(nn.Module):
    r"""Cross entropy of each row's other view among all rows of ``z = [out0; out1]``, of cosines
    over the temperature; with a memory bank, of out0's other view among it and the bank's rows.

    :math:`-\log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}} \qquad \text{or} \qquad
    -\log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_k e^{s_{ik}}}`

    ``forward(out0, out1)`` has two (N, D). The bank stores out1 after a loss whose out0 requires a
    gradient.

    Args:
        temperature: of any sign, but not 0.
        memory_bank_size: (slots, D), or 0 for none.
        gather_distributed: the rows of all ranks are negatives, or are stored in the bank. The loss
            is the mean of this rank's rows.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    2020; He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        if abs(temperature) < 1e-8:
            raise ValueError(f"temperature: got {temperature}, expected at least 1e-8 or -1e-8")
        needs_ranks(gather_distributed)
        self.memory_bank = MemoryBankModule(memory_bank_size, gather_distributed)
        self.temperature = temperature
        self.gather_distributed = gather_distributed

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        if self.memory_bank.size[0] == 0:
            gather = over_ranks(self.gather_distributed)
            negative, positive = _of_views(out0, out1, self.temperature, gather)
            return softplus(negative - positive).mean()
        x, y = ops.unit(out0), ops.unit(out1)
        y, bank = self.memory_bank(y, update=x.requires_grad)
        # the bank's rows are of unit length, to the precision of its dtype
        return among_stored(x, y, bank.mT.to(x.device, x.dtype), self.temperature)


class DirectCLRLoss(NTXentLoss):
    """:class:`NTXentLoss` of the first ``loss_dim`` values of each flattened representation.

    Source: Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning,
    2021.
    """

    def __init__(
        self,
        loss_dim: int = 64,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(temperature, memory_bank_size, gather_distributed)
        self.loss_dim = loss_dim

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        return super().forward(*(v.flatten(1)[:, : self.loss_dim] for v in (out0, out1)))


class DCLLoss(nn.Module):
    r"""The mean, over the rows of ``z = [out0; out1]``, of

    :math:`-w_i s_{ip} + \log \sum_{j \notin \{i, p\}} e^{s_{ij}}, \qquad
    s_{ij} = \cos(z_i, z_j) / \tau`

    ``forward(out0, out1)`` has two (N, D). One row alone has no negatives and loss -inf.

    Args:
        temperature: tau.
        weight_fn: None for w = 1, or a function of the unit vectors of a side and of the other one
            that returns w, (N,), for the rows of the first.
        gather_distributed: the rows of all ranks are negatives. The loss is the mean of this rank's
            rows, and weights are those of its batch.

    Source: Yeh et al., Decoupled Contrastive Learning, 2022.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        weight_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        needs_ranks(gather_distributed)
        self.temperature = temperature
        self.weight_fn = weight_fn
        self.gather_distributed = gather_distributed

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        gather = over_ranks(self.gather_distributed)
        negative, positive = _of_views(out0, out1, self.temperature, gather)
        if self.weight_fn:
            x, y = ops.unit(out0), ops.unit(out1)
            weight = torch.cat([self.weight_fn(x, y), self.weight_fn(y, x)])
            positive = positive * weight
        return (negative - positive).mean()


def _von_mises_fisher(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Weights 2 - N softmax(<x_i, y_i> / sigma), without gradient."""
    return 2 - len(x) * ((x * y).sum(1).detach() / sigma).softmax(0)


class DCLWLoss(DCLLoss):
    r""":class:`DCLLoss` with :math:`w_i = 2 - N \operatorname{softmax}_i(\cos(x_i, y_i) / \sigma)`,
    a constant."""

    def __init__(
        self, temperature: float = 0.1, sigma: float = 0.5, gather_distributed: bool = False
    ) -> None:
        super().__init__(temperature, partial(_von_mises_fisher, sigma=sigma), gather_distributed)
