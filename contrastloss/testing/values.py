"""Properties of values and gradients: correctness and accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..losses import PairLoss, PositiveLoss, ScoreLoss
from .compare import assert_bounded, assert_same, excess, wide
from .subject import Subject, dense_rows

__all__ = [
    "Case",
    "check_accuracy",
    "check_frozen",
    "check_gradients",
    "check_low_precision",
    "check_reference",
]

#: options, overrides in ``forward``, and the tensors in either that get gradients
Case = tuple[dict[str, Any], dict[str, Any], list[Tensor]]


def check_reference(subject: Subject) -> None:
    """Rows and gradients agree with the reference in fp64, for every way to give the temperature
    and the bias."""
    inputs = subject.inputs(n=37)
    scalar = nn.Parameter(inputs[0].new_tensor(0.3))
    cases: list[Case] = [({}, {}, []), ({"loss_weight": 2.5}, {}, [])]
    if issubclass(subject.cls, ScoreLoss):
        cases += [
            ({"normalize": False}, {}, []),
            ({"temperature": scalar}, {}, [scalar]),
        ]
    if issubclass(subject.cls, PairLoss):
        length = inputs[0].shape[:-1].numel()
        values = [0.2 + 0.4 * k / length for k in range(length)]
        vector = nn.Parameter(inputs[0].new_tensor(values))
        bias = inputs[0].new_tensor(-0.7).requires_grad_()
        cases.append(({}, {"logit_scale": scalar, "logit_bias": bias}, [scalar, bias]))
        if "temperature" in subject.cls.VECTORS:
            cases.append(({"temperature": vector}, {}, [vector]))
    for options, overrides, parameters in cases:
        loss = subject.rows(**options)
        got = subject.run(loss, inputs, parameters, **overrides)
        want = subject.run(dense_rows(loss), inputs, parameters, **overrides)
        assert_same(got, want, f"{[*options, *overrides] or 'default'}: (rows, gradients)")


def check_gradients(subject: Subject) -> None:
    """gradcheck and gradgradcheck, for every element or, unless thorough, in random directions. A
    recorded gradient is the same one. A second derivative may be a clear error. A loss with
    constant parts is skipped: its gradients are compared only with those of its formula."""
    inputs, loss = subject.leaves(subject.inputs(n=4, d=3)), subject.loss()
    if loss.stops_gradients:
        return
    fast = not subject.thorough
    torch.autograd.gradcheck(loss, inputs, fast_mode=fast)
    leaves = [v for v in inputs if v.requires_grad]
    grads = torch.autograd.grad(loss(*inputs), leaves, materialize_grads=True)
    try:
        recorded = torch.autograd.grad(
            loss(*inputs), leaves, create_graph=True, materialize_grads=True
        )
        assert_same(recorded, grads, "gradients with create_graph=True")
        torch.autograd.gradgradcheck(loss, inputs, fast_mode=fast)
    except RuntimeError as error:
        if "second derivatives are not implemented" not in str(error):
            raise


def check_accuracy(subject: Subject) -> None:
    """fp32: at most twice the error of dense PyTorch in fp32, at temperatures 1.0 to 0.01."""
    for temperature in subject.temperatures:
        seeds = range(5 if subject.thorough else 2)
        draws = [_excess(subject, torch.float32, temperature, seed) for seed in seeds]
        assert_bounded(draws, f"temperature {temperature}: (rows, gradients)")


def check_low_precision(subject: Subject) -> None:
    """bf16 and fp16: at most twice the error of dense PyTorch in fp32 on the same rounded inputs,
    with its result rounded to that dtype. The loss stays in fp32."""
    for dtype in (torch.bfloat16, torch.float16):
        for temperature in subject.temperatures:
            seeds = range(3 if subject.thorough else 2)
            draws = [_excess(subject, dtype, temperature, seed) for seed in seeds]
            assert_bounded(draws, f"{dtype}, temperature {temperature}: (rows, gradients)")


def _excess(
    subject: Subject, dtype: torch.dtype, temperature: float | None, seed: int
) -> list[float]:
    n, d = subject.sizes
    inputs = subject.inputs(n=n, d=d, dtype=dtype, seed=seed)
    exact, plain = _oracle(subject, inputs, dtype, temperature, seed)
    loss = subject.rows(temperature)
    ours = subject.run(loss, inputs)
    if isinstance(loss, PositiveLoss) and loss.parts():  # its sum's gradients are of one pass
        loss.reduction = "sum"
        ours += subject.run(loss, inputs)[1:]
        exact, plain = _with_sum(exact), _with_sum(plain)
    assert ours[0].dtype == torch.float32
    assert all(grad.dtype == dtype for grad in ours[1:])
    return excess(ours, plain, exact, subject.loose * torch.finfo(torch.float32).eps)


def _with_sum(results: list[Tensor]) -> list[Tensor]:
    """Rows, the gradients of their mean, and those of their sum."""
    rows, *grads = results
    return [rows, *grads, *(rows.numel() * grad.double() for grad in grads)]


#: results of the dense formula, which are the same for every backend
_ORACLES: dict[tuple[Any, ...], tuple[list[Tensor], list[Tensor]]] = {}


def _oracle(
    subject: Subject, inputs: list[Tensor], dtype: torch.dtype, temperature: float | None, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Rows and gradients of the dense formula in fp64, and in fp32 with gradients rounded to the
    inputs' dtype."""
    options = repr(sorted(subject.options.items()))
    key = (subject.cls, subject.make, options, str(subject.device), dtype, temperature, seed)
    if key not in _ORACLES:
        formula = dense_rows(subject.rows(temperature))
        exact = subject.run(formula, [wide(v) for v in inputs])
        size = exact[0].abs().mean()
        assert size > 0.1 or not issubclass(subject.cls, ScoreLoss), (
            f"temperature {temperature}: the example's loss is ~ 0"
        )
        value, *grads = subject.run(formula, [wide(v, torch.float32) for v in inputs])
        _ORACLES[key] = exact, [value.to(dtype), *(g.to(dtype) for g in grads)]
    return _ORACLES[key]


def check_frozen(subject: Subject) -> None:
    """If only one input requires a gradient, it gets the same one as with all inputs."""
    inputs = subject.inputs()
    _, *grads = subject.run(subject.loss(), inputs)
    free = [k for k, v in enumerate(subject.leaves(inputs)) if v.requires_grad]
    for k, want in zip(free, grads, strict=True):
        leaf = inputs[k].clone().requires_grad_()
        value = subject.loss()(*inputs[:k], leaf, *inputs[k + 1 :])
        assert_same(torch.autograd.grad(value, leaf)[0], want, f"gradient of input {k} alone")
