"""``pair_loss``, and statistics whose gradients are found in the forward pass: equal to dense
formulas at sizes around every border, whatever is asked of the backward pass."""

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize, softplus

from contrastloss.backends import Operands, PairCall, cpu
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs, row_weight, same
from contrastloss.ops import Part, pair_loss, pair_stats
from contrastloss.program import Program

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))

APART, PAIR = (differs(INDEX),), (same(INDEX),)
POSITIVE = SUM("id", pairs=PAIR)
SIZES = (1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 100, 127, 129, 130, 191, 192, 193, 300, 385, 511, 512)


def _without(s, same_pair):
    return s.masked_fill(same_pair, -torch.inf)


#: channels, parts, and the losses of rows from dense scores, which pairs are positive, and weights
CASES = {
    "softmax": (
        (LSE(pairs=APART), POSITIVE),
        (Part(0, 1, softplus=True),),
        lambda s, own, u: softplus(_without(s, own).logsumexp(1) - s.diag(), threshold=1e9),
    ),
    "both axes": (
        (LSE(pairs=APART), LSE(pairs=APART, axis=COL), POSITIVE),
        (Part(0, 2, 0.5, True), Part(1, 2, 0.5, True)),
        lambda s, own, u: sum(
            softplus(_without(t, own).logsumexp(1) - s.diag(), threshold=1e9) for t in (s, s.mT)
        ) / 2,
    ),
    "sigmoid": (
        (SUM("softplus", pairs=APART), POSITIVE),
        (Part(0), Part(None, 1, softplus=True)),
        lambda s, own, u: softplus(s, threshold=1e9).masked_fill(own, 0.0).sum(1)
        + softplus(-s.diag(), threshold=1e9),
    ),
    "squares": (
        (SUM("square", pairs=APART), POSITIVE, MAX(pairs=APART)),
        (Part(0, weight=0.25), Part(1, weight=-2.0)),
        lambda s, own, u: 0.25 * s.square().masked_fill(own, 0.0).sum(1) - 2 * s.diag(),
    ),
    "hinges": (
        (SUM("relu", sign=-1.0), SUM("relu2", pairs=APART)),
        (Part(0, 1),),
        lambda s, own, u: torch.relu(-s).sum(1)
        - torch.relu(s).square().masked_fill(own, 0.0).sum(1),
    ),
    "weights": (
        (LSE(0.5, weight=(row_weight("u"),)), SUM("focal", axis=COL)),
        (Part(0, weight=2.0), Part(1, weight=-0.1)),
        lambda s, own, u: 2 * ((0.5 * s).logsumexp(1) + u)
        - 0.1 * ((1 - s.exp()) * s).sum(0),
    ),
}  # fmt: skip


def scores(x, y, scale, bias, factor):
    y = x if y is None else y
    return factor[:, None] * scale * normalize(x, dim=1) @ normalize(y, dim=1).mT + bias


