"""What outlives a batch: embeddings of earlier ones, and an encoder that follows another slowly."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .distributed import Layout, Peers
from .distributed.collectives import gather
from .ops.check import check_device, check_embeddings, shape

__all__ = ["CrossBatchMemory", "EmbeddingQueue", "MomentumEncoder", "Snapshot"]


def check_integers(name: str, value: Tensor, n: int, like: Tensor) -> None:
    """One integer per row, on the device of ``like``."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor")
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected an integer one")
    if value.shape != (n,):
        raise ValueError(f"{name}: got shape {shape(value)}, expected ({n},)")
    check_device(name, value, "the embeddings", like)


class Snapshot(NamedTuple):
    """The slots of an :class:`EmbeddingQueue` at one moment; without steps, none is empty."""

    embeddings: Tensor
    steps: Tensor | None
    labels: Tensor | None
    ids: Tensor | None


class EmbeddingQueue(nn.Module):
    """The newest ``size`` embeddings of earlier batches; the oldest ones are overwritten.

    Everything is a buffer on the queue's device, the position of the next slot too: nothing is
    synchronised, a CUDA graph may hold an enqueue, and ``state_dict``, ``to`` and ``deepcopy``
    carry all of it. Embeddings are stored as they come, without their graph. A batch need not
    divide the size; of one that is larger, the last ``size`` rows stay.

    Losses take the queue itself and leave empty slots out. They work on a copy of it wherever a
    gradient will be needed, so an enqueue may stand between the loss and its backward pass.

    Args:
        size: number of slots, K.
        dim: length of the embeddings, D.
        labels: keep an integer label beside every embedding.
        ids: keep an integer id, of the instance that an embedding comes from, so that losses can
            leave out the instance of the row itself.
        dtype: of the stored embeddings, float32: that of the embeddings that will meet them.
        device: of the buffers; default: torch's.

    Buffers: ``embeddings`` (K, D); ``steps`` (K,), the number of the enqueue that wrote a slot, -1
    in an empty one; ``labels`` and ``ids`` (K,), int64, or None; ``written``, the number of rows
    so far, and ``step``, that of enqueues, 0-dim.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    embeddings: Tensor
    steps: Tensor
    labels: Tensor | None
    ids: Tensor | None
    written: Tensor
    step: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        labels: bool = False,
        ids: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("size", size), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a positive int")
        self.size, self.dim = size, dim
        embeddings = torch.empty(size, dim, dtype=dtype, device=device)
        check_embeddings("dtype", embeddings)
        slots = {"steps": True, "labels": labels, "ids": ids}
        self.register_buffer("embeddings", embeddings)
        for name, kept in slots.items():
            numbers = torch.empty(size, dtype=torch.int64, device=device) if kept else None
            self.register_buffer(name, numbers)
        for name in ("written", "step"):
            self.register_buffer(name, torch.empty((), dtype=torch.int64, device=device))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Empty the queue."""
        for value in (self.embeddings, self.written, self.step):
            value.zero_()
        for numbers in (self.steps, self.labels, self.ids):
            if numbers is not None:
                numbers.fill_(-1)

    @property
    def count(self) -> Tensor:
        """The number of slots that are filled, 0-dim."""
        return self.written.clamp(max=self.size)

    @property
    def ages(self) -> Tensor:
        """How many enqueues ago each slot was written, (K,): 0 for the last one, -1 for never."""
        return torch.where(self.steps < 0, -1, self.step - 1 - self.steps)

    def snapshot(self) -> Snapshot:
        """The slots as they are now. With gradients enabled these are copies: a backward pass needs
        the columns of its forward pass, whatever was enqueued in between."""
        held = (self.embeddings, self.steps, self.labels, self.ids)
        if not torch.is_grad_enabled():
            return Snapshot(*held)
        return Snapshot(*(None if value is None else value.clone() for value in held))  # type: ignore[arg-type]

    @torch.no_grad()
    def enqueue(
        self,
        keys: Tensor,
        labels: Tensor | None = None,
        ids: Tensor | None = None,
        *,
        group: Any = None,
        uneven: bool = True,
    ) -> None:
        """Write rows in their order, over the oldest ones.

        Args:
            keys: (N, D); no gradient flows back to them.
            labels, ids: (N,), integers, each exactly where the queue keeps it; ids not negative.
            group: None, or a ProcessGroup or 1-D DeviceMesh, all of whose ranks make this call:
                every one enqueues the keys of all, in the order of ranks, so that equal queues stay
                equal. Ranks may have different numbers of keys, or none.
            uneven: False promises equal numbers. The exchange of sizes, which synchronises, is
                saved then, and nothing is compared.

        Raises:
            TypeError, ValueError: an argument does not fit, or the ranks of the group disagree.
        """
        columns = {"embeddings": keys, **self._integers(keys, labels, ids)}
        if group is not None:
            columns = self._of_all_ranks(columns, Peers.of(group), uneven)
        count = columns["embeddings"].shape[0]
        kept = min(count, self.size)
        newest = torch.arange(count - kept, count, device=self.written.device)
        slots = (self.written + newest) % self.size
        for name, value in columns.items():
            buffer = getattr(self, name)
            buffer.index_copy_(0, slots, value[count - kept :].to(buffer.dtype))
        self.steps.index_copy_(0, slots, self.step.expand(kept))
        self.written += count
        self.step += 1

    def _integers(
        self, keys: Tensor, labels: Tensor | None, ids: Tensor | None
    ) -> dict[str, Tensor]:
        """What goes beside the keys, all of it checked."""
        check_embeddings("keys", keys)
        if keys.ndim != 2 or keys.shape[1] != self.dim:
            raise ValueError(f"keys: got shape {shape(keys)}, expected (N, {self.dim})")
        check_device("keys", keys, "the queue", self.embeddings)
        found = {}
        for name, value in (("labels", labels), ("ids", ids)):
            if (value is None) != (getattr(self, name) is None):
                got, flag = ("none", True) if value is None else ("a value", False)
                raise ValueError(f"{name}: got {got}, but the queue was made with {name}={flag}")
            if value is not None:
                check_integers(name, value, keys.shape[0], self.embeddings)
                found[name] = value.long()
        return found

    def _of_all_ranks(
        self, columns: dict[str, Tensor], peers: Peers, uneven: bool
    ) -> dict[str, Tensor]:
        keys = columns["embeddings"]
        sizes = (keys.shape[0],) * peers.world
        layout = Layout(sizes, sizes)
        if uneven:
            header = {
                "rows": keys.shape[0],
                "columns": keys.shape[0],
                "D": self.dim,
                "size": self.size,
                "dtype": keys.dtype,
                "queue": f"{list(columns)} {self.embeddings.dtype}",
            }
            layout = peers.meet(header, keys.device)
        return {n: gather(v, peers, layout, v.dtype) for n, v in columns.items()}

    def extra_repr(self) -> str:
        kept = "".join(f", {n}=True" for n in ("labels", "ids") if getattr(self, n) is not None)
        return f"{self.size}, {self.dim}{kept}, dtype={self.embeddings.dtype}"


