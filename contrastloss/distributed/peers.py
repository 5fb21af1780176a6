"""The ranks of a process group: agreement before a call, messages, and errors that name ranks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import accumulate, count
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..backends import preference
from ..channel import ROW, Axis
from .header import FAILED, apart, digest, disagreement, encoded, listed

__all__ = ["WORLD", "Layout", "Peers"]

#: the name of the default group, which is there once torch.distributed is initialised
WORLD = "world"

#: how many numbers each rank can assign to its own rows
_NUMBERS = 1 << 40

#: the name of these operations in error messages
OVER_RANKS = "losses over ranks"

#: message tags: three that belong to no call, then the first tag of calls
_HEADER, _DETAILS, TOTAL, _CALL = range(1, 5)
#: tags per call, one for each pass over its columns
_PASSES = 16
#: counts this rank's calls; the tags of all ranks are made from rank 0's count
_CALLS = count()
#: warnings that were given in this process
_SAID: set[str] = set()


@dataclass(frozen=True)
class Layout:
    """The numbers of rows and columns of every rank, and the tag of the call's messages. The tag
    keeps the messages of two backward passes apart if ranks run them in different orders."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]
    tag: int = 0

    def of_pass(self, number: int) -> Layout:
        """The layout of one of several passes of a call, with its own tag."""
        return replace(self, tag=self.tag + number % _PASSES)

    def sizes(self, axis: Axis) -> tuple[int, ...]:
        return self.rows if axis == ROW else self.cols

    def offset(self, axis: Axis, rank: int) -> int:
        """The position of a rank's first row or column among all of them."""
        return (0, *accumulate(self.sizes(axis)))[rank]


