"""What a loss is: a frozen declaration whose annotated fields are its options, a dataclass over
``nn.Module``. :mod:`contrastloss.losses.base.pair_loss` has those that all ranks can share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass
from inspect import signature
from operator import is_
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import dataclass_transform  # of typing from Python 3.11 on

from ... import ops
from ...inputs import admitted, kinds_of, parsed
from ...ops.check import scalar
from ...ops.one_pass import softplus
from ...options import Fitting, Temperature, brief, checked, declared, shape
from .checks import check_finite
from .scores import Scores

__all__ = ["LOSSES", "Loss", "RowLoss", "ScoreLoss", "nan_rows", "softplus"]

#: every public loss by the name of its function in :mod:`contrastloss.functional`
LOSSES: dict[str, type[Loss]] = {}


def nan_rows(*rows: Tensor) -> Tensor:
    """Which of the rows (..., D) hold NaN, in any of the arguments."""
    found = torch.stack([value.detach().amax(-1).isnan() for value in rows])
    return found[0] if len(rows) == 1 else found.any(0)


@dataclass_transform(kw_only_default=False)
@dataclass(eq=False, repr=False)
class Loss(nn.Module):
    """Base of all losses; the options below are common to them.

    Args:
        loss_weight: multiplies the loss. Authors' code scales some losses by 2 tau (MoCo v3) or by
            tau over a base temperature (SupCon).
        backend: the name of a backend; None chooses.

    The loss is fp32, fp64 for fp64. An option that is a tensor is state: a Parameter, or a buffer
    of the ``state_dict``.
    """

    _: KW_ONLY
    loss_weight: float = 1.0
    backend: str | None = None

    #: fp32 products of low-precision embeddings: where a gradient is a small difference of what
    #: several passes give, rounding the gradients of their scores costs more than rounding it
    WIDE_PRODUCTS: ClassVar[bool] = False
    #: shapes of the arguments of ``forward`` by name, see :mod:`contrastloss.inputs`
    inputs: ClassVar[Mapping[str, str]] = {}
    #: the arguments of ``forward``, those that are positional, and those that may be None
    arguments: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[frozenset[str]] = frozenset()
    #: options that :meth:`prepare` may depend on: those that only this class has, and of a base
    OWN: ClassVar[frozenset[str]] = frozenset()
    PREPARED: ClassVar[frozenset[str]] = frozenset()
    #: options, and arguments of ``forward``, that its formula does not allow, and why
    without: ClassVar[Mapping[str, str]] = {}
    #: options of which a tensor may hold one number per row
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    # no annotation: a dataclass would take it for an option
    #: what its repr says beside the options: "verified=False" of a preset that has a guess
    remark = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Loss:
        for name, reason in cls.without.items():
            if name in kwargs and name not in cls.__dataclass_fields__:
                raise ValueError(f"{name}: got {brief(kwargs[name])}, expected none: {reason}")
        self = super().__new__(cls)
        nn.Module.__init__(self)  # before the dataclass assigns Parameters
        return self

    def __init_subclass__(cls, name: str | None = None) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)
        for field in fields(cls):
            if field.name in cls.__dict__:  # a class attribute that no Parameter could take over
                delattr(cls, field.name)
        bases = [base for base in cls.__mro__[1:] if base.__module__.startswith(__package__)]
        shared = {f.name for base in bases if is_dataclass(base) for f in fields(base)}
        cls.OWN = frozenset(field.name for field in fields(cls)) - shared | cls.PREPARED
        parameters = list(signature(cls.forward).parameters.values())[1:]
        cls.arguments = tuple(p.name for p in parameters)
        cls.positional = tuple(
            f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name
            for p in parameters
            if p.kind is not p.KEYWORD_ONLY
        )
        for spec in cls.inputs.values():
            parsed(spec)
        cls.optional = frozenset(p.name for p in parameters if p.default is None)
        if name is not None:
            LOSSES[name] = cls

    def __post_init__(self) -> None:
        for name in declared(type(self)):
            setattr(self, name, self.fitting(name, getattr(self, name)))
        self.check()
        #: options that are tensors, as they were given
        self._given: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                self._given[field.name] = value.detach().clone()
                if not isinstance(value, nn.Parameter):
                    delattr(self, field.name)
                    self.register_buffer(field.name, value)
        #: what :func:`kinds_of` says of arguments that fitted
        self._fitting = Fitting()
        before = {*self.__dict__}
        self.prepare()
        #: the names of what :meth:`prepare` made
        self.prepared = tuple(sorted(self.__dict__.keys() - before))
        self._made = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward``, of inputs whose shapes and dtypes are those that ``inputs`` declares."""
        if not self.one_graph and torch.compiler.is_compiling():
            if torch.compiler.is_exporting():
                got = f"{type(self).__name__}({self.extra_repr()})"
                expected = "one whose number of passes does not depend on values"
                raise RuntimeError(f"torch.export: got {got}, expected {expected}")
            return _outside(self, args, kwargs)
        check = _check_finite if getattr(self, "validate", False) else None
        kinds = None if check or kwargs else kinds_of(args)
        if kinds is not None and kinds in self._fitting:
            return super().__call__(*args)
        found, named = admitted(self.inputs, self.optional, self.positional, args, kwargs, check)
        if kinds is not None and all(map(is_, found, args)):
            self._fitting.add(kinds)
        return super().__call__(*found, **named)

    def fitting(self, name: str, value: Any) -> Any:
        """The value of an option as it is kept; an error if it does not fit."""
        hint = declared(type(self))[name]
        return checked(name, value, hint, vector=name in self.VECTORS)

    def __setattr__(self, name: str, value: Any) -> None:
        """An option that is set later is checked as it was when the loss was made."""
        if not self.__dict__.get("_made") or name not in declared(type(self)):
            super().__setattr__(name, value)
            return
        before = getattr(self, name)
        super().__setattr__(name, self.fitting(name, value))
        try:
            self.check()
            self.prepare()
        except Exception:
            super().__setattr__(name, before)
            raise

    def check(self) -> None:
        """Raise where options do not fit together; each for itself is checked by its annotation."""

    def prepare(self) -> None:
        """Make what depends on the options alone, once: a compiled forward cannot."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Options that are tensors, Parameters or buffers, are again what they were when the loss
        was made: after ``to_empty()``, say.

        Raises:
            RuntimeError: it was made with a tensor on the meta device, which has no value. A
                checkpoint's is loaded nevertheless, and numbers are no tensors.
        """
        for name, value in self._given.items():
            own = getattr(self, name)
            if value.is_meta and not own.is_meta:
                raise RuntimeError(f"{name}: got a tensor on meta, expected one with a value")
            own.copy_(value)

    @property
    def constants(self) -> frozenset[str]:
        """Arguments of ``forward`` that get no gradient."""
        return frozenset()

    @property
    def one_graph(self) -> bool:
        """Whether ``torch.compile`` makes one graph of it. Else the loss is evaluated between two
        graphs, and cannot be exported: how many passes it takes depends on values."""
        return True

    @property
    def stops_gradients(self) -> bool:
        """Whether some of what the inputs do is held constant: its gradient is then no limit of
        finite differences."""
        return False

    def extra_repr(self) -> str:
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                shown.append(f"{field.name}=<{tuple(value.shape)} tensor>")
            elif value != field.default or not field.kw_only:
                shown.append(f"{field.name}={value!r}")
        return ", ".join([*shown, self.remark] if self.remark else shown)

    def scaled(self, loss: Tensor) -> Tensor:
        return loss if self.loss_weight == 1.0 else self.loss_weight * loss


