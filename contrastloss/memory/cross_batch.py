"""Cross-batch memory: a loss that also uses the embeddings of earlier batches."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..options import Count, validated
from .queue import EmbeddingQueue

__all__ = ["CrossBatchMemory"]


class CrossBatchMemory(nn.Module):
    """A loss over its batch and the ``size`` embeddings before it.

    ``memory(z, labels)``, ``memory(x, y)`` for a loss of pairs, or ``memory(z)``, computes the loss
    with the stored embeddings as additional columns. In training mode it then stores z (for pairs:
    y). A batch is compared only with earlier ones, so no row is compared with a copy of itself.
    Within the batch both sides of every pair get gradients; stored embeddings get none.

    ``loss`` can be any loss whose ``forward`` takes ``memory=``, an :class:`EmbeddingQueue`, and
    ``ids=``, such as :class:`~contrastloss.SupConLoss` (stored rows with the row's label are
    positives, all others negatives) and :class:`~contrastloss.InfoNCELoss` (all are negatives). If
    the loss takes ``labels``, so does the memory. With the loss's ``group``, the memory holds the
    embeddings of all ranks. It raises if ``torch.utils.checkpoint`` recomputes it, since the batch
    is stored by then: call it outside checkpointed regions.

    Args:
        loss: the loss.
        size: number of stored embeddings.
        dim: length of the embeddings, D.
        ids: ``forward`` takes ``ids=`` (N,), the numbers of the instances. A stored embedding of
            the row's own instance, from an earlier epoch, is neither positive nor negative.
        dtype: dtype of the stored embeddings, equal to that of a batch; None: torch's default.
        device: device of the memory; None: torch's default.

    Source: Wang et al., Cross-Batch Memory for Embedding Learning, 2020.
    """

    @validated
    def __init__(
        self,
        loss: nn.Module,
        size: Count,
        dim: Count,
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
            raise TypeError(f"loss: got {got}, which takes two queues, expected a loss of one")
        self.loss, self.labelled = loss, "labels" in names
        self.queue = EmbeddingQueue(
            size, dim, labels=self.labelled, ids=ids, dtype=dtype, device=device
        )

    def forward(
        self,
        embeddings: Tensor,
        other: Tensor | None = None,
        *,
        ids: Tensor | None = None,
        **overrides: Any,
    ) -> Any:
        """``overrides`` are passed on to the loss: ``logit_scale``, ``row_weight`` and so on."""
        if (ids is None) != (self.queue.ids is None):
            got, expected = ("None", "integers") if ids is None else ("a value", "None")
            made = f"the memory was made with ids={ids is None}"
            raise ValueError(f"ids: got {got}, expected {expected}: {made}")
        inputs = (embeddings,) if other is None else (embeddings, other)
        value = self.loss(*inputs, memory=self.queue, ids=ids, **overrides)
        if self.training:
            self._store(embeddings, other, ids)
        return value

    def _store(self, embeddings: Tensor, other: Tensor | None, ids: Tensor | None) -> None:
        if self.labelled:
            keys, labels = embeddings, other
        else:
            keys, labels = embeddings if other is None else other, None
        views = keys.shape[1] if keys.ndim == 3 else 1
        labels, ids = (
            v if v is None or views == 1 else v.repeat_interleave(views) for v in (labels, ids)
        )
        # the loss has already checked the shapes
        keys = keys.flatten(0, -2)
        spread = {"group": self.loss.group, "equal_sizes": self.loss.equal_sizes}
        self.queue.enqueue(keys, labels, ids, **spread)  # type: ignore[arg-type]
