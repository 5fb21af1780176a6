"""The ranks of a process group, what they agree on before a call, and who is named if one fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..channel import ROW, Axis

__all__ = ["Layout", "Peers"]

#: room for the numbers that each rank gives to its own rows
_NUMBERS = 1 << 40


@dataclass(frozen=True)
class Layout:
    """How many rows and columns every rank holds."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    def sizes(self, axis: Axis) -> tuple[int, ...]:
        return self.rows if axis == ROW else self.cols

    def offset(self, axis: Axis, rank: int) -> int:
        """The position of a rank's first row or column among all of them."""
        return (0, *accumulate(self.sizes(axis)))[rank]


class Peers:
    """The ranks over which a batch is spread.

    Args:
        group: a ProcessGroup, or a DeviceMesh of one dimension.
    """

    @classmethod
    def of(cls, group: Any) -> Peers:
        return group if isinstance(group, cls) else cls(group)

    def __init__(self, group: Any) -> None:
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

    def __repr__(self) -> str:
        return f"rank {self.rank} of {self.world}"

    def __deepcopy__(self, memo: Any) -> Peers:
        return self  # a process group is a connection, not data

    def distinct(self, numbers: Tensor) -> Tensor:
        """Numbers of this rank's own, shifted so that no other rank has any of them."""
        return numbers + self.rank * _NUMBERS

    # ---- before a call ----------------------------------------------------------------------

    def meet(self, header: dict[str, Any], device: torch.device) -> Layout:
        """Exchange one small header, and compare all of it but ``rows`` and ``columns``.

        Raises:
            ValueError: the ranks disagree, on every one of them; the message names the ranks.
            RuntimeError: a rank does not answer within the group's timeout; its number is named.
        """
        headers = self._exchange([_number(value) for value in header.values()], device)
        for k, name in enumerate(header):
            found = [numbers[k] for numbers in headers]
            if name not in ("rows", "columns") and len(set(found)) > 1:
                raise ValueError(_difference(name, found))
        return Layout(tuple(h[0] for h in headers), tuple(h[1] for h in headers))

    def _exchange(self, header: list[int], device: torch.device) -> list[list[int]]:
        if dist.get_backend(self.group) == "nccl":  # its watchdog ends the process on a timeout
            mine = torch.tensor(header, device=device)
            everyone = mine.new_empty(self.world, len(header))
            dist.all_gather(list(everyone.unbind()), mine, group=self.group)
            return everyone.tolist()
        # from rank to rank, so that who does not answer is known
        mine = torch.tensor(header)
        found = [mine if k == self.rank else torch.empty_like(mine) for k in range(self.world)]
        others = [k for k in range(self.world) if k != self.rank]
        works: list[tuple[int, Any]] = []
        for k in others:
            with self.expecting(k):
                works.append((k, dist.irecv(found[k], group=self.group, group_src=k)))
                works.append((k, dist.isend(mine, group=self.group, group_dst=k)))
        for k, work in works:
            with self.expecting(k):
                work.wait()
        return [h.tolist() for h in found]

    @contextmanager
    def expecting(self, rank: int) -> Iterator[None]:
        """What fails inside failed for want of ``rank``."""
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(
                f"group: rank {rank} did not answer rank {self.rank}: it died, hangs, or makes "
                f"other calls; the group is broken ({error})"
            ) from error


_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _number(value: Any) -> int:
    """What stands for a value in a header."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, torch.dtype):
        return -1 - _DTYPES.index(value)
    digest = hashlib.blake2b(str(value).encode(), digest_size=7).digest()
    return (1 << 56) + int.from_bytes(digest, "big")


def _difference(name: str, found: list[int]) -> str:
    """Which ranks have which value."""
    by_value: dict[int, list[int]] = {}
    for rank, value in enumerate(found):
        by_value.setdefault(value, []).append(rank)
    shown = []
    for k, (value, ranks) in enumerate(by_value.items()):
        what = str(_DTYPES[-1 - value]) if value < 0 else str(value)
        what = f"variant {k + 1}" if value >= 1 << 56 else what
        shown.append(f"{what} on rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}")
    return f"{name}: got {'; '.join(shown)}; expected the same on every rank of the group"
