"""A queue of the embeddings of earlier batches."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..distributed import Layout, Peers, describe
from ..distributed.collectives import gather
from ..ops.check import check_device, check_embeddings
from ..ops.copies import check_forward, copies, settled
from ..options import Count, check_dense, shape, validated

__all__ = ["EmbeddingQueue", "Snapshot", "check_integers"]


def check_integers(name: str, value: Tensor, n: int, like: Tensor) -> None:
    """``value`` has one integer per row, on the device of ``like``."""
    check_dense(name, value)
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected an integer one")
    if value.shape != (n,):
        raise ValueError(f"{name}: got shape {shape(value)}, expected ({n},)")
    check_device(name, value, "the embeddings", like)


class Snapshot(NamedTuple):
    """The slots of an :class:`EmbeddingQueue` at one moment. Steps None: no slot is empty."""

    embeddings: Tensor
    steps: Tensor | None
    labels: Tensor | None
    ids: Tensor | None


class EmbeddingQueue(nn.Module):
    """The newest ``size`` embeddings of earlier batches; the oldest ones are overwritten.

    All state, including the position of the next slot, is in buffers on the queue's device. So
    there is no host synchronisation, a CUDA graph can contain an enqueue, and ``state_dict``,
    ``to`` and ``deepcopy`` include everything. Embeddings are stored unchanged and detached. The
    batch size need not divide the queue size; from a larger batch the last ``size`` rows are kept.

    Losses take the queue itself and ignore empty slots. If a gradient will be needed they work on a
    copy, so an enqueue may come between the loss and its backward pass, also within one compiled
    region. A region that ``torch.utils.checkpoint`` recomputes would see a different queue than the
    forward pass: in a backward pass, reading with gradients and writing raise.

    Args:
        size: number of slots, K.
        dim: length of the embeddings, D.
        labels: also store an integer label for every embedding.
        ids: also store an integer id, the instance that an embedding comes from, so that losses can
            leave out the row's own instance.
        dtype: dtype of the stored embeddings, equal to that of the embeddings they are compared
            with; None: torch's default dtype.
        device: device of the buffers; None: torch's default device.

    Buffers: ``embeddings`` (K, D); ``steps`` (K,), the number of the enqueue that wrote a slot, -1
    for an empty slot; ``labels`` and ``ids`` (K,), int64, or None; ``written`` and ``step``, 0-dim,
    the numbers of rows and of enqueues so far.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    embeddings: Tensor
    steps: Tensor
    labels: Tensor | None
    ids: Tensor | None
    written: Tensor
    step: Tensor

    @validated
    def __init__(
        self,
        size: Count,
        dim: Count,
        *,
        labels: bool = False,
        ids: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        try:
            device = None if device is None else torch.device(device)
        except RuntimeError:
            raise ValueError(f"device: got {device!r}, expected a device's name") from None
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
        for numbers in (self.steps, self.labels, self.ids):  # steps first: marks all slots empty
            if numbers is not None:
                numbers.fill_(-1)
        for value in (self.embeddings, self.written, self.step):
            value.zero_()

    #: the name that other libraries call to initialise a module after ``to_empty()``
    reset_parameters = reset

    @property
    def count(self) -> Tensor:
        """The number of filled slots, 0-dim."""
        return settled(self.written.clamp(max=self.size))

    @property
    def ages(self) -> Tensor:
        """The number of enqueues since each slot was written, (K,), and -1 for never."""
        return settled(torch.where(self.steps < 0, -1, self.step - 1 - self.steps))

    def snapshot(self) -> Snapshot:
        """The current slots. With gradients enabled these are copies, since a backward pass needs
        the columns of its forward pass even after an enqueue.

        Raises:
            RuntimeError: with gradients enabled in a backward pass.
        """
        held = {n: v for n in Snapshot._fields if (v := getattr(self, n)) is not None}
        if torch.is_grad_enabled():
            held = dict(zip(held, copies([*held.values()]), strict=True))
        return Snapshot(held["embeddings"], *(held.get(n) for n in Snapshot._fields[1:]))

    @torch.no_grad()
    def enqueue(
        self,
        keys: Tensor,
        labels: Tensor | None = None,
        ids: Tensor | None = None,
        *,
        group: Any = None,
        equal_sizes: bool = False,
    ) -> None:
        """Write rows in order, over the oldest ones. If this fails or is interrupted, the queue is
        unchanged.

        Args:
            keys: (N, D); no gradient flows back to them.
            labels, ids: (N,), integers; each is given if and only if the queue stores it. Ids are
                not negative.
            group: None, or a ProcessGroup or 1-D DeviceMesh. All of its ranks make this call: every
                rank enqueues the keys of all ranks, in the order of ranks, so that equal queues
                stay equal. Ranks may have different numbers of keys, or none.
            equal_sizes: True promises equal numbers of keys. It saves the exchange of sizes, which
                synchronises, and nothing is compared.

        Raises:
            TypeError, ValueError: an argument does not fit, or the ranks of the group disagree.
            RuntimeError: in a backward pass.
        """
        check_forward("queue: got an enqueue")
        if group is None:
            columns = self._checked(keys, labels, ids)
        else:
            columns = self._of_all_ranks(Peers.of(group), equal_sizes, keys, labels, ids)
        count = columns["embeddings"].shape[0]
        kept = min(count, self.size)
        newest = torch.arange(count - kept, count, device=self.written.device)
        slots = (self.written + newest) % self.size
        rows = {n: v[count - kept :].to(getattr(self, n).dtype) for n, v in columns.items()}
        rows["steps"] = self.step.expand(kept)
        after = rows, self.written + count, self.step + 1
        before = {n: getattr(self, n)[slots] for n in rows}, self.written.clone(), self.step.clone()
        try:
            self._write(slots, *after)
        except BaseException:  # such as Ctrl-C
            self._write(slots, *before)
            raise

    def _write(self, slots: Tensor, rows: dict[str, Tensor], written: Tensor, step: Tensor) -> None:
        for name, value in rows.items():
            getattr(self, name).index_copy_(0, slots, value)
        self.written.copy_(written)
        self.step.copy_(step)

    def _checked(
        self, keys: Tensor, labels: Tensor | None, ids: Tensor | None
    ) -> dict[str, Tensor]:
        """The checked rows for each buffer, by the buffer's name."""
        check_embeddings("keys", keys)
        if keys.ndim != 2 or keys.shape[1] != self.dim:
            raise ValueError(f"keys: got shape {shape(keys)}, expected (N, {self.dim})")
        check_device("keys", keys, "the queue", self.embeddings)
        found = {"embeddings": keys}
        for name, value in (("labels", labels), ("ids", ids)):
            if (value is None) != (getattr(self, name) is None):
                got, expected = ("None", "integers") if value is None else ("a value", "None")
                made = f"the queue was made with {name}={value is None}"
                raise ValueError(f"{name}: got {got}, expected {expected}: {made}")
            if value is not None:
                check_integers(name, value, keys.shape[0], self.embeddings)
                found[name] = value.long()
        return found

    def _of_all_ranks(self, peers: Peers, equal_sizes: bool, *given: Any) -> dict[str, Tensor]:
        device = self.embeddings.device
        about = {"call": "enqueue", "queue": describe(self)}
        with nullcontext() if equal_sizes else peers.call(about, device):
            columns = self._checked(*given)
            keys = columns["embeddings"]
            sizes = (keys.shape[0],) * peers.world
            layout = Layout(sizes, sizes)
            if not equal_sizes:
                layout = peers.meet((sizes[0], sizes[0]), {"keys": str(keys.dtype)}, device)
        return {n: gather(v, peers, layout, v.dtype) for n, v in columns.items()}

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, *messages: list[str]
    ) -> None:
        """Refuse a checkpoint whose integers no queue can have, by a message that torch raises:
        otherwise an empty slot could count as filled, or an old one as new, without any sign."""
        names = ("steps", "labels", "ids", "written", "step")
        found = {n: state_dict.get(prefix + n, getattr(self, n)) for n in names}
        damage = _damage({n: v for n, v in found.items() if v is not None}, self.size)
        if damage is None:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *messages)
        else:
            messages[-1].append(prefix + damage)

    def extra_repr(self) -> str:
        kept = "".join(f", {n}=True" for n in ("labels", "ids") if getattr(self, n) is not None)
        return f"{self.size}, {self.dim}{kept}, dtype={self.embeddings.dtype}"


