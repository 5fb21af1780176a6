"""What may be asked of ``pair_loss`` and its backward pass: second derivatives, a second pass,
weights, scalers, compilers."""

import pytest
import torch
from row_losses import APART, CASES, POSITIVE, close, leaves, scores
from torch.nn.functional import softplus

from contrastloss.backends import cpu
from contrastloss.channel import EXPECT, LSE, SUM
from contrastloss.ops import Part, pair_loss, pair_stats

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))


def _small(**options):
    x, y, scale, bias, factor = leaves(6, 6, 4, torch.float64, False, torch.Generator())
    channels, parts, formula = CASES["softmax"]
    loss, values = pair_loss(
        x, y, channels, parts, scale=scale, row_bias=bias, row_scale=factor, cosine=True, **options
    )
    dense = formula(scores(x, y, scale, bias, factor), torch.eye(6, dtype=torch.bool), None).mean()
    return (x, y, scale, bias, factor), loss, values, dense


def test_second_derivatives():
    inputs, loss, _, dense = _small()
    for _ in range(2):
        (grad,) = torch.autograd.grad(loss, inputs[0], create_graph=True)
        (wanted,) = torch.autograd.grad(dense, inputs[0], create_graph=True)
        torch.testing.assert_close(grad, wanted)
        found = torch.autograd.grad(grad.square().sum(), inputs, retain_graph=True)
        expected = torch.autograd.grad(wanted.square().sum(), inputs, retain_graph=True)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hinges"])
def test_operands_that_depend_on_each_other(name):
    """First and second derivatives where y is computed from x: a recorded gradient follows the path
    from x to y once, and what hooks do to it is done once."""
    channels, parts, formula = CASES[name]
    x = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    mixing = torch.randn(6, 6, dtype=torch.float64)
    own, found = torch.eye(20).bool(), []

    def ours(x, y):
        return pair_loss(x, y, channels, parts)[0]

    for function in (ours, lambda x, y: formula(x @ y.mT, own, None).mean()):
        for record in (False, True):
            inner = x * 1.0
            inner.register_hook(lambda grad: 2 * grad)
            loss = function(inner, (inner @ mixing).tanh())
            (grad,) = torch.autograd.grad(loss, x, create_graph=record)
            found.append(grad.detach())
        found.append(torch.autograd.grad(grad.square().sum(), x)[0])
    for got, want in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_weights_have_gradients():
    weight = torch.rand(6, dtype=torch.float64, requires_grad=True)
    (x, y, scale, bias, factor), loss, _, _ = _small(row_weight=weight)
    rows = CASES["softmax"][2](scores(x, y, scale, bias, factor), torch.eye(6).bool(), None)
    expected, inputs = (weight * rows).mean(), (weight, x, y)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(v, inputs) for v in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_an_infinite_weight_multiplies_the_whole_loss():
    weight = torch.tensor([torch.inf, 1, 1, 1, 1, 1], dtype=torch.float64)
    x = torch.eye(6, dtype=torch.float64).requires_grad_()
    loss, _ = pair_loss(x, x.detach(), [POSITIVE, SUM("square", pairs=APART)], [Part(0), Part(1)],
                        row_weight=weight)  # fmt: skip
    assert type(loss.grad_fn).__name__ == "PairLossBackward"
    assert loss == torch.inf


def test_a_failed_backward_is_not_repeated():
    """What it had multiplied would be multiplied again."""
    (x, *_), loss, _, _ = _small()

    def fail(*_):
        raise OSError("the disk is full")

    handle = loss.grad_fn.register_hook(fail)
    with pytest.raises(OSError, match="full"):
        loss.backward(torch.tensor(3.0, dtype=torch.float64))
    handle.remove()
    for retained in (False, True):
        with pytest.raises(RuntimeError, match="a backward pass after one that failed"):
            loss.backward(torch.tensor(3.0, dtype=torch.float64), retain_graph=retained)
    assert x.grad is None


