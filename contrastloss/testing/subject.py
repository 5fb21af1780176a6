"""A loss under test, inputs for it, its dense oracle, and how two results are compared."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import Loss, PairLoss, ScoreLoss, TwoViewLoss

TEMPERATURES = (1.0, 0.1, 0.05, 0.02, 0.01)


# ---- what is checked ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A loss, its options, and where it runs. What is not ``thorough`` takes a fifth of the time:
    fewer temperatures and draws of the data, and a graph that is traced, but not differentiated."""

    cls: type[ScoreLoss]
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | torch.device = "cpu"
    backend: str | None = None
    thorough: bool = True

    @property
    def temperatures(self) -> tuple[float, ...]:
        return TEMPERATURES if self.thorough else (0.1, 0.02)

    def loss(self, **more: Any) -> ScoreLoss:
        return self.cls(**{**self.options, "backend": self.backend, **more})

    def rows(self, **more: Any) -> ScoreLoss:
        return self.loss(reduction="none", **more)

    def inputs(
        self, n: int = 24, d: int = 19, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> list[Tensor]:
        """Arguments of ``forward``, floating ones in ``dtype``."""
        values = example(self.cls, n, d, torch.Generator().manual_seed(seed))
        return [v.to(self.device, dtype if v.is_floating_point() else v.dtype) for v in values]


def example(cls: type[Loss], n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Inputs for ``cls.forward`` in fp64: its static method ``example(n, d, generator)`` or, by the
    names of its required parameters, two views (x, y), also with a queue or with candidates
    (x, y, index), classes (z, labels), rows of d scores (x, target), or three views of (N, D).

    A positive's cosine is about that of the hardest negative, so that the loss lies between 0.1 and
    log N at every temperature: where it saturates, a test of accuracy tests nothing.
    """
    own = getattr(cls, "example", None)
    if own is not None:
        return tuple(own(n, d, generator))

    def normal(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, d, generator=generator, dtype=torch.float64), dim=1)

    cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
    names = [p.name for p in inspect.signature(cls.forward).parameters.values() if _required(p)]
    length = 0.5 + 1.5 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    if names in (["self", "x", "y"], ["self", "query", "key", "queue"]):
        x = normal(n)
        y = cosine * x + math.sqrt(1 - cosine**2) * normal(n)
        pair = length * x, length * y
        return pair if "x" in names else (*pair, 1.5 * normal(2 * n + 3))
    if names == ["self", "x", "y", "index"]:
        x, cosine = normal(n), min(0.9, math.sqrt(2 * math.log(8) / d))
        columns = torch.cat([cosine * x + math.sqrt(1 - cosine**2) * normal(n), normal(n + 3)])
        drawn = torch.randint(2 * n + 3, (n, 7), generator=generator)
        # unit vectors, so that what is equal normalised is equal
        return length * x, F.normalize(columns), torch.cat([torch.arange(n)[:, None], drawn], 1)
    if names == ["self", "z", "labels"]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        cosine = min(0.95, 1.7 * cosine)  # every positive counts, not the best one
        z = math.sqrt(cosine) * normal(max(n, 1))[labels] + math.sqrt(1 - cosine) * normal(n)
        return length * z, labels
    if names == ["self", "x", "target"]:
        order = torch.rand(n, d, generator=generator).argsort(1)
        return order / d + torch.randn(n, d, generator=generator, dtype=torch.float64), order
    if names == ["self", "views"]:
        z = normal(n)
        return (torch.stack([z + 0.7 * normal(n) for _ in range(3)]),)
    raise TypeError(
        f"{cls.__name__}: forward takes {names[1:]}, expected (x, y), (x, y, index), (z, labels), "
        "(query, key, queue), (x, target), (views) or a static method example(n, d, generator)"
    )


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def dense(
    loss: ScoreLoss, *inputs: Tensor, logit_scale: Any = None, logit_bias: Any = None
) -> tuple[Tensor, Tensor]:
    """Losses per row by ``loss.reference`` in the inputs' dtype, and which rows count."""
    like = inputs[0]

    def tensor(value: Any) -> Tensor:
        return torch.as_tensor(value, device=like.device, dtype=like.dtype)

    if loss.normalize:
        inputs = tuple(F.normalize(v, dim=-1) if v.is_floating_point() else v for v in inputs)
    scale = tensor(loss.temperature).reciprocal() if logit_scale is None else tensor(logit_scale)
    if scale.ndim:
        scale = scale.repeat(2 if isinstance(loss, TwoViewLoss) else 1)[:, None]
    bias = tensor(getattr(loss, "bias", 0.0) if logit_bias is None else logit_bias)
    common = {f.name for f in fields(PairLoss)} | {"temperature", "bias"}
    own = {f.name: getattr(loss, f.name) for f in fields(loss) if f.name not in common}
    if "normalize" in inspect.signature(loss.reference).parameters:  # type: ignore[arg-type]
        own["normalize"] = loss.normalize
    result = loss.reference(*inputs, scale=scale, bias=bias, **own)  # type: ignore[operator]
    rows, counted = result if isinstance(result, tuple) else (result, None)
    if counted is None:
        counted = torch.ones_like(rows, dtype=torch.bool)
    return loss.loss_scale * rows, counted


def dense_rows(loss: ScoreLoss) -> Callable[..., Tensor]:
    return lambda *inputs, **overrides: dense(loss, *inputs, **overrides)[0]


# ---- tools --------------------------------------------------------------------------------------


def leaves_of(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [v.detach().clone().requires_grad_(v.is_floating_point()) for v in inputs]


def run(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    others: Sequence[Tensor] = (),
    **overrides: Any,
) -> tuple[Tensor, list[Tensor]]:
    """Values, and the gradients of their mean by the floating inputs and by ``others``."""
    leaves = leaves_of(inputs)
    value = function(*leaves, **overrides)
    wanted = [v for v in leaves if v.requires_grad] + list(others)
    grads = torch.autograd.grad(value.sum() / max(value.numel(), 1), wanted)
    return value.detach(), list(grads)


def norm(value: Tensor) -> float:
    return torch.linalg.vector_norm(value.double()).item()


def assert_same(got: Any, want: Any, what: str, rtol: float = 1e-9) -> None:
    """Tensors, or sequences of them, whose difference is small against their norm."""
    if isinstance(want, Tensor):
        got, want = [got], [want]
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"{what} {k}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        error, size = norm(a.double() - b.double()), norm(b)
        assert error <= rtol * (size + 1), f"{what} {k}: error {error:.2e} of {size:.2e}"


def excess(ours: Any, plain: Any, exact: Any, eps: float) -> list[float]:
    """The errors over what the accuracy rule allows, twice the plain error. The floor keeps two
    roundings of a result from being compared where dense PyTorch happens to be almost exact."""
    found = []
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert a.isfinite().all(), "not finite"
        found.append(norm(a.double() - c) / (2 * norm(b.double() - c) + 2 * eps * norm(c) + 1e-30))
    return found


def assert_bounded(draws: Sequence[list[float]], what: str) -> None:
    """The rule holds for the median over draws of the data. Single draws may be dominated by one
    row at a kink of the loss, where either side may be lucky, but not by orders of magnitude."""
    for k, ratios in enumerate(zip(*draws, strict=True)):
        shown = f"{what} {k}: error over allowed error {[round(r, 2) for r in ratios]}"
        assert median(ratios) <= 1, shown
        assert max(ratios) <= 10, shown


def flat(result: tuple[Tensor, list[Tensor]]) -> list[Tensor]:
    return [result[0], *result[1]]


def wide(value: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
