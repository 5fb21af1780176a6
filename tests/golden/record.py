"""Records the outputs of all cases, and compares two records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from instructions import using
from ranks import Ranks, mine
from torch import Tensor

from contrastloss.backends import cpu
from contrastloss.backends.machine import processor

from .cases import Case, cases

DTYPES = (torch.float32, torch.bfloat16)
#: rows of each rank, for a batch that is sharded
SIZES = (13, 8)

#: of one call: a hash of all bits, and the norms of its value and its first gradient
Output = list[Any]
#: by loss and case: one output per dtype and, if the loss has a group, per dtype for two ranks
Record = dict[str, dict[str, list[Output]]]


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)


def output(loss: torch.nn.Module, inputs: list[Any], more: dict[str, Any]) -> Output:
    """The output of a training step, from its values and gradients."""
    torch.manual_seed(0)
    values = list(tensors(loss(*inputs, **more)))
    leaves = {id(v): v for v in [*tensors([inputs, more]), *loss.parameters()] if v.requires_grad}
    wanted = list(leaves.values())
    total = sum(v.sum() for v in values if v.requires_grad)
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    results = [v if v is None else v.detach() for v in [*values, *grads]]
    numbers = [
        float(f"{torch.linalg.vector_norm(v.double()).item():.5g}")
        for v in results
        if v is not None
    ]
    return [digest(results), numbers[0], numbers[len(values)]]


def digest(values: Iterable[Tensor | None]) -> str:
    """A hash of all bits, dtypes and shapes."""
    bits = hashlib.sha256()
    for value in values:
        if value is None:
            bits.update(b"none")
            continue
        bits.update(f"{value.dtype}{tuple(value.shape)}".encode())
        flat = value.contiguous().view(-1)
        bits.update(flat.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return bits.hexdigest()[:8]


def alone(case: Case, dtype: torch.dtype, backend: str) -> Output:
    inputs, more = case.inputs(dtype)
    return output(case.cls(**case.options, backend=backend), inputs, more)


def spread(
    group: Any, name: str, what: str, dtype: torch.dtype, backend: str, isa: str | None
) -> Output:
    """The output on this rank's part of the batch: tensors with a row per instance are cut."""
    case = next(c for c in cases(name) if c.what == what)
    n = sum(SIZES)
    inputs, more = case.inputs(dtype, n)

    def own(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(own(v) for v in value)
        if not isinstance(value, Tensor) or not value.ndim or len(value) != n:
            return value
        part = mine(group, SIZES, value.detach())
        return part.clone().requires_grad_(value.requires_grad)

    try:
        loss = case.cls(**case.options, backend=backend, group=group)
    except ValueError:  # these options do not allow a group
        return ["refused", 0.0, 0.0]
    with using(isa):
        return output(loss, [own(v) for v in inputs], {k: own(v) for k, v in more.items()})


def record(path: str, names: Iterable[str], ranks: Ranks | None) -> Record:
    """The outputs of all cases on one path: ``reference`` or an instruction set."""
    torch.set_num_threads(1)
    backend, isa = ("cpu", path) if path in cpu.instruction_sets() else (path, None)
    found: Record = {}
    for name in names:
        found[name] = {}
        for case in cases(name):
            with using(isa):
                outputs = [alone(case, dtype, backend) for dtype in DTYPES]
            if ranks and case.spreads:
                for dtype in DTYPES:
                    call = name, case.what, dtype, backend, isa
                    first, second = ranks.run(spread, len(SIZES), *call)
                    outputs.append([first[0] + second[0], *first[1:]])
            found[name][case.what] = outputs
    return found


def machine() -> dict[str, str]:
    """What the bits of torch's own products depend on: its version, what it takes the CPU to be
    capable of, and the CPU, since its library of products has code for each maker's."""
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
    }


def differences(got: Record, want: Record, rtol: float | None) -> Iterator[str]:
    """A line for every case that is new, missing or different: compared by numbers if ``rtol`` is
    given, else by bits."""
    for name in sorted({*got, *want}):
        ours, theirs = got.get(name, {}), want.get(name, {})
        for what in sorted({*ours, *theirs}):
            if what not in ours or what not in theirs:
                yield f"{name}, {what}: {'gone' if what in theirs else 'not in the record'}"
            elif ours[what] != theirs[what]:
                error = distance(ours[what], theirs[what])
                if rtol is None or not error <= rtol:
                    yield f"{name}, {what}: numbers differ by {error:.1e} of their size"


def distance(a: list[Output], b: list[Output]) -> float:
    """The largest relative difference between the numbers of two outputs."""
    if len(a) != len(b):
        return math.inf
    pairs = [
        pair for one, two in zip(a, b, strict=True) for pair in zip(one[1:], two[1:], strict=True)
    ]
    errors = [abs(x - y) / max(abs(y), 1e-6) for x, y in pairs if repr(x) != repr(y)]
    return max((math.inf if e != e else e for e in errors), default=0.0)