def leaves(m, n, d, dtype, only_x, generator):
    x, y = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (m, n))
    factor = 0.5 + torch.rand(m, generator=generator, dtype=torch.float64)
    found = [x, y, torch.tensor(3.0, dtype=torch.float64), torch.tensor(-0.3).double(), factor]
    narrow = [v.to(dtype) if k < 2 or dtype == torch.float64 else v.float()
              for k, v in enumerate(found)]  # fmt: skip
    return [v.clone().requires_grad_(k != 1 or not only_x) for k, v in enumerate(narrow)]


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _close(got, expected, tolerance, least=1e-3):
    expected = expected.to(torch.float64)
    size = max(expected.abs().max().item(), least)
    assert (got.double() - expected).abs().max().item() <= tolerance * size


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_loss_and_gradients(name, dtype, seed):
    """Value and every gradient, at sizes, thread counts and options drawn around all borders."""
    generator = torch.Generator().manual_seed(1000 * seed + 17 * [*CASES].index(name))

    def draw(options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    channels, parts, formula = CASES[name]
    m = draw(SIZES)
    n = m if any(c.axis == COL for c in channels) else max(m, draw(SIZES))
    d, only_x = draw((2, 3, 16, 33, 260, 520, 1030, 2051)), draw((False, True))
    reduction, weighted = draw(("mean", "sum")), draw((False, True))
    own = torch.eye(m, n, dtype=torch.bool)
    given = leaves(m, n, d, dtype, only_x, generator)
    u = torch.randn(m, generator=generator, dtype=torch.float64)
    w = torch.rand(m, generator=generator, dtype=torch.float64) if weighted else None
    wide = [v.detach().double().requires_grad_(v.requires_grad) for v in given]

    def dense(x, y, scale, bias, factor):
        found = formula(scores(x, y, scale, bias, factor), own, u)
        found = found if w is None else w * found
        return found.mean() if reduction == "mean" else found.sum()

    with threads(draw((1, 2, 3, 7))):
        x, y, scale, bias, factor = given
        loss, _ = pair_loss(
            x, y, channels, parts, reduction=reduction, scale=scale, row_bias=bias,
            row_scale=factor, cosine=True, row_weight=w,
            rows={"u": u} if name == "weights" else None,
        )  # fmt: skip
        assert type(loss.grad_fn).__name__ == "PairLossBackward"
        (7 * loss).backward()
    expected = dense(*wide)
    (7 * expected).backward()
    tolerance = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]
    _close(loss, expected, min(tolerance, 1e-5))
    for got, like in zip(given, wide, strict=True):
        if like.requires_grad:  # the terms of a number's gradient, one of each row, may cancel
            least = 1e-3 if like.ndim else m if reduction == "sum" else 1
            _close(got.grad, like.grad, tolerance, least)


