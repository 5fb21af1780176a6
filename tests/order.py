"""The properties that every loss of an order has, one function each; see ``contrastloss.testing``
for those of losses of pair scores."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import pytest
import torch

from contrastloss import functional
from contrastloss.losses import BY_NAME, Loss, RowLoss
from contrastloss.testing.subject import assert_bounded, assert_same, excess, flat, run, wide


@dataclass(frozen=True)
class Case:
    """A loss, its options, and ``make(n, generator)``, arguments of its forward in fp64."""

    cls: type[Loss]
    make: Callable
    options: dict = field(default_factory=dict)

    def loss(self, **more):
        if not issubclass(self.cls, RowLoss):  # one number
            more.pop("reduction", None)
        return self.cls(**{**self.options, **more})

    def inputs(self, device, n=12, dtype=torch.float64, seed=0):
        values = self.make(n, torch.Generator().manual_seed(seed))
        return [v.to(device, dtype if v.is_floating_point() else v.dtype) for v in values]

    def dense(self, *inputs):
        common = {f.name for f in fields(RowLoss)}
        loss = self.loss()
        own = {f.name: getattr(loss, f.name) for f in fields(loss) if f.name not in common}
        return loss.loss_scale * self.cls.reference(*inputs, **own)


def reference(case, device, backend):
    """Values and gradients are the dense formula's in fp64, at several sizes."""
    for n in (2, 5, 30):
        inputs = case.inputs(device, n)
        got = run(case.loss(reduction="none", backend=backend), inputs)
        assert_same(flat(got), flat(run(case.dense, inputs)), f"n = {n}: (values, gradients)")


def gradcheck(case, device, backend):
    inputs = case.inputs(device, 5)
    leaves = [v.requires_grad_(v.is_floating_point()) for v in inputs]
    assert torch.autograd.gradcheck(case.loss(backend=backend), leaves)


def reductions(case, device, backend):
    inputs = case.inputs(device)
    rows = case.loss(reduction="none", backend=backend)(*inputs)
    assert_same(case.loss(backend=backend)(*inputs), rows.mean(), "mean")
    assert_same(case.loss(reduction="sum", backend=backend)(*inputs), rows.sum(), "sum")


def accuracy(case, device, backend):
    """At most twice the error of the dense formula in fp32, whatever dtype the inputs have."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        draws = []
        for seed in range(5):
            inputs = case.inputs(device, 30, dtype, seed)
            loss = case.loss(reduction="none", backend=backend)
            exact = run(case.dense, [wide(v) for v in inputs])
            plain = run(case.dense, [wide(v, torch.float32) for v in inputs])
            ours = run(loss, inputs)
            assert ours[0].dtype == torch.float32
            assert all(grad.dtype == dtype for grad in ours[1])
            rounded = [plain[0], *(g.to(dtype) for g in plain[1])]
            # sums of a few dozen masses, one after the other
            draws.append(
                excess(flat(ours), rounded, flat(exact), 4 * torch.finfo(torch.float32).eps)
            )
        assert_bounded(draws, f"{dtype}: (values, gradients)")


def layouts(case, device, backend):
    inputs, loss = case.inputs(device), case.loss(backend=backend)
    want = loss(*inputs)
    strided = [v.repeat_interleave(2, -1)[..., ::2] for v in inputs]
    turned = [v.mT.contiguous().mT if v.ndim > 1 else v for v in inputs]
    for seen in (strided, turned):
        assert_same(loss(*seen), want, "value")


def compiled(case, device, backend, through="aot_eager"):
    torch.compiler.reset()
    loss = case.loss(backend=backend)
    graph = torch.compile(loss, fullgraph=True, dynamic=True, backend=through)
    for n in (12, 17):
        inputs = case.inputs(device, n, torch.float32)
        assert_same(flat(run(graph, inputs)), flat(run(loss, inputs)), f"n = {n}", 1e-5)


def traced(case, device, backend):
    """One graph without breaks, of any size: what ``compiled`` finds out of a forward's own lines,
    in a sixth of its time."""
    compiled(case, device, backend, "eager")


def autocast(case, device, backend):
    inputs = case.inputs(device, 12, torch.float32)
    want = case.loss(backend=backend)(*inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = case.loss(backend=backend)(*inputs)
    assert got.dtype == torch.float32
    assert_same(got, want, "value", 0.02)


def copies(case, device, backend):
    inputs, loss = case.inputs(device), case.loss(backend=backend)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    for other in (copy.deepcopy(loss), torch.load(file, weights_only=False)):
        assert torch.equal(other(*inputs), loss(*inputs))
    name = next(name for name, cls in BY_NAME.items() if cls is case.cls)
    options = case.options | {"backend": backend}
    assert torch.equal(getattr(functional, name)(*inputs, **options), loss(*inputs))


def options(case, device, backend):
    if issubclass(case.cls, RowLoss):
        with pytest.raises(ValueError, match=r"^reduction: got 'average', expected one of mean, "):
            case.loss(reduction="average")
    with pytest.raises(ValueError, match=r"^backend: got 'gpu', expected"):
        case.loss(backend="gpu")(*case.inputs(device))


PROPERTIES = (
    reference,
    gradcheck,
    reductions,
    accuracy,
    layouts,
    compiled,
    autocast,
    copies,
    options,
)
#: for losses whose forward has many operations
LIGHT = tuple(traced if check is compiled else check for check in PROPERTIES)


def every_property(cases):
    """Parametrises a test with ``check`` and ``case``; its body is ``check(case, device, backend)``
    for a backend that serves the loss."""

    def decorate(test):
        test = pytest.mark.parametrize("case", cases, ids=lambda c: str(c.options or "default"))(
            test
        )
        return pytest.mark.parametrize("check", PROPERTIES, ids=lambda c: c.__name__)(test)

    return decorate