def _outside(loss: Loss, args: Any, kwargs: Any) -> Any:
    """The call between two graphs. The compiler is told here, since to be told it is imported."""

    def call() -> Any:
        return loss(*args, **kwargs)

    return torch.compiler.disable(call, reason="positives are counted by their values")()


class RowLoss(Loss):
    """Losses that are sums over rows.

    Args:
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``. The mean of nothing is 0.
    """

    _: KW_ONLY
    reduction: Literal["mean", "sum", "none"] = "mean"

    def taking_part(
        self, losses: Tensor, counted: Tensor | None, nan: Tensor | None = None
    ) -> Tensor:
        """Scaled, and 0 for the rows that do not count."""
        losses = self.scaled(losses)
        losses = losses if counted is None else torch.where(counted > 0, losses, 0.0)
        return losses if nan is None else torch.where(nan, torch.nan, losses)

    def reduce(
        self, losses: Tensor, counted: Tensor | None = None, nan: Tensor | None = None
    ) -> Tensor:
        """``counted`` marks the rows that take part, or is the number of terms that a row sums;
        'mean' of none is 0 with zero gradient. ``nan`` marks rows that hold NaN: nothing else shows
        it of a row that has no pairs, or is not counted for want of them."""
        losses = self.taking_part(losses, counted, nan)
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return losses.sum()
        if counted is not None:
            return losses.sum() / counted.sum().clamp_min(1)
        return losses.mean() if losses.numel() else losses.sum()


