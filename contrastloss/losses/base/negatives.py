"""The negatives that a call brings beside those of the batch, or in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ...channel import differs
from ...options import shape
from .blocks import ID, Block, Given, Own, Ragged
from .checks import check_offsets
from .scores import correction

__all__ = ["NEGATIVES", "Negatives"]

#: the arguments of ``forward`` that say them
NEGATIVES: Mapping[str, str] = {
    "negatives": "K D | N K D",
    "negatives_mask": "N K bool | K bool",
    "negatives_offsets": "B int",
    "negatives_ids": "K int | N K int",
    "negatives_log_q": "K float | N K float",
    "ids": "N int",
}


class Negatives(NamedTuple):
    """The arguments of these names: (K, D) for all rows, (N, K, D) for each its own, or those of
    all rows one after the other, (M, D), with offsets."""

    values: Tensor | None
    mask: Tensor | None = None
    offsets: Tensor | None = None
    ids: Tensor | None = None
    log_q: Tensor | None = None

    def check(self, n: int, ids: Tensor | None) -> None:
        """Whether they fit together and the n instances, which have these ids."""
        values = self.values
        if all(value is None for value in self):
            return
        if values is None or self.offsets is not None:
            other = "without negatives" if values is None else "with negatives_offsets"
            absent = {"mask": self.mask}
            if values is None:
                absent |= {"offsets": self.offsets, "ids": self.ids, "log_q": self.log_q}
            for name, value in absent.items():
                if value is not None:
                    raise ValueError(f"negatives_{name}: got a value, expected None {other}")
        if self.ids is not None and ids is None:
            raise ValueError("negatives_ids: got a value, expected None without ids")
        if values is None:
            return
        if self.offsets is not None:
            check_offsets(self.offsets, values, n)
        for name, value in (("mask", self.mask), ("ids", self.ids), ("log_q", self.log_q)):
            if value is not None and value.shape != values.shape[:-1]:
                expected = shape(values[..., 0])
                raise ValueError(f"negatives_{name}: got shape {shape(value)}, expected {expected}")

    def block(
        self, ids: Tensor | None, *, everywhere: bool, copies: int = 1, views: int = 1
    ) -> Block:
        """The columns, without those of a row's own id.

        Args:
            ids: of the instances.
            everywhere: with a group, whether rows meet the shared ones of all ranks.
            copies, views: as of :class:`Own`.
        """
        assert self.values is not None
        bias = correction(self.log_q, self.values)
        if self.offsets is not None:
            offsets = self.offsets.long()
            ragged = Ragged(self.values, offsets, bias, copies=copies, views=views)
            if ids is not None and self.ids is not None:
                ragged.mask = ids[ragged.met_by[:, 0] // views].long() != self.ids.long()
            return ragged
        if self.values.ndim == 3:
            mask = self.mask
            if ids is not None and self.ids is not None:
                others = ids[:, None].long() != self.ids.long()
                mask = others if mask is None else mask & others
            return Own(self.values, mask, bias, copies=copies, views=views)
        given = Given(self.values, self.mask, bias, everywhere=everywhere)
        if ids is not None and self.ids is not None:
            given.ids = {**given.ids, ID: self.ids}
            given.tests = (*given.tests, differs(ID))
            given.rows = {**given.rows, ID: ids.repeat_interleave(views).repeat(copies)}
        return given
