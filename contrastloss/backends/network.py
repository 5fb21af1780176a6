"""Sorting networks, and the data structure in which a call of ``sort_network`` reaches a
backend."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .constant import constant

__all__ = ["DISTRIBUTIONS", "NETWORKS", "SORT", "SortCall", "comparators", "layers"]

Comparator = tuple[int, int]

#: cumulative distribution functions that relax a comparator
DISTRIBUTIONS = ("cauchy", "logistic", "logistic_phi", "gaussian", "reciprocal", "optimal")
NETWORKS = ("odd_even", "bitonic")

#: the schema of :meth:`SortCall.native`
SORT = "Tensor x, Tensor t, Tensor steepness, Tensor ends, float art_lambda, int distribution"


@lru_cache(maxsize=256)
def layers(network: str, n: int) -> tuple[tuple[Comparator, ...], ...]:
    """The comparators (a, b) of every layer; the smaller number goes to a."""
    return _odd_even(n) if network == "odd_even" else _bitonic(n)


def _odd_even(n: int) -> tuple[tuple[Comparator, ...], ...]:
    return tuple(tuple((i, i + 1) for i in range(layer % 2, n - 1, 2)) for layer in range(n))


def _bitonic(n: int) -> tuple[tuple[Comparator, ...], ...]:
    """Batcher's network of the next power of two, without its first wires. Every block is merged
    with its mirror image, so all comparators point the same way and the smallest numbers would stay
    on the first wires. (Wires cannot be removed from the variant with alternating directions: 22 of
    32 would not always be sorted.)"""
    blocks = (n - 1).bit_length()
    missing, found = (1 << blocks) - n, []
    for block in range(blocks):
        for stride in (1 << k for k in reversed(range(block + 1))):
            mirrored = stride == 1 << block
            pairs = [
                (a, a ^ (2 * stride - 1) if mirrored else a + stride)
                for a in range(missing, 1 << blocks)
                if not a & stride
            ]
            found.append(tuple((a - missing, b - missing) for a, b in pairs))
    return tuple(found)


@lru_cache(maxsize=128)
def comparators(network: str, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(a, b) of all comparators, layer after layer; and where each layer begins, with the end."""
    found = layers(network, n)
    ends = [wire for layer in found for pair in layer for wire in pair]
    starts = [0, *accumulate(map(len, found))]
    return constant(ends, torch.int32, device).view(-1, 2), constant(starts, torch.int32, device)


@dataclass(eq=False)
class SortCall:
    """A network relaxed by a distribution F. Its comparator (a, b) maps x to

        ``x_a' = w x_a + (1 - w) x_b,  x_b' = (1 - w) x_a + w x_b,  w = F(beta (x_b - x_a))``

    which is ``W x`` with a symmetric W. P is the product of all W: ``sorted = x P``, and the rank
    masses are ``P t = W_1 (W_2 ... (W_C t))``.
    """

    #: (R, n), in the statistics' dtype, like all tensors below
    x: Tensor
    #: (R, T, n), or (1, T, n) for the same t in every row; T may be 0
    t: Tensor
    #: beta, (R,)
    steepness: Tensor
    art_lambda: float
    network: str
    distribution: str
    #: the name of a backend; None chooses one
    backend: str | None = None

    features = frozenset({"sort"})

    def native(self) -> tuple[Any, ...]:
        """The call as arguments of a compiled backend: :data:`SORT`."""
        ends, _ = comparators(self.network, self.x.shape[1], self.x.device)
        tensors = (v.contiguous() for v in (self.x, self.t, self.steepness))
        return (*tensors, ends, self.art_lambda, DISTRIBUTIONS.index(self.distribution))

    def beyond(self, most: int) -> str | None:
        """Why a backend that sorts at most ``most`` numbers cannot serve this call; None if it
        can."""
        n = self.x.shape[1]
        return None if n <= most else f"it sorts at most {most} numbers, not {n}"
