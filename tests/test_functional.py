"""Losses as functions give the same results and errors as their modules, whatever was called
before, and also under a compiler."""

import inspect
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import contrastloss
from contrastloss import functional
from contrastloss.losses import LOSSES

x, y, z = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.mark.parametrize("name", LOSSES)
def test_signature_and_documentation(name):
    """A function has the inputs of ``forward``, then every option with its default, and the
    docstring of the class."""
    function, cls = getattr(functional, name), LOSSES[name]
    assert inspect.getsource(function).startswith(f"def {name}(")
    summary = cls.__doc__.strip().splitlines()[0]
    assert function.__doc__.strip().startswith(summary)
    assert f"contrastloss.{cls.__name__}" in function.__doc__
    parameters = inspect.signature(function).parameters
    inputs = list(inspect.signature(cls.forward).parameters.values())[1:]
    assert list(parameters)[: len(inputs)] == [p.name for p in inputs]
    for given in inputs:
        assert parameters[given.name].default == given.default
    for field in fields(cls):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[field.name].default == field.default
    assert len(parameters) == len(inputs) + len(fields(cls))


def test_what_modules_take_functions_take():
    """Functions take options that cannot be hashed, such as lists, as modules do."""
    got = functional.multi_modal(x, y, z, weights=[1.0, 2.0, 3.0])
    assert torch.equal(got, contrastloss.MultiModalLoss([1.0, 2.0, 3.0])(x, y, z))
    labels = torch.arange(9) % 3
    got = functional.recall_at_k(x, labels, ks=[1, 2])
    assert torch.equal(got, contrastloss.RecallAtKLoss(ks=[1, 2])(x, labels))


@pytest.mark.parametrize(("good", "bad"), [(1.0, True), (2.0, torch.ones(2, 2)), (0.5, "0.5")])
def test_what_modules_refuse_functions_refuse(good, bad):
    """A function refuses wrong options, also after a call with options that compare equal:
    True == 1.0."""
    functional.clip(x, y, temperature=good)
    with pytest.raises((TypeError, ValueError), match=r"^temperature: got .*, expected"):
        functional.clip(x, y, temperature=bad)


def test_equal_options_of_other_types_are_other_options():
    functional.clip(x, y, normalize=True)
    with pytest.raises(TypeError, match=r"^normalize: got int, expected a bool"):
        functional.clip(x, y, normalize=1)


def test_tensors_are_options():
    temperature = nn.Parameter(torch.tensor(0.3))
    functional.clip(x, y, temperature=temperature).backward()
    assert temperature.grad.abs() > 0


CALLS = {
    "clip": lambda t: functional.clip(x, y, temperature=t),
    "circle": lambda t: functional.circle(x, torch.arange(9) % 3, gamma=7.0, temperature=t),
    "supcon": lambda t: functional.supcon(x, torch.arange(9) % 3, variant="in", temperature=t),
    "learned": lambda t: functional.nt_xent(x, y, temperature=torch.tensor(t)),
    "multi": lambda t: functional.multi_modal(x, y, z, weights=(1.0, 2.0, 0.5), temperature=t),
}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", CALLS)
def test_compiled(name, dynamic):
    """Different values of an option compile to one graph if dynamic, else to two: the compiler
    treats the first value as a constant. The module behind the function does not change."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(CALLS[name], fullgraph=True, dynamic=dynamic, backend=counter)
    for t in (0.3, 0.4, 0.5, 0.6):
        torch.testing.assert_close(compiled(t), CALLS[name](t))
    assert counter.frame_count <= (1 if dynamic else 2)
    for t in (0.07, 1.0):
        torch.testing.assert_close(CALLS[name](t), compiled(t))


def test_compiled_gradients():
    def step(x, y, t):
        return functional.clip(x, y, temperature=t, return_stats=False)

    leaves = [v.clone().requires_grad_() for v in (x, y)]
    value = torch.compile(step, fullgraph=True)(*leaves, 0.2)
    grads = torch.autograd.grad(value, leaves)
    want = torch.autograd.grad(step(*leaves, 0.2), leaves)
    torch.testing.assert_close(grads, want)