@pytest.mark.parametrize(("m", "n"), [(600, 520), (700, 1100), (1500, 333)])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hinges"])
def test_strips(name, m, n):
    """More pairs than are kept at once: strips of rows, cut anywhere."""
    n = max(m, n) if name != "hinges" else n
    channels, parts, formula = CASES[name]
    x, y, scale, bias, factor = leaves(m, n, 9, torch.float64, False, torch.Generator())
    expected = formula(scores(x, y, scale, bias, factor), torch.eye(m, n, dtype=torch.bool), None)
    wanted = torch.autograd.grad(expected.mean(), (x, y, scale, bias, factor))
    for count in (1, 3):
        with threads(count):
            options = {"scale": scale, "row_bias": bias, "row_scale": factor, "cosine": True}
            loss, _ = pair_loss(x, y, channels, parts, **options)
            assert type(loss.grad_fn).__name__ == "PairLossBackward"
            again, _ = pair_loss(x, y, channels, parts, **options)
            found = torch.autograd.grad(loss, (x, y, scale, bias, factor))
            second = torch.autograd.grad(again, (x, y, scale, bias, factor))
        torch.testing.assert_close(loss, expected.mean(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(found, second, strict=True))  # repeatable


def _status(key):
    """MB of this process: VmRSS are there, VmHWM were at most."""
    (found,) = re.findall(rf"{key}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found) / 1024


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak to reset")
def test_threads_give_their_memory_back():
    """Each has gradients of the strip's rows, about 64 MB of all at most, so that strips have fewer
    rows; what is more than 16 MB goes back when the call ends."""
    channels, parts, _ = CASES["softmax"]
    x = torch.randn(512, 8192, requires_grad=True)
    y = x.detach().clone()
    with threads(12):
        pair_loss(x[:2], y[:2], channels, parts)[0].backward()
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        loss, _ = pair_loss(x, y, channels, parts)
        assert type(loss.grad_fn).__name__ == "PairLossBackward"
    # the gradients of x, and what jobs keep: some MB for each thread. Without a limit: 11 x 16
    assert _status("VmHWM") - before < 64 + 16 + 60
    assert _status("VmRSS") - before < 16 + 60


def test_both_axes_of_many_features():
    """From 256 features on, a strip may have more rows."""
    channels, parts, formula = CASES["both axes"]
    x, y, scale, bias, factor = leaves(700, 700, 260, torch.float64, False, torch.Generator())
    loss, _ = pair_loss(
        x, y, channels, parts, scale=scale, row_bias=bias, row_scale=factor, cosine=True
    )
    assert type(loss.grad_fn).__name__ == "PairLossBackward"
    own = torch.eye(700, dtype=torch.bool)
    expected = formula(scores(x, y, scale, bias, factor), own, None).mean()
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(v, (x, y, scale, factor)) for v in (loss, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("n", [1, 2, 33, 64, 97, 200, 256])
def test_rows_against_themselves(n):
    """y=None: self pairs are dropped, and gradients of rows and columns add up."""
    x = torch.randn(2 * n, 12, dtype=torch.float64, requires_grad=True)
    group = torch.arange(2 * n) % n
    own, same_group = torch.eye(2 * n, dtype=torch.bool), group[:, None] == group
    s = 5 * normalize(x, dim=1) @ normalize(x, dim=1).mT
    positive = s.masked_fill(~same_group | own, 0.0).sum(1)
    expected = softplus(s.masked_fill(same_group, -torch.inf).logsumexp(1) - positive).mean()
    channels = (LSE(pairs=(differs("g"),)), SUM("id", pairs=(same("g"),)))
    for count in (1, 3):
        with threads(count):
            loss, _ = pair_loss(
                x, None, channels, (Part(0, 1, softplus=True),), scale=5.0, cosine=True,
                rows={"g": group},
            )  # fmt: skip
        torch.testing.assert_close(loss, expected)
        found, wanted = (torch.autograd.grad(v, x, retain_graph=True) for v in (loss, expected))
        torch.testing.assert_close(found, wanted)


def _equal(loss, expected, inputs):
    """A loss of one pass is a dense one, with all gradients."""
    assert type(loss.grad_fn).__name__ == "PairLossBackward"
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(v, inputs, retain_graph=True) for v in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 31, 65, 192, 193, 385, 800])
@pytest.mark.parametrize("alike", [True, False], ids=["symmetric", "rows differ"])
def test_sums_of_rows_against_themselves(n, alike):
    """y=None: gradients at once with the scores, of half of the tiles or of both orientations."""
    generator = torch.Generator().manual_seed(n)
    x, _, scale, bias, factor = leaves(n, n, 12, torch.float64, False, generator)
    factor = torch.ones(n).double().requires_grad_() if alike else factor
    group = torch.arange(n) % 5
    own, same_group = torch.eye(n, dtype=torch.bool), group[:, None] == group
    s = scores(x, None, scale, bias, factor)
    negative = softplus(s, threshold=1e9).masked_fill(same_group, 0.0)
    columns = torch.relu(-s).masked_fill(own, 0.0).sum(0)
    positive = s.masked_fill(~same_group | own, 0.0).square().sum(1)
    expected = (negative.sum(1) + 0.5 * columns - positive).mean()
    channels = (
        SUM("softplus", pairs=(differs("g"),)),
        SUM("relu", sign=-1.0, axis=COL),
        SUM("square", pairs=(same("g"),)),
    )
    inputs = (x, scale, bias) if alike else (x, scale, bias, factor)
    options = {"row_scale": None if alike else factor, "rows": {"g": group}, "cosine": True}
    for count in (1, 2, 5):
        with threads(count):
            loss, _ = pair_loss(
                x, None, channels, (Part(0), Part(1, 2, weight=1.0), Part(1, weight=-0.5)),
                scale=scale, row_bias=bias, **options,
            )  # fmt: skip
            _equal(loss, expected, inputs)


@pytest.mark.parametrize("n", [1, 2, 33, 193, 400])
@pytest.mark.parametrize("against", ["columns", "itself"])
def test_shifts(n, against):
    """Hinges around a number of each row, or of each column, which have gradients, too."""
    x, y, scale, bias, _ = leaves(n, n, 9, torch.float64, False, torch.Generator())
    y = y if against == "columns" else None
    bound = torch.linspace(-1, 1, n, dtype=torch.float64).requires_grad_()
    own = torch.eye(n, dtype=torch.bool)
    s = scores(x, y, scale, bias, torch.ones(n).double())
    by_row = torch.relu(s - bound[:, None]).masked_fill(own, 0.0)
    by_col = softplus(bound - s).masked_fill(own, 0.0)
    expected = (0.5 * by_row.sum(1) + by_col.sum(0)).mean()
    channels = (
        SUM("relu", shift="b", pairs=APART),
        SUM("softplus", shift="b", sign=-1.0, pairs=APART, axis=COL),
    )
    inputs = [v for v in (x, y, scale, bias, bound) if v is not None]
    for count in (1, 3):
        with threads(count):
            loss, _ = pair_loss(
                x, y, channels, (Part(0, weight=0.5), Part(1)), scale=scale, row_bias=bias,
                cosine=True, rows={"b": bound}, cols={"b": bound},
            )  # fmt: skip
            _equal(loss, expected, inputs)


def test_a_softplus_of_several_pairs():
    """It is not the sum of the pairs' softplus, also where the test has the name of positions."""
    x, y, scale, bias, factor = leaves(40, 50, 6, torch.float64, False, torch.Generator())
    options = {"scale": scale, "row_bias": bias, "row_scale": factor, "cosine": True}
    ids = {"rows": {INDEX: torch.arange(40) % 3}, "cols": {INDEX: torch.arange(50) % 3}}
    own = ids["rows"][INDEX][:, None] == ids["cols"][INDEX]
    s = scores(x, y, scale, bias, factor)
    for channel, value, named in (
        (SUM("id"), s.sum(1), {}),
        (SUM("id", pairs=PAIR), s.masked_fill(~own, 0.0).sum(1), ids),
    ):
        loss, _ = pair_loss(x, y, [channel], [Part(0, softplus=True)], **options, **named)
        expected = softplus(value, threshold=1e9).mean()
        torch.testing.assert_close(loss, expected)
        found, wanted = (
            torch.autograd.grad(v, (x, y), retain_graph=True) for v in (loss, expected)
        )
        torch.testing.assert_close(found, wanted)
    fewer, _ = pair_loss(x, y[:30], [POSITIVE], [Part(0, softplus=True)], scale=0.0)
    assert fewer.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())


