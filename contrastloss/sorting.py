"""Differentiable sorting and ranking: by relaxed sorting networks, or by projection."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import ops
from .ops.check import check_order
from .options import Positive, Prior, check_dense, shape, validated

__all__ = ["Sorted", "rank", "rank_mass", "soft_rank", "soft_sort", "sort"]


class Sorted(NamedTuple):
    """``values = x @ P``, and P: ``P[..., i, r]`` is the share of input i at rank r."""

    values: Tensor
    P: Tensor


@validated
def sort(
    x: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: Prior = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Sorted:
    r"""Sort x along a dimension by a relaxed sorting network; also returns its permutation matrix.

    Every comparator mixes its two values; :func:`contrastloss.ops.sort_network` has the formula.
    P is doubly stochastic, and tends to a permutation for a large steepness. It takes O(n^2) memory
    per row; :func:`rank` and :func:`rank_mass` do not need it.

    Args:
        x: values of a floating dtype, at least one along ``dim``.
        network: ``'odd_even'`` (n layers) or ``'bitonic'`` (about log2(n)^2 / 2 layers).
        distribution: the distribution function that weights the two orders of a comparator:
            ``'cauchy'``, ``'logistic'``, ``'logistic_phi'``, ``'gaussian'``, ``'reciprocal'`` or
            ``'optimal'``.
        steepness: a positive number, a 0-dim tensor, or a tensor that expands to x without
            ``dim``. Gradients flow to it.
        art_lambda: the exponent in ``'logistic_phi'``.
        descending: largest first.
        dim: the dimension to sort along.
        backend: the name of a backend; None chooses one.

    Returns:
        :class:`Sorted`: values with x's shape, and P, whose last two dimensions are (input, rank)
        and whose leading ones are those of x without ``dim``. Both in fp32 (fp64 for fp64).

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


