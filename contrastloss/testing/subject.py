"""A loss under test: its options, inputs for it, and its dense oracle."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses import Loss, PairLoss, RowLoss, ScoreLoss, TwoViewLoss

__all__ = ["TEMPERATURES", "Subject", "dense", "example"]

TEMPERATURES = (1.0, 0.1, 0.05, 0.02, 0.01)

#: (n, d, generator) to arguments of ``forward`` in fp64, for n instances and d features
Maker = Callable[[int, int, torch.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Subject:
    """A loss with its options, a device and a backend. ``make`` replaces :func:`example`. Without
    ``thorough`` the checks take a fifth of the time: one temperature, two draws of the data, and a
    graph that is traced but not compiled."""

    cls: type[Loss]
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | torch.device = "cpu"
    backend: str | None = None
    thorough: bool = True
    make: Maker | None = None

    def on(self, device: str | torch.device, backend: str | None = None) -> Subject:
        return replace(self, device=device, backend=backend)

    @property
    def temperatures(self) -> tuple[float | None, ...]:
        """The temperatures to test; None means the loss's own."""
        if not issubclass(self.cls, ScoreLoss) or "temperature" in self.options:
            return (None,)
        return TEMPERATURES if self.thorough else (0.05,)

    @property
    def statistics(self) -> bool:
        """Whether the loss has ``return_stats``."""
        return issubclass(self.cls, PairLoss) and "return_stats" not in self.cls.without

    def loss(self, **more: Any) -> Loss:
        return self.cls(**{**self.options, "backend": self.backend, **more})

    def rows(self, temperature: float | None = None, **more: Any) -> Loss:
        """The loss with ``reduction='none'``, if it has rows."""
        if issubclass(self.cls, RowLoss):
            more["reduction"] = "none"
        if temperature is not None:
            more["temperature"] = temperature
        return self.loss(**more)

    def inputs(
        self, n: int = 24, d: int = 19, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> list[Tensor]:
        """Arguments of ``forward``, the floating ones in ``dtype``."""
        generator = torch.Generator().manual_seed(seed)
        make = self.make or (lambda *sizes: example(self.cls, *sizes))
        values = make(n, d, generator)
        return [v.to(self.device, dtype if v.is_floating_point() else v.dtype) for v in values]

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of instances and features with which accuracy is measured."""
        return (129, 64) if issubclass(self.cls, ScoreLoss) else (30, 19)

    @property
    def loose(self) -> float:
        """How many roundings of the result are allowed on top of twice the error of the dense fp32
        formula. Rank masses of sorting networks need more: they are summed one after another, while
        the dense formula sums them in pairs."""
        return 1.0 if issubclass(self.cls, ScoreLoss) else 4.0

    def leaves(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the inputs; those that the loss differentiates require a gradient."""
        constant = self.loss().constants
        names = [name for name in inspect.signature(self.cls.forward).parameters if name != "self"]
        names += names[-1:] * (len(inputs) - len(names))  # for *args: the last name again
        return [
            v.detach().clone().requires_grad_(v.is_floating_point() and name not in constant)
            for v, name in zip(inputs, names, strict=False)
        ]

    def run(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        others: Sequence[Tensor] = (),
        **overrides: Any,
    ) -> list[Tensor]:
        """The value, the gradients of its mean by the inputs that require one and by ``others``,
        and the statistics if the function returns any."""
        leaves = self.leaves(inputs)
        value = function(*leaves, **overrides)
        value, statistics = value if isinstance(value, tuple) else (value, {})
        wanted = [v for v in leaves if v.requires_grad] + list(others)
        grads = torch.autograd.grad(value.sum() / max(value.numel(), 1), wanted)
        return [value.detach(), *grads, *statistics.values()]


def example(cls: type[Loss], n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Inputs for ``cls.forward`` in fp64, from its static method ``example(n, d, generator)`` or,
    by the names of its required parameters: two views (x, y), also if y is optional,
    with a queue or with candidates (x, y, index), classes (z, labels), rows of d scores
    (x, target), or three views (N, D).

    The cosine of a positive is close to that of the hardest negative, so that the loss is between
    0.1 and log N at every temperature. A loss that saturates would make accuracy tests meaningless.
    """
    own = getattr(cls, "example", None)
    if own is not None:
        return tuple(own(n, d, generator))

    def normal(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, d, generator=generator, dtype=torch.float64), dim=1)

    cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
    names = [p.name for p in inspect.signature(cls.forward).parameters.values() if _required(p)]
    length = 0.5 + 1.5 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    if names in (["self", "x"], ["self", "x", "y"], ["self", "query", "key", "queue"]):
        x = normal(n)
        y = cosine * x + math.sqrt(1 - cosine**2) * normal(n)
        pair = length * x, length * y
        return pair if "x" in names else (*pair, 1.5 * normal(2 * n + 3))
    if names == ["self", "x", "y", "index"]:
        x, cosine = normal(n), min(0.9, math.sqrt(2 * math.log(8) / d))
        columns = torch.cat([cosine * x + math.sqrt(1 - cosine**2) * normal(n), normal(n + 3)])
        drawn = torch.randint(2 * n + 3, (n, 7), generator=generator)
        # unit vectors, so that columns that are equal after normalisation are equal
        return length * x, F.normalize(columns), torch.cat([torch.arange(n)[:, None], drawn], 1)
    if names == ["self", "z", "labels"]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        cosine = min(0.95, 1.7 * cosine)  # larger, since every positive counts, not only the best
        z = math.sqrt(cosine) * normal(max(n, 1))[labels] + math.sqrt(1 - cosine) * normal(n)
        return length * z, labels
    if names == ["self", "x", "target"]:
        order = torch.rand(n, d, generator=generator).argsort(1)
        return order / d + torch.randn(n, d, generator=generator, dtype=torch.float64), order
    if names == ["self", "views"]:
        z = normal(n)
        return (torch.stack([z + 0.7 * normal(n) for _ in range(3)]),)
    raise TypeError(
        f"{cls.__name__}: forward takes {names[1:]}, expected (x), (x, y), (x, y, index), "
        "(z, labels), (query, key, queue), (x, target), (views) or a static method "
        "example(n, d, generator)"
    )


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def dense(loss: Loss, *inputs: Tensor, **overrides: Any) -> tuple[Tensor, Tensor]:
    """The losses per row, or the loss, from ``loss.reference`` in the inputs' dtype; and which rows
    count, or how many terms each row sums. A reference without a parameter ``normalize`` gets unit
    vectors. ``overrides`` are those of ``forward``."""
    common = {f.name for f in fields(PairLoss if isinstance(loss, ScoreLoss) else RowLoss)}
    common |= {"ignore_index", "gather_negatives"}  # of no row of an example; over ranks
    own = {f.name: getattr(loss, f.name) for f in fields(loss) if f.name not in common}
    if isinstance(loss, ScoreLoss):
        own.pop("bias", None)
        own.update(_scale_and_bias(loss, inputs[0], **overrides))
        if "normalize" in inspect.signature(loss.reference).parameters:  # type: ignore[arg-type]
            own["normalize"] = loss.normalize
        elif loss.normalize:
            inputs = tuple(F.normalize(v, dim=-1) if v.is_floating_point() else v for v in inputs)
    result = loss.reference(*inputs, **own)  # type: ignore[operator]
    rows, counted = result if isinstance(result, tuple) else (result, None)
    if counted is None:
        counted = torch.ones_like(rows, dtype=torch.bool)
    return loss.loss_weight * rows, counted


def _scale_and_bias(
    loss: ScoreLoss, like: Tensor, logit_scale: Any = None, logit_bias: Any = None
) -> dict[str, Tensor]:
    def tensor(value: Any) -> Tensor:
        return torch.as_tensor(value, device=like.device, dtype=like.dtype)

    scale = tensor(loss.temperature).reciprocal() if logit_scale is None else tensor(logit_scale)
    if scale.ndim:
        scale = scale.repeat(2 if isinstance(loss, TwoViewLoss) else 1)[:, None]
    bias = tensor(getattr(loss, "bias", 0.0) if logit_bias is None else logit_bias)
    return {"scale": scale, "bias": bias}


def dense_rows(loss: Loss) -> Callable[..., Tensor]:
    return lambda *inputs, **overrides: dense(loss, *inputs, **overrides)[0]
