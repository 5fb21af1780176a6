"""The two ways through a tile of the Triton backend: values and gradients beside the reference in
fp64, in sizes with tiles that have neither an edge nor a part of the diagonal."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from contrastloss import ops
from contrastloss.backends import h_blocks, triton
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs, same

if triton.missing():
    pytest.skip("needs triton", allow_module_level=True)
if not (triton.interpreted() or torch.cuda.is_available()):
    pytest.skip("no GPU, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from contrastloss.backends.triton import backward, forward, operands
from contrastloss.backends.triton.config import Config

BOTH = (LSE(), LSE(axis=COL), EXPECT(), EXPECT(axis=COL))
M, N, D = 97, 130, 8  # tiles of 32 x 32: six of them whole beside a diagonal


@pytest.fixture(autouse=True)
def _memory_holds_nan():
    """What is read before it is written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(x, y, channels, device, **options):
    """(values, gradients) of Triton in fp32 and of the reference in fp64."""
    found = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = [v.to(device, dtype).requires_grad_() for v in (x, y) if v is not None]
        given = {
            k: {name: v.to(device) for name, v in o.items()} if isinstance(o, dict) else o
            for k, o in options.items()
        }
        values = tree_leaves(
            ops.pair_stats(
                *(leaves if len(leaves) > 1 else [*leaves, None]),
                channels,
                backend=backend,
                **given,
            )
        )
        total = sum((v * (1 + torch.arange(v.shape[-1], device=v.device) / 50)).sum()
                    for v in values if v.is_floating_point())  # fmt: skip
        grads = torch.autograd.grad(total, leaves)
        found.append(([v.detach() for v in values], grads))
    return found


def assert_near(found, rtol=2e-6):
    (values, grads), (exact, exact_grads) = found
    for got, want in zip(values, exact, strict=True):
        if got.is_floating_point():
            scale = want[want.isfinite()].abs().max().clamp_min(1.0)
            torch.testing.assert_close(got.double(), want, rtol=rtol, atol=rtol * scale.item())
        else:
            assert torch.equal(got, want)
    for got, want in zip(grads, exact_grads, strict=True):
        assert (got.double() - want).norm() <= 20 * rtol * want.norm()


@pytest.mark.parametrize("spread", [1.0, 50.0, 85.0, 130.0, 400.0])
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_rows_and_columns_far_apart(device, spread, side):
    """A part of the rows, or of the columns, has logits that lie so much lower than the others that
    no exponential of fp32 serves both. Every tile has both kinds."""
    x, y = drawn(M, D), drawn(N, D, seed=1)
    x[:, 0], y[:, 0] = (1.0, 0.0) if side == "columns" else (0.0, 1.0)
    low = y if side == "columns" else x
    low[::2, 0] = -spread
    assert_near(both(x, y, BOTH, device), rtol=2e-6 * max(1.0, spread / 20))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, -30.0])
def test_scales_of_either_sign(device, scale):
    channels = (LSE(2.0), LSE(2.0, axis=COL), LSE(-1.5), LSE(-1.5, axis=COL), SUM("softplus"))
    assert_near(both(drawn(M, D), drawn(N, D, seed=1), channels, device, scale=scale, cosine=True),
                rtol=1e-5)  # fmt: skip


PAIRS = (differs("label"),)
MIRRORED = (
    LSE(pairs=PAIRS), SUM("id", pairs=(same("label"),)), EXPECT(axis=COL), MAX(pairs=PAIRS),
)  # fmt: skip


@pytest.mark.parametrize("m", [97, 300])
@pytest.mark.parametrize("shared", [True, False], ids=["one tensor", "two tensors"])
def test_symmetric_problems(monkeypatch, device, shared, m):
    """Evaluating a tile once for both directions does not change the results. With 300 rows, an
    instance has several blocks of rows and of columns."""
    labels = torch.arange(m) // 3
    asked, of = [], operands.KernelOperands.of

    def recorded(*args, **options):
        asked.append(of(*args, **options).mirrored)
        return of(*args, **options)

    monkeypatch.setattr(operands.KernelOperands, "of", staticmethod(recorded))
    rows = {"label": labels}
    cols = rows if shared else {"label": labels.clone()}
    found = both(drawn(m, D), None, MIRRORED, device, rows=rows, cols=cols, cosine=True, scale=9.0)
    assert_near(found)
    # a clone on another device of one tensor would be two
    assert asked == ([shared, shared] if device.type == "cpu" else asked)


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("how", ["tma", "library"])
def test_other_ways_to_load(monkeypatch, device, how, symmetric):
    """Through tensor descriptors; and products that a library has computed, a panel of some rows at
    a time, with one and with several items of a batch."""
    config = Config(32, 32, 16, 4, 1, how=how)
    for module in (forward, backward):
        monkeypatch.setattr(module, "choose", lambda o: config)
    monkeypatch.setattr(forward, "ELEMENTS", 4 * 64 * N)
    monkeypatch.setattr(h_blocks, "ELEMENTS", 4 * 64 * 64)
    monkeypatch.setattr(h_blocks, "ROWS", 64)
    x, y = drawn(M, 19), None if symmetric else drawn(N, 19, seed=1)
    programs = [BOTH, (LSE(pairs=(differs(INDEX),)), SUM("softplus", pairs=(same(INDEX),)))]
    for program in programs:
        assert_near(both(x, y, program, device, scale=2.0, cosine=True))
    z = None if symmetric else drawn(2, 40, 5, seed=3)
    assert_near(both(drawn(2, 70, 5, seed=2), z, BOTH, device))


def test_programs_of_the_diagonal_alone(device):
    """No products are made for other tiles."""
    channels = (SUM("id", pairs=(same(INDEX),)), SUM("id", pairs=(same(INDEX),), axis=COL))
    assert_near(both(drawn(M, D), drawn(N, D, seed=1), channels, device))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_bad_row_stays_alone(device, value):
    x, y = drawn(M, D), drawn(N, D, seed=1)
    x[40, 3] = value
    y[:, 3] = y[:, 3].abs() + 0.1
    got, want = (
        ops.pair_stats(v.to(device), w.to(device), (LSE(), SUM("id")), backend=backend)
        for backend, v, w in (("triton", x, y), ("reference", x.double(), y.double()))
    )
    for a, b in zip(got, want, strict=True):
        good = torch.arange(M, device=device) != 40
        torch.testing.assert_close(a[good].double(), b[good], rtol=1e-5, atol=1e-5)
        assert not a[40].isfinite()


@pytest.mark.parametrize("d", [1, 3, 8, 33])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_rows_of_any_length_and_address(device, d, dtype):
    """Rows are padded to 16 bytes, and data that does not begin at such an address is copied."""
    whole = drawn(M + 1, d, seed=2).to(device, dtype)
    x, y = whole[1:], whole.flatten()[1 : 1 + 40 * d].view(40, d)
    values = {}
    for backend in ("triton", "reference"):
        leaves = [v.clone().requires_grad_() if backend == "reference" else v.requires_grad_()
                  for v in (x.detach(), y.detach())]  # fmt: skip
        found = ops.pair_stats(*leaves, (LSE(), LSE(axis=COL)), backend=backend, scale=0.3)
        values[backend] = [*found, *torch.autograd.grad(sum(v.sum() for v in found), leaves)]
    for got, want in zip(values["triton"], values["reference"], strict=True):
        assert got.shape == want.shape
        assert (got - want).norm() <= 8 * torch.finfo(dtype).eps * want.norm()