def _damage(numbers: dict[str, Tensor], size: int) -> str | None:
    """Why no queue of that size can have these integer buffers, or None. Torch itself reports wrong
    shapes."""
    for name, value in numbers.items():
        if value.is_floating_point() or value.is_complex():
            return f"{name}: got dtype {value.dtype}, expected an integer one"
    kept = [numbers[n] for n in ("steps", "written", "step")]
    if any(type(v) is not Tensor or v.is_meta for v in kept):  # values cannot be read
        return None
    if [v.shape for v in kept] != [(size,), (), ()]:
        return None
    steps, (written, step) = kept[0].cpu(), (int(v) for v in kept[1:])
    for name, count in (("written", written), ("step", step)):
        if count < 0:
            return f"{name}: got {count}, expected at least 0"
    low, high = (int(v) for v in steps.aminmax())
    if low < -1 or high >= step:
        worst = low if low < -1 else high
        return f"steps: got {worst}, expected -1 to {step - 1}, as step is {step}"
    filled = steps >= 0
    if not torch.equal(filled, torch.arange(size) < written):
        got, want = int(filled.sum()), min(written, size)
        return f"steps: got {got} filled slots, expected the first {want}, as written is {written}"
    if (steps[filled].roll(-(written % size) if written > size else 0).diff() < 0).any():
        return f"steps: got a newer slot before an older one, from slot {written % size} on"
    return None
