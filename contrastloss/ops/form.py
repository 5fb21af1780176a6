"""The layer between the schema of ``pair_stats`` and the backends.

It expands operands to the one layout that backends take, and reduces results to the shapes and
dtypes of the operands: for forward, backward and double backward. The first two have fake versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..backends import Gradients, PairCall, choose, reference, stat_dtype
from ..channel import COL, ROW, Axis, Program
from .check import check_device

__all__ = [
    "INPUTS",
    "OPERANDS",
    "Form",
    "backward",
    "double_backward",
    "fake_backward",
    "fake_forward",
    "forward",
    "named_in",
    "no_transforms",
    "plain",
    "product_dtype",
    "without_autocast",
]

OPERANDS = (
    "Tensor x, Tensor? y, Tensor? scale, Tensor? row_scale, Tensor? col_scale, "
    "Tensor? row_bias, Tensor? col_bias, Tensor[] rows, Tensor[] cols, str program, "
    "bool cosine, ScalarType compute_dtype, str? backend"
)
INPUTS = len(OPERANDS.split(","))


class Form:
    """The arguments of an operator call; :meth:`call` converts them to the backends' layout."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        scale: Tensor | None,
        row_scale: Tensor | None,
        col_scale: Tensor | None,
        row_bias: Tensor | None,
        col_bias: Tensor | None,
        rows: Sequence[Tensor],
        cols: Sequence[Tensor],
        program: str,
        cosine: bool,
        compute_dtype: torch.dtype,
        backend: str | None,
    ) -> None:
        self.x, self.y, self.scale = x, y, scale
        self.row_scale, self.col_scale = row_scale, col_scale
        self.row_bias, self.col_bias = row_bias, col_bias
        self.rows, self.cols, self.program = rows, cols, program
        self.cosine, self.compute_dtype, self.backend = cosine, compute_dtype, backend
        self.lead = x.shape[:-2]

    def check_devices(self, **others: Tensor | None) -> None:
        """All operands are on x's device. A real call checks this in its dispatch; a fake one
        only allocates its results, and has to check it here."""
        operands = {name: getattr(self, name) for name in Gradients.NAMES if name != "scale"}
        operands |= {f"rows[{k}]": v for k, v in enumerate(self.rows)}
        operands |= {f"cols[{k}]": v for k, v in enumerate(self.cols)}
        for name, value in {**operands, **others}.items():
            if value is not None:
                check_device(name, value, "x", self.x)

    def length(self, axis: Axis) -> int:
        return (self.x if axis == ROW or self.y is None else self.y).shape[-2]

    def call(self) -> PairCall:
        program = Program.decode(self.program)
        stat = stat_dtype(self.x)

        def statistic(value: Tensor | None) -> Tensor | None:
            return value if value is None or value.dtype == stat else value.to(stat)

        def vector(value: Tensor | None, axis: Axis) -> Tensor | None:
            value = statistic(value)
            return None if value is None else self.lift(value, self.length(axis))

        def operand(value: Tensor, axis: Axis, name: str) -> Tensor:
            if name in program.forms:
                return self.lift(value, self.length(axis), value.shape[-1])
            if name in program.shifts(axis):  # subtracted from scores: its gradient has their dtype
                value = value.to(stat)
            return self.lift(value, self.length(axis))

        return PairCall(
            self.flat(self.x),
            None if self.y is None else self.flat(self.y),
            statistic(self.scale),
            vector(self.row_scale, ROW),
            vector(self.col_scale, COL),
            vector(self.row_bias, ROW),
            vector(self.col_bias, COL),
            tuple(operand(v, ROW, n) for v, n in zip(self.rows, program.rows, strict=True)),
            tuple(operand(v, COL, n) for v, n in zip(self.cols, program.cols, strict=True)),
            program,
            self.cosine,
            self.compute_dtype,
        )

    def flat(self, value: Tensor) -> Tensor:
        """(..., M, D) as (B, M, D); (M, D) is unchanged."""
        return value.flatten(0, -3) if self.lead else value

    def lift(self, value: Tensor, *shape: int) -> Tensor:
        if not self.lead:
            return value if value.shape == shape else value.expand(shape)
        return value.expand(*self.lead, *shape).reshape(self.lead.numel(), *shape)

    def lower(self, value: Tensor, like: Tensor) -> Tensor:
        """A backend's gradient in the shape and dtype of its operand, contiguous as the fake
        kernels declare."""
        if value.ndim and self.lead:
            value = value.reshape(*self.lead, *value.shape[1:])
        if value.shape != like.shape:
            value = value.sum_to_size(like.shape)
        return value.to(like.dtype).contiguous()


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which a matmul of x would run, autocast included."""
    if x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def plain(x: Tensor) -> bool:
    """Whether nothing but autograd intercepts this call. If so, the Function is called directly,
    which saves the 100 us of torch.library's Python layers: as much as a small loss takes."""
    return not (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or torch._C._len_torch_dispatch_stack()
    )