@validated
def rank(
    x: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: Prior = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Tensor:
    """Relaxed ranks, 1 to n: the mean rank of each value, weighted by its row of the matrix P of
    :func:`sort`, in O(n) memory per row. The result has x's shape; arguments as for :func:`sort`.
    """
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


@validated
def rank_mass(
    x: Tensor,
    t: Tensor,
    *,
    network: str = "odd_even",
    distribution: str = "cauchy",
    steepness: Tensor | float = 10.0,
    art_lambda: Prior = 0.25,
    descending: bool = False,
    dim: int = -1,
    backend: str | None = None,
) -> Tensor:
    """``P t`` with the matrix P of :func:`sort`, in O(n) memory per row. If t is the indicator of
    some ranks, this is the share of each value at these ranks.

    Args:
        t: one number per rank along ``dim``: (n,), shared by all rows, or with x's shape.
            Gradients flow to it.

    Returns:
        A tensor with x's shape, in fp32 (fp64 for fp64). Other arguments and errors as for
        :func:`sort`.
    """
    rows = _rows(x, dim)
    check_dense("t", t)
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


# ---- by projection ---------------------------------------------------------------------------


@validated
def soft_rank(
    x: Tensor,
    *,
    regularization: Literal["l2", "kl"] = "l2",
    strength: Positive = 1.0,
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    r"""Soft ranks, 1 to n, by projection onto the convex hull of all permutations of 1 to n.

    :math:`\operatorname{argmin}_{r \in \mathcal P(1 \dots n)}
    \tfrac12 \| r - x / \varepsilon \|^2`

    or, with ``'kl'``, the point nearest to :math:`e^{x / \varepsilon}` in relative entropy. The
    ranks are exact if all values differ by more than :math:`\varepsilon` (``'l2'``). The cost is
    O(n log^2 n) per row, in O(log n) steps on whole tensors, in fp64 if the device has it; the
    backward pass is O(n).

    Args:
        x: values of a floating dtype, at least one along ``dim``.
        regularization: ``'l2'`` or ``'kl'``.
        strength: epsilon, a positive number.
        descending: rank 1 for the largest.
        dim: the dimension to rank along.

    Returns:
        A tensor with x's shape, in fp32 (fp64 for fp64).

    Raises:
        TypeError, ValueError, IndexError: an argument is wrong, or (on a CPU) x holds NaN; the
            message names it.

    Source: Blondel et al., Fast Differentiable Sorting and Ranking, 2020.
    """
    rows, kl = _projectable(x, regularization, dim)
    s, order = (rows / (-strength if descending else strength)).sort(-1, descending=True)
    w = _descending(rows)
    w = w.log() if kl else w
    found = _Projection.apply(s, w.expand_as(s), kl)
    found = found.exp() if kl else found
    return _like(torch.zeros_like(found).scatter(-1, order, found), x, dim)


@validated
def soft_sort(
    x: Tensor,
    *,
    regularization: Literal["l2", "kl"] = "l2",
    strength: Positive = 1.0,
    descending: bool = False,
    dim: int = -1,
) -> Tensor:
    r"""Soft sorting: the projection of :math:`(1 \dots n) / \varepsilon` onto the convex hull of
    all permutations of x. With ``'kl'``, the same for the exponentials, returned as logarithms.
    The values are exact if neighbours differ by less than :math:`1 / \varepsilon` (``'l2'``).
    Arguments, result, cost and errors as for :func:`soft_rank`.
    """
    rows, kl = _projectable(x, regularization, dim)
    sign = 1.0 if descending else -1.0
    w = (sign * rows).sort(-1, descending=True).values
    s = (_descending(rows) / strength).expand_as(w)
    return _like(sign * _Projection.apply(s, w, kl), x, dim)


def _projectable(x: Tensor, regularization: str, dim: int) -> tuple[Tensor, bool]:
    """The checked rows, in fp64 if the device has it, and whether to project in relative
    entropy."""
    rows = _rows(x, dim)
    if not x.is_floating_point():
        raise TypeError(f"x: got dtype {x.dtype}, expected a floating one")
    check_order(x)
    return rows.to(ops.widest(x)), regularization == "kl"


def _descending(rows: Tensor) -> Tensor:
    """The numbers n to 1."""
    return torch.arange(rows.shape[-1], 0, -1, dtype=rows.dtype, device=rows.device)


def _like(rows: Tensor, x: Tensor, dim: int) -> Tensor:
    return rows.to(x.dtype if x.dtype == torch.float64 else torch.float32).movedim(-1, dim)


class _Projection(torch.autograd.Function):
    r"""s - v for the non-increasing v nearest to s - w or, with ``kl``, for the one that minimises
    :math:`\sum_i e^{s_i - v_i} + v_i e^{w_i}`. v is constant on blocks of consecutive elements:
    the mean of s - w, or LSE(s) - LSE(w). A large s makes both large, so the result is computed
    per block from differences within the block, and no digit of w is lost."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, w: Tensor, kl: bool) -> Tensor:
        blocks = _Blocks.of(_isotonic(s - w, w if kl else None))
        ctx.save_for_backward(s, w, blocks.index)
        ctx.kl = kl
        low, high = blocks.most(s), blocks.most(w)
        s, w = s - low, w - high
        if kl:
            return s - blocks.total(s.exp()).log() + blocks.total(w.exp()).log() + high
        return s - blocks.mean(s) + blocks.mean(w) + high

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        s, w, index = ctx.saved_tensors
        blocks = _Blocks(index)
        if ctx.kl:
            whole = blocks.total(grad)
            return grad - whole * blocks.share(s), whole * blocks.share(w), None
        mean = blocks.mean(grad)
        return grad - mean, mean, None


class _Blocks:
    """Blocks of consecutive elements of rows, given by the block number of each element. The result
    for a block is repeated at all its elements."""

    def __init__(self, index: Tensor) -> None:
        self.index = index

    @staticmethod
    def of(values: Tensor) -> _Blocks:
        """The blocks of equal values."""
        index = torch.zeros_like(values, dtype=torch.int64)
        index[..., 1:] = (values.diff(dim=-1) != 0).cumsum(-1)
        return _Blocks(index)

    def total(self, values: Tensor) -> Tensor:
        sums = torch.zeros_like(values).scatter_add(-1, self.index, values)
        return sums.gather(-1, self.index)

    def mean(self, values: Tensor) -> Tensor:
        return self.total(values) / self.total(torch.ones_like(values))

    def most(self, values: Tensor) -> Tensor:
        found = torch.full_like(values, -torch.inf).scatter_reduce(-1, self.index, values, "amax")
        return found.gather(-1, self.index)

    def share(self, values: Tensor) -> Tensor:
        """Softmax within each block."""
        raised = (values - self.most(values.detach())).exp()
        return raised / self.total(raised)


def _isotonic(y: Tensor, log_weight: Tensor | None = None) -> Tensor:
    """The non-increasing fit of rows y (..., n): by least squares or, with log-weights, with the
    value LSE(y + log_weight) - LSE(log_weight) on each block.

    Neighbouring fitted parts are joined, all pairs of one size at once: the low end of the left
    part and the high end of the right part are pooled at a mean between them. A level would pool
    the values below it on the left and above it on the right. If their mean is above the level,
    the level is still too low.
    """
    squares, n = log_weight is None, y.shape[-1]
    width, none = 1 << (n - 1).bit_length(), 0.0 if squares else -torch.inf
    low = y.amin(-1, keepdim=True) - 1  # padding, never pooled
    v = torch.cat([y, low.expand(*y.shape[:-1], width - n)], -1)
    weight = torch.ones_like(v) if log_weight is None else F.pad(log_weight, (0, width - n))

    def running(values: Tensor) -> Tensor:
        """Sums of the first 0, 1, 2, ... values."""
        sums = values.cumsum(-1) if squares else values.logcumsumexp(-1)
        return F.pad(sums, (1, 0), value=none)

    def pooled(total: Tensor, weight: Tensor) -> Tensor:
        return total / weight if squares else total - weight

    half = 1
    while half < width:
        parts = width // (2 * half), 2, half
        v, weight = (t.reshape(*y.shape[:-1], *parts) for t in (v, weight))
        (left, right), level = v.unbind(-2), v.flatten(-2)
        lower = torch.searchsorted(left.flip(-1), level)
        higher = half - torch.searchsorted(right.flip(-1), level, right=True)
        moment, sums = v * weight if squares else v + weight, []
        for part in (moment, weight):
            ends = running(part[..., 0, :].flip(-1)), running(part[..., 1, :])
            found = [end.gather(-1, k) for end, k in zip(ends, (lower, higher), strict=True)]
            sums.append(found[0] + found[1] if squares else torch.logaddexp(*found))
        best = torch.where(pooled(*sums) >= level, level, left[..., -1:]).amax(-1, keepdim=True)
        pool = torch.stack([left <= best, right > best], -2)
        within = [torch.where(pool, part, none).flatten(-2) for part in (moment, weight)]
        mean = pooled(*(t.sum(-1) if squares else t.logsumexp(-1) for t in within))
        v = torch.where(pool, mean[..., None, None], v)
        half *= 2
    return v.reshape(*y.shape[:-1], width)[..., :n]


def _rows(x: Tensor, dim: int) -> Tensor:
    """x with dimension ``dim`` moved to the end."""
    check_dense("x", x)
    if x.ndim and not -x.ndim <= dim < x.ndim:
        raise IndexError(f"dim: got {dim}, expected {-x.ndim} to {x.ndim - 1} for x {shape(x)}")
    if not x.ndim or not x.shape[dim]:
        raise ValueError(f"x: got shape {shape(x)}, expected at least one value along dim {dim}")
    return x.movedim(dim, -1)