class MomentumEncoder(nn.Module):
    r"""A copy of a module whose parameters follow it as an exponential moving average.

    .. math:: \theta \leftarrow m\,\theta + (1 - m)\,\theta_{\text{module}}

    at every :meth:`update`; buffers are copied. It runs without gradients, and its parameters
    require none. They keep the dtype of the module's, and in bf16 or fp16 most steps of size
    1 - m round to nothing: keep parameters in fp32, under autocast.

    Args:
        module: what to copy and follow. No reference to it is kept. Make the copy before DDP or
            FSDP wrap it; :meth:`update` takes the wrapper as well.
        momentum: m, in [0, 1], 0.999. An attribute that a schedule may set.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    def __init__(self, module: nn.Module, momentum: float = 0.999) -> None:
        super().__init__()
        if not isinstance(momentum, (int, float)) or not 0 <= momentum <= 1:
            raise ValueError(f"momentum: got {momentum!r}, expected a number in [0, 1]")
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """One step towards ``module``, after its optimizer's.

        Raises:
            ValueError: its parameters or buffers are not those of the copied module.
        """
        own, given = (list(m.parameters()) for m in (self.module, module))
        _check_alike("parameters", own, given)
        moving = [k for k, p in enumerate(own) if p.is_floating_point() or p.is_complex()]
        if moving:
            ends = [given[k].to(own[k].dtype) for k in moving]
            torch._foreach_lerp_([own[k] for k in moving], ends, 1 - self.momentum)
        rest = sorted({*range(len(own))} - {*moving})
        copies: list[tuple[Tensor, Tensor]] = [(own[k], given[k]) for k in rest]
        held, buffers = (list(m.buffers()) for m in (self.module, module))
        _check_alike("buffers", held, buffers)
        for mine, value in (*copies, *zip(held, buffers, strict=True)):
            mine.copy_(value)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"


def _check_alike(kind: str, own: Iterable[Tensor], given: Iterable[Tensor]) -> None:
    found, expected = ([tuple(v.shape) for v in values] for values in (given, own))
    if found != expected:
        raise ValueError(f"module: got {kind} of shapes {found}, expected {expected}")


class CrossBatchMemory(nn.Module):
    """A loss against its batch and the ``size`` embeddings before it.

    ``memory(z, labels)``, or ``memory(x, y)`` for a loss of pairs, is the loss with the stored
    embeddings as further columns; then, in training mode, z (of a pair, y) is stored. A batch meets
    only what came before it, so no row meets a copy of itself, and within the batch both sides of
    every pair get gradients. Stored embeddings get none.

    Any loss serves whose ``forward`` takes ``memory=``, an :class:`EmbeddingQueue`, and ``ids=``:
    :class:`~contrastloss.SupConLoss` (stored rows of the label are positives, all others negatives)
    and :class:`~contrastloss.InfoNCELoss` (all are negatives). If it takes ``labels``, so does the
    memory. With the loss's ``group``, the memory is of all ranks.

    Args:
        loss: the loss.
        size: number of stored embeddings.
        dim: their length, D.
        ids: ``forward`` takes ``ids=`` (N,), numbers of the instances; a stored embedding of the
            row's own instance, from an earlier epoch, is neither positive nor negative.
        dtype: of the stored embeddings, float32: that of the embeddings of a batch.
        device: of the memory.

    Source: Wang et al., Cross-Batch Memory for Embedding Learning, 2020.
    """

    def __init__(
        self,
        loss: nn.Module,
        size: int,
        dim: int,
        *,
        ids: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        names = inspect.signature(loss.forward).parameters
        if "memory" not in names:
            raise TypeError(
                f"loss: got {type(loss).__name__}, expected one whose forward takes memory="
            )
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
        spread = {"group": self.loss.group, "uneven": self.loss.uneven}
        self.queue.enqueue(keys, labels, ids, **spread)  # type: ignore[arg-type]
