"""A loss with the embeddings of earlier batches."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from .queue import EmbeddingQueue

__all__ = ["CrossBatchMemory"]


class CrossBatchMemory(nn.Module):
    """A loss against its batch and the ``size`` embeddings before it.

    ``memory(z, labels)``, or ``memory(x, y)`` for a loss of pairs, is the loss with the stored
    embeddings as further columns; then, in training mode, z (of a pair, y) is stored. A batch meets
    only what came before it, so no row meets a copy of itself, and within the batch both sides of
    every pair get gradients. Stored embeddings get none.

    Any loss serves whose ``forward`` takes ``memory=``, an :class:`EmbeddingQueue`, and ``ids=``:
    :class:`~contrastloss.SupConLoss` (stored rows of the label are positives, all others negatives)
    and :class:`~contrastloss.InfoNCELoss` (all are negatives). If it takes ``labels``, so does the
    memory. With the loss's ``group``, the memory is of all ranks. It raises where
    ``torch.utils.checkpoint`` computes it anew, since the batch is stored by then: call it outside.

    Args:
        loss: the loss.
        size: number of stored embeddings.
        dim: their length, D.
        ids: ``forward`` takes ``ids=`` (N,), numbers of the instances; a stored embedding of the
            row's own instance, from an earlier epoch, is neither positive nor negative.
        dtype: of the stored embeddings: that of the embeddings of a batch; None: torch's default.
        device: of the memory; None: torch's default.

    Source: Wang et al., Cross-Batch Memory for Embedding Learning, 2020.
    """

    def __init__(
        self,
        loss: nn.Module,
        size: int,
        dim: int,
        *,
        ids: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        names = inspect.signature(loss.forward).parameters
        if "memory" not in names:
            raise TypeError(
                f"loss: got {type(loss).__name__}, expected one whose forward takes memory="
            )
        if getattr(loss, "both_sides", False):
            got = type(loss).__name__
            raise TypeError(f"loss: got {got}, which takes two queues, expected one of one queue")
        self.loss, self.labelled = loss, "labels" in names
        self.queue = EmbeddingQueue(
            size, dim, labels=self.labelled, ids=ids, dtype=dtype, device=device
        )

    def forward(
        self, embeddings: Tensor, other: Tensor, *, ids: Tensor | None = None, **overrides: Any
    ) -> Any:
        """``overrides`` are those of the loss: ``logit_scale`` and ``logit_bias``."""
        if (ids is None) != (self.queue.ids is None):
            got, flag = ("none", True) if ids is None else ("a value", False)
            raise ValueError(f"ids: got {got}, but the memory was made with ids={flag}")
        value = self.loss(embeddings, other, memory=self.queue, ids=ids, **overrides)
        if self.training:
            self._store(embeddings, other, ids)
        return value

    def _store(self, embeddings: Tensor, other: Tensor, ids: Tensor | None) -> None:
        keys, labels = (embeddings, other) if self.labelled else (other, None)
        views = keys.shape[1] if keys.ndim == 3 else 1
        labels, ids = (
            v if v is None or views == 1 else v.repeat_interleave(views) for v in (labels, ids)
        )
        # the loss has checked them
        keys = keys.flatten(0, -2)
        spread = {"group": self.loss.group, "equal_sizes": self.loss.equal_sizes}
        self.queue.enqueue(keys, labels, ids, **spread)  # type: ignore[arg-type]