STATISTICS = {
    "lse": (LSE(), lambda s: s.logsumexp(1)),
    "theta": (LSE(-0.5), lambda s: (-0.5 * s).logsumexp(1)),
    **{
        psi: (SUM(psi), function)
        for psi, function in {
            "id": lambda s: s.sum(1),
            "square": lambda s: s.square().sum(1),
            "relu": lambda s: torch.relu(s).sum(1),
            "relu2": lambda s: torch.relu(s).square().sum(1),
            "softplus": lambda s: softplus(s, threshold=1e9).sum(1),
            "focal": lambda s: ((1 - s.exp()) * s).sum(1),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("m", "n"), [(5, 3), (33, 130), (520, 600)])
def test_gradients_of_rows(name, m, n):
    """Where only operands of rows have gradients, any gradient of the values."""
    channel, formula = STATISTICS[name]
    x, y, scale, bias, factor = leaves(m, n, 7, torch.float64, True, torch.Generator())
    found = pair_stats(x, y, [channel], scale=scale, row_bias=bias, row_scale=factor, cosine=True)[
        0
    ]
    assert type(found.grad_fn).__name__ == "PairLossBackward"
    expected, upstream = formula(scores(x, y, scale, bias, factor)), torch.randn(m).double()
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    inputs = (x, scale, bias, factor)
    got = torch.autograd.grad(found, inputs, upstream)
    torch.testing.assert_close(got, torch.autograd.grad(expected, inputs, upstream))


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
    _close(x.grad, wanted, 2e-2)


def test_nan_reaches_the_loss():
    x = torch.randn(5, 3)
    x[2, 1] = torch.nan
    x.requires_grad_()
    loss, _ = pair_loss(x, torch.randn(5, 3), *CASES["sigmoid"][:2])
    loss.backward()
    assert loss.isnan()
    assert x.grad[2].isnan().all()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([Part(0, 2)], {}, "parts: got channel 2, expected 0 to 1 or None"),
        ([Part(-1)], {}, "parts: got channel -1, expected 0 to 1 or None"),
        ([Part(1)], {}, "parts: got channel 1, MAX, expected LSE or SUM"),
        ([], {}, "parts: got none, expected at least one"),
        ([Part(0)], {"reduction": "none"}, "reduction: got 'none', expected 'mean' or 'sum'"),
        (
            [Part(0)],
            {"row_weight": torch.ones(1)},
            r"row_weight: got shape \(1,\), expected \(4,\)",
        ),
        ([Part(0)], {"row_weight": torch.ones(4, 1)}, r"row_weight: got shape \(4, 1\), expected"),
    ],
    ids=str,
)
def test_wrong_arguments(parts, options, message, backend):
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match=f"^{message}"):
        pair_loss(x, torch.randn(4, 3), [LSE(), MAX()], parts, backend=backend, **options)


