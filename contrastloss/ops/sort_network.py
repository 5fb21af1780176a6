"""``sort_network``: a relaxed sorting network, without its permutation matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import DISTRIBUTIONS, NETWORKS, SortCall, mask, run, stat_dtype
from ..options import Positive, Prior, brief, check_dense, checked, shape
from .check import check_broadcast, check_device, check_order, no_transforms, plain, scalar
from .operator import define

__all__ = ["SortNetwork", "check_network", "sort_network"]


def sort_network(
    x: Tensor,
    t: Tensor | None = None,
    *,
    steepness: Tensor | float = 10.0,
    network: str = "odd_even",
    distribution: str = "cauchy",
    art_lambda: float = 0.25,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Sort rows by a network of relaxed comparators, and compute rank masses.

    A comparator of wires a and b mixes their values with the weight
    :math:`w = F(\beta (x_b - x_a))`:

    :math:`x_a' = w x_a + (1 - w) x_b, \qquad x_b' = (1 - w) x_a + w x_b.`

    All comparators together are a doubly stochastic matrix P with ``sorted = x @ P``: ``P[i, r]``
    is the share of input i at rank r. ``P t`` is computed by passing t backwards through the
    network, in O(n) memory per row and O(1) per comparator; P itself is never formed.

    Args:
        x: (..., n), of a floating dtype, n at least 1.
        t: vectors over ranks, (..., T, n), or (T, n) shared by all rows; None for none.
        steepness: beta, positive: a number, a 0-dim tensor or one that expands to (...).
        network: ``'odd_even'`` (n layers) or ``'bitonic'`` (about log2(n)^2 / 2 layers).
        distribution: F: ``'cauchy'``, ``'logistic'``, ``'logistic_phi'`` (the logistic of
            ``v / |delta|^art_lambda``), ``'gaussian'``, ``'reciprocal'`` or ``'optimal'``.
        art_lambda: the exponent in ``'logistic_phi'``, in [0, 1).
        backend: the name of a backend; None chooses one.

    Returns:
        Sorted rows (..., n) and masses ``P t`` (..., T, n), in fp32 (fp64 for fp64). Gradients flow
        to x, t and steepness; only these three are saved for the backward pass.

    Raises:
        TypeError, ValueError: an argument's dtype, shape, device or value is wrong, or (on a CPU)
            x holds NaN; the message names it.
        RuntimeError: the named ``backend`` does not support the call; the message says why.

    Source: Petersen et al., Monotonic Differentiable Sorting Networks, 2022.
    """
    no_transforms("sort_network")
    _check(x)
    check_network(network, distribution, art_lambda, steepness)
    stat, lead, n = stat_dtype(x), x.shape[:-1], x.shape[-1]
    rows = math.prod(lead)
    flat = x.to(stat).reshape(rows, n)
    beta = _steepness(steepness, x).to(stat).expand(lead).reshape(rows)
    if t is None:
        masses = flat.new_empty(1, 0, n)
    else:
        masses = _check_masses(t, x).to(stat)
        if masses.ndim > 2 or masses.requires_grad:  # t or its gradient differs between rows
            masses = masses.expand(*lead, *masses.shape[-2:]).reshape(rows, *masses.shape[-2:])
        else:
            masses = masses[None]
    settings = (float(art_lambda), network, distribution, backend)
    if plain(x):
        found = SortNetwork.apply(settings, flat, masses, beta)
    else:
        found = torch.ops.contrastloss.sort_network(flat, masses, beta, *settings)
    return found[0].reshape(x.shape), found[1].reshape(*lead, masses.shape[1], n)


def check_network(
    network: str, distribution: str, art_lambda: float, steepness: Tensor | float
) -> None:
    """Check the options; for a steepness that is a tensor, only its dtype."""
    if not isinstance(network, str) or network not in NETWORKS:
        raise ValueError(f"network: got {brief(network)}, expected one of {', '.join(NETWORKS)}")
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        expected = ", ".join(DISTRIBUTIONS)
        raise ValueError(f"distribution: got {brief(distribution)}, expected one of {expected}")
    checked("art_lambda", art_lambda, Prior)
    if isinstance(steepness, Tensor):
        if not steepness.is_floating_point():
            raise TypeError(f"steepness: got dtype {steepness.dtype}, expected a floating one")
        return
    checked("steepness", steepness, Positive)