def no_transforms(operator: str) -> None:
    """Refuse torch.func: vmap has no batching rule here, and forward mode would silently drop the
    tangent."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack():
        raise RuntimeError(
            f"{operator}: torch.func transforms (vmap, grad, jvp, ...) are not supported; "
            "use leading batch dimensions for vmap, torch.autograd for derivatives"
        )


@lru_cache(maxsize=128)
def named_in(needs: int) -> frozenset[str]:
    return frozenset(name for bit, name in enumerate(Gradients.NAMES) if needs >> bit & 1)


def forward(*inputs: Any) -> list[Tensor]:
    form = Form(*inputs)
    call = form.call()
    run = choose(call, "pair_stats_forward", form.backend)
    outputs = without_autocast(form.x.device.type, run, call)
    return [o.reshape(*form.lead, o.shape[-1]) for o in outputs] if form.lead else outputs


def _split_grads(
    form: Form, outputs: Sequence[Tensor], grads: Sequence[Tensor], live: int
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs and gradients in the backends' layout; None for an output without gradient."""
    rest = iter(grads)
    flat_out = [form.lift(o, o.shape[-1]) for o in outputs]
    flat_grad = [
        form.lift(next(rest), o.shape[-1]) if live >> k & 1 else None for k, o in enumerate(outputs)
    ]
    return flat_out, flat_grad


def backward(*args: Any) -> list[Tensor]:
    """Gradients of the tensors marked in ``needs``, in order, then of the row and column shifts."""
    form, (outputs, grads, live, needs) = Form(*args[:INPUTS]), args[INPUTS:]
    call, names = form.call(), named_in(needs)
    flat_out, flat_grad = _split_grads(form, outputs, grads, live)
    run = choose(call, "pair_stats_backward", form.backend)
    found = without_autocast(form.x.device.type, run, call, flat_out, flat_grad, names)
    result = [
        form.lower(getattr(found, name), getattr(form, name))
        for name in Gradients.NAMES
        if name in names
    ]
    for axis, values in ((ROW, form.rows), (COL, form.cols)):
        order = call.program.rows if axis == ROW else call.program.cols
        for name, grad in zip(call.program.shifts(axis), found.shifts(axis), strict=True):
            result.append(form.lower(grad, values[order.index(name)]))
    return result


def fake_forward(*inputs: Any) -> list[Tensor]:
    form = Form(*inputs)
    form.check_devices()
    stat = stat_dtype(form.x)
    outputs = []
    for channel in Program.decode(form.program).channels:
        shape = (*form.lead, form.length(channel.axis))
        for name in channel.returns:
            dtype = torch.int64 if name == "index" else stat
            outputs.append(form.x.new_empty(shape, dtype=dtype))
    return outputs


def fake_backward(*args: Any) -> list[Tensor]:
    form, needs = Form(*args[:INPUTS]), named_in(args[-1])
    program = Program.decode(form.program)
    likes = [getattr(form, name) for name in Gradients.NAMES if name in needs]
    likes += [form.rows[program.rows.index(n)] for n in program.shifts(ROW)]
    likes += [form.cols[program.cols.index(n)] for n in program.shifts(COL)]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in likes]


def double_backward(
    form: Form,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor],
    live: int,
    needs: int,
    upstream: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    call, names = form.call(), named_in(needs)
    flat_out, flat_grad = _split_grads(form, outputs, grads, live)
    stat, given, cotangent = call.stat_dtype, iter(upstream), Gradients()

    def lift(value: Tensor | None, axis: Axis) -> Any:
        return None if value is None else form.lift(value.to(stat), form.length(axis))

    for name in Gradients.NAMES:
        if name not in names:
            continue
        value = next(given)
        if value is not None and name in ("x", "y"):
            value = form.flat(value.to(stat))
        elif value is not None and name != "scale":
            value = lift(value, ROW if name.startswith("row") else COL)
        setattr(cotangent, name, value)
    cotangent.row_shifts = tuple(lift(next(given), ROW) for _ in call.program.shifts(ROW))
    cotangent.col_shifts = tuple(lift(next(given), COL) for _ in call.program.shifts(COL))

    found, d_out, d_grad = reference.pair_stats_double_backward(
        call, flat_out, flat_grad, names, cotangent
    )

    def lower(value: Tensor | None, like: Tensor | None) -> Tensor | None:
        return None if value is None or like is None else form.lower(value, like)

    tensors = [lower(getattr(found, name), getattr(form, name)) for name in Gradients.NAMES]
    operands: list[Tensor | None] = []
    for axis, order, values in (
        (ROW, call.program.rows, form.rows),
        (COL, call.program.cols, form.cols),
    ):
        shifts = dict(zip(call.program.shifts(axis), found.shifts(axis), strict=True))
        operands += [lower(shifts.get(n), v) for n, v in zip(order, values, strict=True)]
    d_outputs = [lower(d, o) for d, o in zip(d_out, outputs, strict=True)]
    kept = [d for k, d in enumerate(d_grad) if live >> k & 1]
    d_grads = [lower(d, g) for d, g in zip(kept, grads, strict=True)]
    return (*tensors, *operands, *d_outputs, *d_grads)


def without_autocast(device: str, run: Any, *args: Any) -> Any:
    """Run with autocast off: backends choose their dtypes themselves."""
    if not torch.is_autocast_enabled(device):
        return run(*args)
    with torch.autocast(device, enabled=False):
        return run(*args)
