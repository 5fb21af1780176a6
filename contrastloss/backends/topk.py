"""The options of a top-k call in addition to those of the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["SELECTION", "Selection", "mixed", "position_keys"]

#: the schema of :meth:`Selection.native`
SELECTION = (
    "int k, Tensor? lower, Tensor? upper, Tensor[] ignore, Tensor? row_keys, Tensor? col_keys, "
    "float beta"
)


@dataclass(eq=False)
class Selection:
    """The k best columns of every row, ordered by ``key_ij = sign s_ij`` or, when sampling, by
    ``beta s_ij + g_ij`` with Gumbel noise g. The call's one ``MAX`` channel has the sign and the
    tests.

    A candidate passes the tests, is in no ignore list and has ``lower_i <= s_ij <= upper_i``.
    Scores of NaN and keys of -inf are no candidates. Vectors are (B, M), or (M,) for a call without
    a batch dimension.
    """

    k: int
    lower: Tensor | None = None
    upper: Tensor | None = None
    #: CSR over all B M rows: offsets (B M + 1), and columns, ascending within a row
    ignore: tuple[Tensor, Tensor] | None = None
    #: beta; None selects the best without noise
    sample: float | None = None
    #: from :func:`position_keys`, (..., M, 2) and (..., N, 2), when sampling
    row_keys: Tensor | None = None
    col_keys: Tensor | None = None

    #: the fields that have a batch dimension if the call has one
    VECTORS = ("lower", "upper", "row_keys", "col_keys")

    def native(self) -> tuple[Any, ...]:
        """The options as arguments of a compiled backend: :data:`SELECTION`. Keys become int32 with
        the same bits."""

        def words(keys: Tensor | None) -> Tensor | None:
            return None if keys is None else keys.to(torch.int32).contiguous()

        def bound(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.contiguous()

        return (
            self.k,
            bound(self.lower),
            bound(self.upper),
            list(self.ignore or ()),
            words(self.row_keys),
            words(self.col_keys),
            self.sample or 0.0,
        )


_BITS = 0xFFFFFFFF


def mixed(value: Tensor) -> Tensor:
    """A bijection of 32-bit numbers, stored in int64, that scatters neighbouring numbers: two
    rounds of multiply and xorshift, with the constants of C. Wellons' search for low bias."""
    value = (value ^ (value >> 16)) * 0x21F0AAAD & _BITS
    value = (value ^ (value >> 15)) * 0xD35A2D97 & _BITS
    return value ^ (value >> 15)


def position_keys(positions: Tensor, seed: int, axis: int) -> Tensor:
    """Two 32-bit numbers for every position, (..., 2). They depend only on (seed, axis, position),
    so that blocks, shards and backends agree on the noise of a pair."""
    words = (positions & _BITS, (positions >> 32) & _BITS)
    keys = []
    for salt in (2 * axis, 2 * axis + 1):
        key = torch.full_like(positions, salt)
        for word in (seed & _BITS, (seed >> 32) & _BITS, *words):
            key = mixed((key * 0x9E3779B1 + word + 1) & _BITS)
        keys.append(key)
    return torch.stack(keys, -1)
