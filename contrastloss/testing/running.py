"""Properties of a loss that is compiled, exported, copied, or under autocast."""

from __future__ import annotations

import copy
import io

import torch
from torch import nn

from .. import functional
from ..losses import LOSSES, ScoreLoss
from .compare import assert_bounded, assert_same, excess, wide
from .subject import Subject, dense_rows

__all__ = [
    "check_autocast",
    "check_compile",
    "check_copies",
    "check_export",
    "check_scaling",
]


def check_compile(subject: Subject) -> None:
    """The compiled loss gives the eager result for changing sizes. It is traced as one graph where
    the loss allows it, with statistics if it has them. Thorough subjects are also compiled by the
    default backend."""
    kinds = ("eager", subject.statistics), ("inductor", False)
    for backend, stats in kinds[: 1 + subject.thorough]:
        torch.compiler.reset()
        loss = subject.loss(**({"return_stats": True} if stats else {}))
        compiled = torch.compile(loss, fullgraph=loss.one_graph, dynamic=True, backend=backend)
        for n in (9, 14):
            inputs = subject.inputs(n=n, dtype=torch.float32)
            got, want = subject.run(compiled, inputs), subject.run(loss, inputs)
            assert_same(got, want, f"N = {n}, {backend}", 1e-6 if backend == "eager" else 1e-5)


def check_export(subject: Subject) -> None:
    """The program of ``torch.export`` returns the value of the loss."""
    loss, inputs = subject.loss(), subject.inputs(n=9, dtype=torch.float32)
    if not subject.thorough or not loss.one_graph:
        return
    program = torch.export.export(loss, tuple(inputs))
    assert_same(program.module()(*inputs), loss(*inputs), "value", 1e-6)


def check_autocast(subject: Subject) -> None:
    """Under autocast only the inputs of matrix products are rounded: the error is as large as that
    of rounding the inputs, and the loss and the gradients stay in fp32."""
    inputs, kind = subject.inputs(n=77, dtype=torch.float32), torch.device(subject.device).type
    loss = subject.rows()
    exact = subject.run(dense_rows(loss), [wide(v) for v in inputs])
    for dtype in (torch.bfloat16, torch.float16):
        with_autocast = torch.autocast(kind, dtype=dtype)(loss)  # backward passes run outside
        ours = subject.run(with_autocast, inputs)
        assert all(v.dtype == torch.float32 for v in ours)
        plain = subject.run(dense_rows(loss), [wide(wide(v, dtype)) for v in inputs])
        draw = excess(ours, plain, exact, torch.finfo(dtype).eps)
        assert_bounded([draw], f"{dtype}: (rows, gradients)")


def check_scaling(subject: Subject) -> None:
    """A gradient scaler multiplies all gradients by exactly its factor."""
    kind = torch.device(subject.device).type
    inputs = subject.leaves(subject.inputs(n=77, dtype=torch.float32))
    scaler = torch.amp.GradScaler(kind, init_scale=2.0**16)
    with torch.autocast(kind, dtype=torch.float16):
        value = subject.loss()(*inputs)
    wanted = [v for v in inputs if v.requires_grad]
    grads = torch.autograd.grad(value, wanted, retain_graph=True)
    scaled = torch.autograd.grad(scaler.scale(value), wanted)
    assert_same([g / 2.0**16 for g in scaled], grads, "unscaled gradient", 1e-6)


def check_copies(subject: Subject) -> None:
    """deepcopy, pickle and state_dict preserve the loss, including a Parameter as temperature; the
    function computes the same value."""
    inputs = subject.inputs()
    own, new = {}, {}
    if issubclass(subject.cls, ScoreLoss):
        temperature = nn.Parameter(torch.tensor(0.37, device=subject.device))
        own, new = {"temperature": temperature}, {"temperature": nn.Parameter(temperature + 1)}
    loss, fresh = subject.loss(**own), subject.loss(**new)
    want = loss(*inputs)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    fresh.load_state_dict(loss.state_dict())
    # bytes that it has just written itself
    read = torch.load(file, weights_only=False)  # nosec B614
    for other in (copy.deepcopy(loss), read, fresh):
        assert torch.equal(other(*inputs), want), "a copy computes another loss"
        assert all(p is not q for p, q in zip(other.parameters(), loss.parameters(), strict=True))
        assert [name for name, _ in other.named_parameters()] == [
            name for name, _ in loss.named_parameters()
        ]
    for name, cls in LOSSES.items():
        if cls is subject.cls:
            options = {**subject.options, "backend": subject.backend}
            value = getattr(functional, name)(*inputs, **options)
            assert torch.equal(value, subject.loss()(*inputs)), "its function computes another loss"