def _differ(what: str) -> None:
    """Ranks that choose differently: one warning, or an error if torch is to be deterministic."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if torch.are_deterministic_algorithms_enabled() and not warn_only:
        raise ValueError(f"group: {what}")
    if what not in _SAID:
        _SAID.add(what)
        warnings.warn(f"group: {what}", stacklevel=2)


class Peers:
    """The ranks over which a batch is spread.

    Args:
        group: a ProcessGroup, a DeviceMesh of one dimension, or ``"world"``, the default group.
    """

    @classmethod
    def of(cls, group: Any) -> Peers:
        return group if isinstance(group, cls) else cls(group)

    def __init__(self, group: Any) -> None:
        if isinstance(group, str) and group == WORLD:
            if not dist.is_initialized():
                raise RuntimeError(
                    "group: got 'world', expected torch.distributed.init_process_group to have run"
                )
            group = dist.group.WORLD
        mesh = getattr(group, "get_group", None)
        if mesh is not None:
            if group.ndim != 1:
                raise ValueError(f"group: got a DeviceMesh of {group.ndim} dimensions, expected 1")
            group = mesh()
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"group: got {type(group).__name__}, expected a ProcessGroup or a DeviceMesh"
            )
        self.group = group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: got one that this process is not in")
        #: additional entries that the next meeting compares: those of the current call
        self._about: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.world}"

    def __deepcopy__(self, memo: Any) -> Peers:
        return self  # a process group is a connection, not data

    def distinct(self, numbers: Tensor) -> Tensor:
        """This rank's numbers, shifted so that no other rank has the same ones."""
        return numbers + self.rank * _NUMBERS

    # ---- before a call ----------------------------------------------------------------------

    @contextmanager
    def call(self, about: Mapping[str, str], device: torch.device | None) -> Iterator[None]:
        """A call that every rank makes, and in which all ranks meet. If this rank fails before they
        meet, it tells the others, so that every rank raises. A nested call belongs to the outer one
        until the ranks have met."""
        if self._about is not None:
            yield
            return
        self._about = dict(about)
        try:
            yield
            self.settle(device)
        except Exception as error:
            if self._about is not None:  # the others wait for a header
                with suppress(RuntimeError, ValueError):
                    self._compare({"error": f"{type(error).__name__}: {error}"}, (), device)
            raise
        finally:
            self._about = None

    def settle(self, device: torch.device | None) -> None:
        """Meet, if the ranks have not met yet in the current call."""
        if self._about is not None:
            self.meet((0, 0), {}, device)

    def meet(
        self, sizes: tuple[int, int], about: Mapping[str, str], device: torch.device | None
    ) -> Layout:
        """Exchange one small header: the numbers of rows and columns, and a hash of everything that
        has to be the same.

        Raises:
            ValueError: on every rank, if ranks disagree or one of them failed; the message names
                the ranks.
            RuntimeError: a rank does not answer within the group's timeout; the message names it.
        """
        outer, self._about = self._about or {}, None
        about = {**outer, **about, **outer}
        headers = self._compare(about, sizes, device)
        tag = _CALL + _PASSES * (headers[0][2] % (1 << 24))
        return Layout(tuple(h[3] for h in headers), tuple(h[4] for h in headers), tag)

    def _compare(
        self, about: Mapping[str, str], sizes: tuple[int, ...], device: torch.device | None
    ) -> list[list[int]]:
        text, failed = encoded(about), not sizes
        mine = [FAILED if failed else digest(text), len(text), next(_CALLS), *(sizes or (0, 0))]
        mine.append(preference(device))
        device = self._headers_device(device)
        everyone = self.everyone(torch.tensor(mine, device=device), _HEADER)
        headers: list[list[int]] = everyone.tolist()
        hashes = [header[0] for header in headers]
        if len({*hashes}) > 1 or FAILED in hashes:
            lengths = [header[1] for header in headers]
            padded = text.ljust(max(lengths), b" ")
            texts = self.everyone(torch.tensor(list(padded), device=device).byte(), _DETAILS)
            said = [json.loads(bytes(row)) for row in texts.tolist()]
            raise ValueError(disagreement(said, [k for k, h in enumerate(hashes) if h == FAILED]))
        if len({header[5] for header in headers}) > 1:
            _differ(apart([header[5] for header in headers]))
        return headers

    def _headers_device(self, device: torch.device | None) -> torch.device:
        if dist.get_backend(self.group) != "nccl":
            return torch.device("cpu")
        if device is not None and device.type == "cuda":
            return device
        return torch.device("cuda", torch.cuda.current_device())

    # ---- messages ---------------------------------------------------------------------------

    def direct(self, device: torch.device) -> bool:
        """Whether to send point-to-point messages, which show which rank does not answer. With NCCL
        the watchdog ends the process anyway, and collectives are faster."""
        return device.type == "cpu"

    def everyone(self, value: Tensor, tag: int) -> Tensor:
        """The tensors of all ranks, which have equal shapes, stacked: (W, ...)."""
        parts = value.new_empty(self.world, *value.shape)
        if self.direct(value.device):
            self.swap([value] * self.world, parts.unbind(), tag)
        else:
            dist.all_gather(list(parts.unbind()), value, group=self.group)
        return parts

    def swap(self, to: Sequence[Tensor], into: Sequence[Tensor], tag: int) -> None:
        """Send part k of ``to`` to rank k, and receive its part for this rank into part k of
        ``into``. All parts are contiguous.

        Raises:
            RuntimeError: ranks do not answer within the group's timeout; the message names them.
        """
        into[self.rank].copy_(to[self.rank])
        works: list[tuple[int, Any]] = []
        lost: dict[int, RuntimeError] = {}
        others = [k for k in range(self.world) if k != self.rank]
        for k in others:
            try:  # go on after an error: the other ranks get their parts, and blame only rank k
                if into[k].numel():
                    works.append((k, dist.irecv(into[k], group=self.group, group_src=k, tag=tag)))
                if to[k].numel():
                    works.append((k, dist.isend(to[k], group=self.group, group_dst=k, tag=tag)))
            except RuntimeError as error:
                lost[k] = error
        for k, work in works:
            try:  # after the first timeout, give each other message only 100 ms
                work.wait(*([timedelta(milliseconds=100)] if lost else []))
            except RuntimeError as error:
                lost.setdefault(k, error)
        if lost:
            first = next(iter(lost.values()))
            raise self._lost(sorted(lost), first) from first

    @contextmanager
    def expecting(self, rank: int) -> Iterator[None]:
        """A RuntimeError raised inside is reported as ``rank`` not answering."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost([rank], error) from error

    def _lost(self, ranks: list[int], error: RuntimeError) -> RuntimeError:
        return RuntimeError(
            f"group: {listed(ranks)} did not answer rank {self.rank}: dead, hanging, or in another "
            f"call; the group can no longer be used ({error})"
        )