class ScoreLoss(RowLoss):
    """Losses of pair scores, in this process.

    Args:
        temperature: divides the scores: a float, a 0-dim tensor or Parameter. Tensors are never
            synchronised.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
    """

    temperature: Temperature
    _: KW_ONLY
    normalize: bool = True
    validate: bool = False

    def scores(
        self,
        x: Tensor,
        y: Tensor | None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        *,
        copies: int = 1,
        **options: Any,
    ) -> Scores:
        """The scores of checked embeddings; x holds ``copies`` rows per temperature."""
        row_scale, dtype = None, ops.stat_dtype(x)
        if logit_scale is not None:
            scale = self._scalar("logit_scale", logit_scale, Temperature, x)
        elif isinstance(self.temperature, Tensor):
            self._check_temperature(x, copies)
            scale = self.temperature.to(dtype).reciprocal()
            if scale.ndim:
                row_scale, scale = scale.repeat(copies).view(x.shape[:-1]), 1.0
        elif torch.compiler.is_compiling():
            # torch before 2.13 makes a quotient of numbers constant
            scale = scalar("temperature", self.temperature, x).reciprocal()
        else:
            scale = 1.0 / self.temperature
        bias = None
        if logit_bias is not None:
            bias = self._scalar("logit_bias", logit_bias, float | Tensor, x)
            bias = bias if isinstance(bias, Tensor) else scalar("logit_bias", bias, x)
        return Scores(
            x,
            y,
            scale=scale,
            row_scale=row_scale,
            bias=bias,
            normalize=self.normalize,
            backend=self.backend,
            wide_products=self.WIDE_PRODUCTS,
            **options,
        )

    def _scalar(self, name: str, value: Any, hint: Any, x: Tensor) -> Any:
        """A number or a 0-dim tensor, in the dtype of statistics."""
        value = checked(name, value, hint)
        if not isinstance(value, Tensor):
            return value
        _check_scalar_device(name, value, x)
        return value.to(ops.stat_dtype(x))

    def _check_temperature(self, x: Tensor, copies: int) -> None:
        tau = self.temperature
        assert isinstance(tau, Tensor)
        rows = math.prod(x.shape[:-1]) // copies
        if tau.ndim and tau.shape != (rows,):
            raise ValueError(f"temperature: got shape {shape(tau)}, expected () or ({rows},)")
        _check_scalar_device("temperature", tau, x)


def _check_finite(name: str, value: Tensor) -> None:
    check_finite(name, value if value.ndim > 1 else value.unsqueeze(-1))


def _check_scalar_device(name: str, value: Tensor, x: Tensor) -> None:
    """On the device of x; a number may stay on the host."""
    if value.device != x.device and (value.ndim or value.device.type != "cpu"):
        raise ValueError(f"{name}: got device {value.device}, expected x's {x.device}")