def test_columns_are_as_many_as_rows():
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="parts: got columns, expected as many as rows"):
        pair_loss(x, torch.randn(5, 3), [LSE(axis=COL)], [Part(0)])


def native(channels=None, **changes):
    """The operator itself, which anyone may call, with other arguments than ours."""
    program = Program(channels or (LSE(), SUM("id")), ("b",), ())
    operands = Operands(torch.randn(4, 3), torch.randn(4, 3), rows=(torch.zeros(4),))
    call = PairCall(operands, program, False, torch.float32)
    given = {
        "strip": 4,
        "parts": torch.tensor([[0, 0, 1]]),
        "weights": torch.ones(1, dtype=torch.float64),
        "row_weight": None,
        "divisor": 4.0,
        "needs": 3,
        **changes,
    }
    return torch.ops.contrastloss.cpu_pair_loss(
        *call.lifted().native(), torch.float32, -1, *given.values()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strip": -1}, "rows: got -1, expected 0 for sums"),
        ({"strip": 0}, "rows: got 0, expected 0 for sums"),
        (
            {"strip": 3, "channels": (LSE(axis=COL), SUM("id"))},
            "rows: got 3, expected 0 for sums, all",
        ),
        ({"parts": torch.tensor([[0, 2, 1]])}, "parts: no such channel: 2"),
        ({"parts": torch.tensor([[0, 0]])}, "parts: got 2 elements, expected 3"),
        ({"parts": torch.ones(1, 3)}, "parts: wrong dtype"),
        ({"weights": torch.ones(1)}, "weights: wrong dtype"),
        ({"row_weight": torch.ones(5)}, "row_weight: got 5 elements, expected 4"),
        ({"needs": 128}, "needs: got 128"),
        ({"channels": (LSE(), MAX())}, "parts: got a maximum"),
        ({"channels": (LSE(), EXPECT())}, "channels: got EXPECT"),
        ({"channels": (LSE(), SUM("relu", shift="b"))}, "channels: got a shift, expected none"),
    ],
    ids=str,
)
def test_the_operator_checks_its_operands(changes, message):
    native()
    with pytest.raises(RuntimeError, match=message):
        native(**changes)


def test_the_second_operator_checks_its_operands():
    scale = torch.ops.contrastloss.cpu_scale
    unit = torch.arange(6.0).reshape(3, 2)
    found = unit.clone(), unit.clone()
    scale(torch.tensor(2.0), found)
    torch.testing.assert_close(found, (2 * unit, 2 * unit))
    rows = torch.tensor([1.0, -1.0, 0.5])
    found = unit.clone(), rows.clone()
    scale(rows, found)
    torch.testing.assert_close(found, (rows[:, None] * unit, rows.square()))
    with pytest.raises(RuntimeError, match="grad: got 4 elements"):
        scale(torch.ones(4), [unit])
    with pytest.raises(RuntimeError, match="unit: wrong dtype"):
        scale(torch.ones(1), [unit.double()])