def test_the_weights_of_a_sharp_softmax_are_normal_numbers():
    """Others become 0: a product with one takes a hundred times as long. Here e^-85 / 300."""
    x, y = torch.tensor([85.0, 0.0]).repeat(300, 1), torch.eye(2).requires_grad_()
    x.requires_grad_()
    one_pass, _ = pair_loss(x, y, [LSE()], [Part(0)])
    two_passes = pair_stats(x, y, [LSE()])[0].mean()
    assert type(one_pass.grad_fn).__name__ == "PairLossBackward"
    for value in (one_pass, two_passes):
        (grad,) = torch.autograd.grad(value, y)
        torch.testing.assert_close(grad, torch.tensor([[85.0, 0.0], [0.0, 0.0]]), atol=0, rtol=1e-5)
    assert torch.tensor(1e-38) / 10 != 0  # only there


def test_backward_twice():
    """A retained graph gives the same gradients again, whatever was done to the first ones."""
    inputs, loss, _, dense = _small()
    loss.backward(retain_graph=True)
    first = [v.grad.clone() for v in inputs]
    for v in inputs:
        v.grad.zero_()
    loss.backward()
    for v, grad, like in zip(inputs, first, torch.autograd.grad(dense, inputs), strict=True):
        assert torch.equal(v.grad, grad)
        torch.testing.assert_close(grad, like)


def test_backward_hands_over_what_forward_found():
    """No copy of the gradients, unless the graph is kept."""
    (x, y, *_), loss, _, _ = _small()
    kept = torch.autograd.grad(3 * loss, x, retain_graph=True)[0]
    places = [v.data_ptr() for v in loss.grad_fn.saved_tensors if v is not None]
    found = torch.autograd.grad(3 * loss, (x, y))
    assert all(v.data_ptr() in places for v in found)
    assert kept.data_ptr() not in places
    assert torch.equal(found[0], kept)


def test_values_have_no_gradient():
    _, loss, (lse, positive), _ = _small()
    assert loss.requires_grad
    assert not lse.requires_grad
    assert not positive.requires_grad
    torch.testing.assert_close(loss.detach(), softplus(lse - positive).mean())


def test_the_same_without_one_pass():
    """Without gradients, on other backends, and where a channel or a size has no one pass."""
    inputs, loss, values, _ = _small()
    reference = _small(backend="reference")
    torch.testing.assert_close(loss, reference[1])
    assert type(reference[1].grad_fn).__name__ != "PairLossBackward"
    torch.testing.assert_close(values, reference[2])
    with torch.no_grad():
        torch.testing.assert_close(_small()[1], loss)
    x, y = inputs[:2]
    expect, _ = pair_loss(x, y, [SUM("id"), EXPECT()], [Part(0)])
    torch.testing.assert_close(expect, (x @ y.mT).sum(1).mean())
    empty, _ = pair_loss(x[:0], y, [SUM("id")], [Part(0)])
    assert empty == 0


def test_compiled_by_default():
    channels, parts, formula = CASES["softmax"]
    x, y = torch.randn(2, 20, 8, requires_grad=True).double().unbind()
    x, y = (v.detach().requires_grad_() for v in (x, y))

    @torch.compile(fullgraph=True)
    def step(x, y):
        return pair_loss(x, y, channels, parts, scale=2.0, cosine=True)[0]

    expected = formula(scores(x, y, 2.0, 0.0, torch.ones(20)), torch.eye(20).bool(), None).mean()
    loss = step(x, y)
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(v, (x, y)) for v in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_autocast_and_scaler():
    """Products in bf16, gradients in fp32, times a scaler's factor."""
    x, y = (torch.randn(40, 16, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = pair_loss(x, y, *CASES["softmax"][:2], scale=0.2)
    (65536 * loss).backward()
    assert x.grad.dtype == torch.float32
    s = 0.2 * x.bfloat16().double() @ y.bfloat16().double().mT
    expected = CASES["softmax"][2](s, torch.eye(40).bool(), None).mean()
    (wanted,) = torch.autograd.grad(65536 * expected, x)
    close(x.grad, wanted, 2e-2)


def test_nan_reaches_the_loss():
    x = torch.randn(5, 3)
    x[2, 1] = torch.nan
    x.requires_grad_()
    loss, _ = pair_loss(x, torch.randn(5, 3), *CASES["sigmoid"][:2])
    loss.backward()
    assert loss.isnan()
    assert x.grad[2].isnan().all()