def _check(x: Tensor) -> None:
    check_dense("x", x)
    if not x.is_floating_point():
        raise TypeError(f"x: got dtype {x.dtype}, expected a floating one")
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"x: got shape {shape(x)}, expected (..., n) with n at least 1")


def _steepness(value: Tensor | float, x: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        check_dense("steepness", value)
        check_device("steepness", value, "x", x)
        check_broadcast("steepness", value, tuple(x.shape[:-1]))
        return value
    return scalar("steepness", value, x)


def _check_masses(t: Tensor, x: Tensor) -> Tensor:
    check_dense("t", t)
    if not t.is_floating_point():
        raise TypeError(f"t: got dtype {t.dtype}, expected a floating one")
    check_device("t", t, "x", x)
    lead = x.shape[:-1]
    if t.ndim < 2 or t.shape[-1] != x.shape[-1] or t.shape[:-2] not in ((), lead):
        raise ValueError(f"t: got shape {shape(t)}, expected (T, n) or (..., T, n) as x {shape(x)}")
    return t


# ---- between the schema and the backends ---------------------------------------------------------


def forward(*args: Any) -> tuple[Tensor, Tensor]:
    call = SortCall(*args)
    check_order(call.x)
    return run(call, "sort_network_forward")


def backward(*args: Any) -> list[Tensor]:
    """Gradients of those of x, t and steepness that ``needs`` marks."""
    *given, grad_sorted, grad_mass, needs = args
    wanted = [bool(needs >> k & 1) for k in range(3)]
    found = run(SortCall(*given), "sort_network_backward", grad_sorted, grad_mass, wanted)
    return [grad for grad in found if grad is not None]


def _fake_forward(x: Tensor, t: Tensor, beta: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    check_device("t", t, "x", x)
    check_device("steepness", beta, "x", x)
    return x.new_empty(x.shape), x.new_empty(x.shape[0], t.shape[1], x.shape[1])


def _fake_backward(*args: Any) -> list[Tensor]:
    return [args[k].new_empty(args[k].shape) for k in range(3) if args[-1] >> k & 1]


# ---- autograd ------------------------------------------------------------------------------------


def _gradients(ctx: Any, grads: Sequence[Tensor | None], needed: Sequence[bool]) -> list:
    x, t, steepness = ctx.saved_tensors
    shapes = (x.shape, (x.shape[0], t.shape[1], x.shape[1]))
    full = [x.new_zeros(s) if g is None else g for g, s in zip(grads, shapes, strict=True)]
    needs = mask(needed)
    run: Any = torch.ops.contrastloss.sort_network_backward
    if plain(x) and not torch.is_grad_enabled():
        run = backward
    found = iter(run(x, t, steepness, *ctx.settings, *full, needs))
    return [next(found) if needs >> k & 1 else None for k in range(3)]


class SortNetwork(torch.autograd.Function):
    """``apply(settings, x, t, steepness)``, where settings are (art_lambda, network, distribution,
    backend), x is (R, n), t is (R, T, n) or (1, T, n), and steepness is (R,)."""

    @staticmethod
    def forward(ctx: Any, settings: tuple, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        ctx.settings = settings
        return forward(*tensors, *settings)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *_gradients(ctx, grads, ctx.needs_input_grad[1:]))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError("sort_network: forward-mode derivatives are not implemented")


def _setup(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _op_backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    return (*_gradients(ctx, grads, ctx.needs_input_grad[:3]), None, None, None, None)


def _no_second(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError("sort_network: second derivatives are not implemented")


_OPERANDS = (
    "Tensor x, Tensor t, Tensor steepness, float art_lambda, str network, str distribution, "
    "str? backend"
)
_BACK = f"({_OPERANDS}, Tensor grad_sorted, Tensor grad_mass, int needs) -> Tensor[]"
define(
    "sort_network",
    *(f"({_OPERANDS}) -> (Tensor, Tensor)", forward, _fake_forward, _op_backward, _setup),
)
define("sort_network_backward", _BACK, backward, _fake_backward, _no_second)
