"""A call: what a user asks of an operator, and what a backend gets.

:class:`PairCall` is the one shape of a call of ``pair_stats``, ``pair_topk`` and ``gather_scores``.
The operators of torch.library and of the compiled backends take its fields as flat arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..channel import COL, INDEX, ROW, Axis
from ..program import Program
from .encode import encode

__all__ = [
    "NAMES",
    "NATIVE",
    "SCHEMA",
    "Gradients",
    "Operands",
    "PairCall",
    "mask",
    "named_in",
    "stat_dtype",
    "widest",
]


class Operands(NamedTuple):
    """The tensors of a call, or their gradients; None where there is none.

    x is (..., M, D), y (..., N, D) or None for x itself, and scale 0-dim. ``row_scale``,
    ``row_bias`` and ``rows`` have one value per row, ``col_scale``, ``col_bias`` and ``cols`` one
    per column. ``rows`` and ``cols`` are the vectors that channels use by name, in the order of the
    program's ``rows`` and ``cols``; those of a form are (..., M, E) and (..., N, E).
    """

    x: Any = None
    y: Any = None
    scale: Any = None
    row_scale: Any = None
    col_scale: Any = None
    row_bias: Any = None
    col_bias: Any = None
    rows: tuple[Any, ...] = ()
    cols: tuple[Any, ...] = ()

    def flat(self) -> tuple[Any, ...]:
        return (*self[:7], *self.rows, *self.cols)

    @classmethod
    def of(cls, flat: Sequence[Any], rows: int) -> Operands:
        """The operands that :meth:`flat` returned; ``rows`` of them belong to rows."""
        return cls._make((*flat[:7], tuple(flat[7 : 7 + rows]), tuple(flat[7 + rows :])))

    def named(self, axis: Axis) -> tuple[Any, ...]:
        return self.rows if axis == ROW else self.cols

    def map(self, function: Callable[..., Any], *others: Operands) -> Operands:
        """``function`` of every tensor and of the ones in its place in ``others``."""
        every = zip(self.flat(), *[other.flat() for other in others], strict=True)
        found = [None if values[0] is None else function(*values) for values in every]
        return self.of(found, len(self.rows))


#: What a backward pass returns. The gradients of x and y have the dtype of x, all others the
#: statistics' dtype. For ``y=None`` dy is added to dx. Of ``rows`` and ``cols``, only the shifts of
#: SUM channels have a gradient.
Gradients = Operands

#: the operands that are not called by name, in the order of the operators' ``needs`` mask
NAMES = Operands._fields[:7]

_TENSORS = ", ".join(
    ["Tensor x", *[f"Tensor? {name}" for name in NAMES[1:]], "Tensor[] rows", "Tensor[] cols"]
)
#: the schema of :meth:`PairCall.arguments`, for the operators of torch.library
SCHEMA = f"{_TENSORS}, str program, bool cosine, ScalarType compute_dtype, str? backend"
#: the schema of :meth:`PairCall.native`, for the operators of the compiled backends
NATIVE = f"{_TENSORS}, Tensor code, Tensor values, bool cosine"


_NONE = Operands()


class PairCall(NamedTuple):
    """``s_ij = scale a_i b_j <x_i, y_j> + beta_i + gamma_j``, and the channels to compute from it.

    a is ``row_scale``, b ``col_scale``, beta ``row_bias`` and gamma ``col_bias``. ``y=None`` drops
    self pairs by position. With ``cosine``, x and y stand for their unit vectors, and gradients are
    those of x and y themselves.

    A user's operands have any leading dimensions, and vectors broadcast. A backend gets
    :meth:`lifted` operands: either each of them has one leading batch dimension or none has, and
    vectors are expanded to (B, M) or (B, N), or to (M,) or (N,).
    """

    operands: Operands
    program: Program
    cosine: bool
    #: x and y are rounded to this dtype for the products; statistics and gradients are not rounded
    compute_dtype: torch.dtype
    #: the name of a backend; None chooses one
    backend: str | None = None

    @property
    def x(self) -> Tensor:
        return self.operands.x

    @property
    def y(self) -> Tensor | None:
        return self.operands.y

    @property
    def columns(self) -> Tensor:
        x, y = self.operands[:2]
        return x if y is None else y

    @property
    def lead(self) -> torch.Size:
        """The leading dimensions of the user's operands."""
        return self.operands.x.shape[:-2]

    def length(self, axis: Axis) -> int:
        return (self.x if axis == ROW else self.columns).shape[-2]

    @property
    def stat_dtype(self) -> torch.dtype:
        return stat_dtype(self.x)

    # ---- arguments of operators -----------------------------------------------------------------

    def bare(self) -> PairCall:
        """The call without its operands."""
        return PairCall(_NONE, *self[1:])

    def given(self, tensors: Sequence[Any]) -> PairCall:
        """The call with these operands, in the order of :meth:`Operands.flat`."""
        return PairCall(Operands.of(tensors, len(self.program.rows)), *self[1:])

    def replace(self, **operands: Any) -> PairCall:
        """The call with other operands of these names."""
        return PairCall(self.operands._replace(**operands), *self[1:])

    def arguments(self) -> tuple[Any, ...]:
        """The call as arguments of an operator of torch.library: :data:`SCHEMA`."""
        *tensors, rows, cols = self.operands
        return (*tensors, list(rows), list(cols), self.program.text, *self[2:])

    @staticmethod
    def of(arguments: Sequence[Any]) -> PairCall:
        """The call of which :meth:`arguments` were made."""
        *tensors, rows, cols, program, cosine, dtype, backend = arguments
        operands = Operands._make((*tensors, tuple(rows), tuple(cols)))
        return PairCall(operands, Program.decode(program), cosine, dtype, backend)

    def native(self) -> tuple[Any, ...]:
        """A lifted call as arguments of a compiled backend: :data:`NATIVE`. Tensors are contiguous,
        ids are int64, and named floats have the statistics' dtype. A tensor that rows and columns
        share stays one tensor, because backends recognise it by its address."""
        *tensors, rows, cols = self.operands
        code = encode(self.program.text)
        made: dict[tuple, Tensor] = {}

        def operand(value: Tensor, ids: bool) -> Tensor:
            dtype = torch.int64 if ids else self.stat_dtype
            if value.dtype == dtype and value.is_contiguous():
                return value
            key = value.data_ptr(), value.shape, value.stride(), dtype
            if key not in made:
                made[key] = value.to(dtype).contiguous()
            return made[key]

        return (
            *[None if value is None else value.contiguous() for value in tensors],
            [operand(rows[k], ids) for k, ids in code.operands[ROW]],
            [operand(cols[k], ids) for k, ids in code.operands[COL]],
            *code.tensors,
            self.cosine,
        )

    def gradients(self, found: Iterable[Tensor | None], needs: frozenset[str]) -> Gradients:
        """The gradients of the operands named in ``needs`` and of all shifts, which ``found`` lists
        in the order of :meth:`Operands.flat`."""
        rest = iter(found)
        asked = needs - {"y"} if self.y is None else needs
        tensors = [next(rest) if name in asked else None for name in NAMES]
        return Gradients._make((*tensors, *self.at_shifts(lambda axis, name: next(rest))))

    def at_shifts(self, gradient: Callable[[Axis, str], Any]) -> tuple[tuple, tuple]:
        """The gradients of ``rows`` and of ``cols``: ``gradient(axis, name)`` for shifts, None for
        all other vectors."""
        shifts = self.program.shifts
        rows = [gradient(ROW, n) if n in shifts[ROW] else None for n in self.program.rows]
        cols = [gradient(COL, n) if n in shifts[COL] else None for n in self.program.cols]
        return tuple(rows), tuple(cols)

    # ---- a user's operands and a backend's -------------------------------------------------------

    def lifted(self) -> PairCall:
        """The call as a backend gets it."""
        return PairCall(self.lift(self.operands), *self[1:])

    def lift(self, operands: Operands) -> Operands:
        """The call's operands, or gradients of their shapes, in the layout of backends. All that
        get a gradient have the statistics' dtype, except x and y."""
        own, other = self.operands[:2]
        stat, m = stat_dtype(own), own.shape[-2]
        n = m if other is None else other.shape[-2]
        x, y, scale, a, b, beta, gamma, rows, cols = operands
        return Operands(
            None if x is None else self.flatten(x),
            None if y is None else self.flatten(y),
            None if scale is None else scale.to(stat),
            None if a is None else self.expand(a.to(stat), m),
            None if b is None else self.expand(b.to(stat), n),
            None if beta is None else self.expand(beta.to(stat), m),
            None if gamma is None else self.expand(gamma.to(stat), n),
            self._lift_named(ROW, rows, m) if rows else (),
            self._lift_named(COL, cols, n) if cols else (),
        )

    def _lift_named(self, axis: Axis, values: Sequence[Any], length: int) -> tuple[Any, ...]:
        forms, shifts, found = self.program.forms, self.program.shifts[axis], []
        for name, value in zip(self.names(axis), values, strict=True):
            if value is not None:
                value = value.to(self.stat_dtype) if name in shifts else value
                extent = value.shape[-1:] if name in forms else ()
                value = self.expand(value, length, *extent)
            found.append(value)
        return tuple(found)

    def flatten(self, value: Tensor) -> Tensor:
        """(..., M, D) as (B, M, D); (M, D) is unchanged."""
        return value.flatten(0, -3) if value.ndim > 3 else value

    def expand(self, value: Tensor, *shape: int) -> Tensor:
        """A tensor that broadcasts to ``(..., *shape)`` as ``(B, *shape)``."""
        lead = self.lead
        if not lead:
            return value if value.shape == shape else value.expand(shape)
        return value.expand(*lead, *shape).reshape(math.prod(lead), *shape)

    def lower(self, gradient: Tensor, like: Tensor) -> Tensor:
        """A backend's gradient in the shape and dtype of its operand, contiguous as the fake
        kernels declare."""
        lead = self.lead
        if gradient.ndim and lead:
            gradient = gradient.reshape(*lead, *gradient.shape[1:])
        if gradient.shape != like.shape:
            gradient = gradient.sum_to_size(like.shape)
        return gradient.to(like.dtype).contiguous()

    # ---- for backends ----------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        return self.x.shape[0] if self.x.ndim == 3 else 1

    def batched(self) -> PairCall:
        """The same call with a batch dimension, for a backend that needs one. :meth:`add_batch`
        and :meth:`drop_batch` convert the tensors that belong to it."""
        return PairCall(self.operands.map(self.add_batch), *self[1:])

    def _as_it_is(self, value: Tensor | None) -> bool:
        return value is None or not value.ndim or self.x.ndim == 3

    def add_batch(self, value: Any) -> Any:
        return value if self._as_it_is(value) else value.unsqueeze(0)

    def drop_batch(self, value: Any) -> Any:
        return value if self._as_it_is(value) else value.squeeze(0)

    def names(self, axis: Axis) -> tuple[str, ...]:
        """The names of the vectors of an axis, in their order."""
        return self.program.rows if axis == ROW else self.program.cols

    def operand(self, axis: Axis, name: str) -> Tensor | None:
        """The vector called ``name``; None means the position itself, for INDEX without an
        operand."""
        names = self.names(axis)
        if name in names:
            return self.operands.named(axis)[names.index(name)]
        if name == INDEX:
            return None
        raise KeyError(name)

    def named(self, axis: Axis, name: str) -> Tensor:
        """The operand called ``name``, which must be given."""
        found = self.operand(axis, name)
        assert found is not None, name
        return found

    @property
    def features(self) -> frozenset[str]:
        """The features of the program and of the operands."""
        extra = set()
        if self.batch != 1:
            extra.add("batch")
        if self.y is None:
            extra.add("symmetric")
        if self.cosine:
            extra.add("cosine")
        return self.program.features | extra


def stat_dtype(x: Tensor) -> torch.dtype:
    """The dtype of scores and statistics of x: fp64 for fp64, fp32 for all other dtypes."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


#: devices without fp64, where creating such a tensor is an error
WITHOUT_FP64 = frozenset({"mps"})


def widest(x: Tensor) -> torch.dtype:
    """The dtype of long sums: fp64 if the device of x has it. Otherwise fp32, added block by block
    or as torch does; over a hundred blocks this is accurate to about 2e-6 of the sum."""
    return stat_dtype(x) if x.device.type in WITHOUT_FP64 else torch.float64


def mask(flags: Iterable[bool]) -> int:
    """Flags as the bits of a number; the first flag is the lowest bit."""
    return sum([1 << bit for bit, flag in enumerate(flags) if flag])


@lru_cache(maxsize=128)
def named_in(needs: int) -> frozenset[str]:
    """The names of a ``needs`` mask."""
    return frozenset(name for bit, name in enumerate(NAMES) if needs >> bit & 1)


# ---- autocast ------------------------------------------------------------------------------------


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products on a device under autocast; None without it."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    if autocast_dtype(device) is None:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
