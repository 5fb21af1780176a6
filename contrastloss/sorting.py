"""Differentiable sorting and ranking, by relaxed sorting networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import ops
from .ops.check import shape

__all__ = ["Sorted", "rank", "rank_mass", "sort"]


class Sorted(NamedTuple):
    """``values = x @ P``, and ``P[..., i, r]``, how much of input i arrives at rank r."""

    values: Tensor
    P: Tensor


def sort(
    x: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: float = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Sorted:
    r"""Sorts x along a dimension by a relaxed network, whose permutation matrix P is returned too.

    Every comparator mixes the two values that it sees, :func:`contrastloss.ops.sort_network` has
    the formula. P is doubly stochastic, and a permutation in the limit of a large steepness. It
    takes O(n^2) memory per row; :func:`rank` and :func:`rank_mass` do without it.

    Args:
        x: values of a floating dtype, at least one along ``dim``.
        network: ``'odd_even'`` (n layers) or ``'bitonic'`` (about log2(n)^2 / 2 layers).
        distribution: whose distribution function weighs the two orders of a comparator:
            ``'cauchy'``, ``'logistic'``, ``'logistic_phi'``, ``'gaussian'``, ``'reciprocal'`` or
            ``'optimal'``.
        steepness: a positive number, a 0-dim tensor, or a tensor that expands to x without
            ``dim``. Gradients flow to it.
        art_lambda: of ``'logistic_phi'``.
        descending: largest first.
        dim: along which to sort.
        backend: the name of a backend; None chooses.

    Returns:
        :class:`Sorted`: values of x's shape and P, whose last two dimensions are (input, rank) and
        whose other ones are those of x without ``dim``. Both in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError, IndexError: an argument is wrong, or (on a CPU) x holds NaN; the
            message names it.

    Source: Petersen et al., Monotonic Differentiable Sorting Networks, 2022.
    """
    rows = _rows(x, dim)
    t = torch.eye(rows.shape[-1], dtype=torch.float32, device=x.device)
    values, masses = ops.sort_network(
        rows,
        t,
        steepness=steepness,
        network=network,
        distribution=distribution,
        art_lambda=art_lambda,
        backend=backend,
    )
    P = masses.mT
    if descending:
        values, P = values.flip(-1), P.flip(-1)
    return Sorted(values.movedim(-1, dim), P)


def rank(
    x: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: float = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Tensor:
    """Relaxed ranks, 1 to n: the mean of the ranks at which a value arrives, by its row of the P of
    :func:`sort`, in O(n) memory per row. Shaped as x; arguments as there."""
    n = _rows(x, dim).shape[-1]
    t = torch.arange(1, n + 1, dtype=torch.float32, device=x.device)
    return rank_mass(
        x,
        t,
        network=network,
        distribution=distribution,
        steepness=steepness,
        art_lambda=art_lambda,
        descending=descending,
        dim=dim,
        backend=backend,
    )


def rank_mass(
    x: Tensor,
    t: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: float = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Tensor:
    """``P t`` of the P of :func:`sort`, in O(n) memory per row: with t the indicator of some ranks,
    how much of each value arrives at these.

    Args:
        t: numbers that belong to the ranks along ``dim``, (n,) for all rows alike or shaped as x.
            Gradients flow to it.

    Returns:
        Shaped as x, in fp32 (fp64 for fp64). Other arguments, and errors, as of :func:`sort`.
    """
    rows = _rows(x, dim)
    if not isinstance(t, Tensor):
        raise TypeError(f"t: got {type(t).__name__}, expected a tensor")
    if t.shape not in (rows.shape[-1:], x.shape):
        expected = f"({rows.shape[-1]},) or x's {shape(x)}"
        raise ValueError(f"t: got shape {shape(t)}, expected {expected}")
    t = t[None] if t.ndim == 1 else t.movedim(dim, -1).unsqueeze(-2)
    _, masses = ops.sort_network(
        rows,
        t.flip(-1) if descending else t,
        steepness=steepness,
        network=network,
        distribution=distribution,
        art_lambda=art_lambda,
        backend=backend,
    )
    return masses.squeeze(-2).movedim(-1, dim)


def _rows(x: Tensor, dim: int) -> Tensor:
    """x with ``dim`` last."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: got {type(x).__name__}, expected a tensor")
    if x.ndim and not -x.ndim <= dim < x.ndim:
        raise IndexError(f"dim: got {dim}, expected {-x.ndim} to {x.ndim - 1} for x {shape(x)}")
    if not x.ndim or not x.shape[dim]:
        raise ValueError(f"x: got shape {shape(x)}, expected at least one value along dim {dim}")
    return x.movedim(dim, -1)
