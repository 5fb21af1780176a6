"""``pair_loss``, and statistics whose gradients are found in the forward pass: equal to dense
formulas at sizes around every border."""

import os
import re
from pathlib import Path

import pytest
import torch
from row_losses import APART, CASES, PAIR, POSITIVE, close, leaves, scores
from torch.nn.functional import normalize, softplus

from contrastloss.backends import cpu
from contrastloss.channel import COL, INDEX, LSE, SUM, differs, same
from contrastloss.ops import Part, pair_loss, pair_stats

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))

SIZES = (1, 2, 3, 16, 31, 32, 33, 63, 64, 65, 100, 127, 129, 130, 191, 192, 193, 300, 385, 511, 512)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_loss_and_gradients(name, dtype, seed, threads):
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

    threads(draw((1, 2, 3, 7)))
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
    close(loss, expected, min(tolerance, 1e-5))
    for got, like in zip(given, wide, strict=True):
        if like.requires_grad:  # the terms of a number's gradient, one of each row, may cancel
            least = 1e-3 if like.ndim else m if reduction == "sum" else 1
            close(got.grad, like.grad, tolerance, least)


@pytest.mark.parametrize(("m", "n"), [(600, 520), (700, 1100), (1500, 333)])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hinges"])
def test_strips(name, m, n, threads):
    """More pairs than are kept at once: strips of rows, cut anywhere."""
    n = max(m, n) if name != "hinges" else n
    channels, parts, formula = CASES[name]
    x, y, scale, bias, factor = leaves(m, n, 9, torch.float64, False, torch.Generator())
    expected = formula(scores(x, y, scale, bias, factor), torch.eye(m, n, dtype=torch.bool), None)
    wanted = torch.autograd.grad(expected.mean(), (x, y, scale, bias, factor))
    for count in (1, 3):
        threads(count)
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
def test_threads_give_their_memory_back(threads):
    """Each has gradients of the strip's rows, about 64 MB of all at most, so that strips have fewer
    rows; what is more than 16 MB goes back when the call ends."""
    channels, parts, _ = CASES["softmax"]
    x = torch.randn(512, 8192, requires_grad=True)
    y = x.detach().clone()
    threads(12)
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
def test_rows_against_themselves(n, threads):
    """y=None: self pairs are dropped, and gradients of rows and columns add up."""
    x = torch.randn(2 * n, 12, dtype=torch.float64, requires_grad=True)
    group = torch.arange(2 * n) % n
    own, same_group = torch.eye(2 * n, dtype=torch.bool), group[:, None] == group
    s = 5 * normalize(x, dim=1) @ normalize(x, dim=1).mT
    positive = s.masked_fill(~same_group | own, 0.0).sum(1)
    expected = softplus(s.masked_fill(same_group, -torch.inf).logsumexp(1) - positive).mean()
    channels = (LSE(pairs=(differs("g"),)), SUM("id", pairs=(same("g"),)))
    for count in (1, 3):
        threads(count)
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
def test_sums_of_rows_against_themselves(n, alike, threads):
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
        threads(count)
        loss, _ = pair_loss(
            x, None, channels, (Part(0), Part(1, 2, weight=1.0), Part(1, weight=-0.5)),
            scale=scale, row_bias=bias, **options,
        )  # fmt: skip
        _equal(loss, expected, inputs)


@pytest.mark.parametrize("n", [1, 2, 33, 193, 400])
@pytest.mark.parametrize("against", ["columns", "itself"])
def test_shifts(n, against, threads):
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
        threads(count)
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
