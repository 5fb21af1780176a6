"""The CUDA backend, on a GPU or, with --cuda-host, on the CPU. In addition to the sweep: the
special kernels for programs of losses, both ways to shift an exponential, and declined programs."""

import ctypes

import pytest
import torch
from backends.test_sweep import disagreements, function_of
from oracle import VECTORS, differences, problem

import contrastloss
import contrastloss.testing
from contrastloss import ops
from contrastloss.backends import Operands, PairCall, cuda, h_blocks
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs, form, same

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])

NEGATIVES, POSITIVES = (differs(INDEX),), (same(INDEX),)
LABELS, OTHERS = (same("label"),), (differs("label"),)
PROGRAMS = {
    "log": (LSE(pairs=NEGATIVES),),
    "log of columns": (LSE(pairs=NEGATIVES, axis=COL),),
    "log and sum": (LSE(pairs=NEGATIVES), LSE(pairs=NEGATIVES, axis=COL), SUM(pairs=POSITIVES)),
    "log and sums": (LSE(pairs=OTHERS), SUM("one", pairs=LABELS), SUM(pairs=LABELS)),
    "two logs": (LSE(2.0, pairs=OTHERS), LSE(-1.0, pairs=LABELS)),
    "two logs and sum": (LSE(1.0), LSE(2.0), SUM(pairs=LABELS)),
    "sum and softplus": (SUM("softplus", pairs=NEGATIVES), SUM(pairs=POSITIVES)),
    "any": (
        EXPECT(2.0, axis=COL, pairs=OTHERS),
        SUM("relu2", sign=-1.0, shift="margin", weight=(form("soft"),)),
        MAX(pairs=LABELS),
        MAX(axis=COL),
    ),
}


pytestmark = pytest.mark.usefixtures("cuda_backend")


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """A backward pass in one operator, or in one for each block of H."""
    if request.param == "many blocks":
        monkeypatch.setattr(h_blocks, "ROWS", 64)
        monkeypatch.setattr(h_blocks, "ELEMENTS", 64 * 128)


@SYMMETRIC
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.gpu_smoke
def test_programs(device, blocks, name, dtype, symmetric):
    """Several blocks and tiles that do not divide the sizes; rows that can be read 16 bytes at a
    time and rows that cannot."""
    cases = [
        (f"{size} {cosine}", PROGRAMS[name], {**size, "vectors": vectors, "cosine": cosine})
        for size, vectors, cosine in (
            ({"m": 130, "n": 150, "d": 24}, (), True),
            ({"m": 150, "n": 270, "d": 17}, VECTORS, False),
            ({"m": 9, "n": 14, "d": 70, "lead": (2,)}, VECTORS, True),
        )
    ]
    disagreements("cuda", cases, device=device, dtype=dtype, symmetric=symmetric)


@SYMMETRIC
@pytest.mark.parametrize(
    ("name", "dtype"), [("log and sum", torch.bfloat16), ("any", torch.float32)], ids=str
)
def test_races(device, blocks, name, dtype, symmetric):
    """A small case for a slow sanitizer: several blocks, tiles and stages."""
    size = {"m": 130, "n": 140, "d": 70, "vectors": VECTORS}
    cases = [("", PROGRAMS[name], size)]
    disagreements("cuda", cases, device=device, dtype=dtype, symmetric=symmetric)


@SYMMETRIC
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0, -100.0])
def test_shifts(device, dtype, scale, symmetric):
    """Scores within the range of one shift and far beyond it. The tolerance follows the scale."""
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    channels = (LSE(), LSE(axis=COL), EXPECT())
    x = torch.randn(70, 24, device=device).to(dtype)
    y = None if symmetric else torch.randn(90, 24, device=device).to(dtype)
    options = {"scale": torch.tensor(scale, dtype=stat, device=device), "cosine": True}
    got = ops.pair_stats(x, y, channels, backend="cuda", **options)
    wide = {**options, "scale": options["scale"].double()}
    want = ops.pair_stats(
        x.double(), None if y is None else y.double(), channels, backend="reference", **wide
    )
    eps = torch.finfo(stat).eps
    for g, w in zip((*got[:2], *got[2]), (*want[:2], *want[2]), strict=True):
        assert ((g - w).abs() <= 30 * eps * max(1.0, abs(scale))).all()


@SYMMETRIC
@pytest.mark.parametrize("pairs", [(), LABELS], ids=["all", "labels"])
@pytest.mark.parametrize("spread", [1.0, 10.0, 300.0])
def test_shifts_of_rows_and_columns(device, spread, pairs, symmetric):
    """Logits and log-sum-exps of rows and columns near each other, near enough for one exponential,
    and too far apart for it; by labels some rows and columns have no pairs. A tile is whole."""
    x = torch.randn(140, 24, device=device)
    y = None if symmetric else torch.randn(150, 24, device=device)
    n = len(x if y is None else y)
    biases = [spread * torch.randn(len(x), device=device), spread * torch.randn(n, device=device)]
    labels = torch.arange(len(x), device=device) % 2, torch.ones(n, device=device).long()
    channels = LSE(pairs=pairs), LSE(pairs=pairs, axis=COL)
    found = []
    for backend, dtype in (("cuda", torch.float32), ("reference", torch.float64)):
        given = [v.to(dtype).requires_grad_() for v in (x, y) if v is not None]
        row_bias, col_bias = (v.to(dtype) for v in biases)
        row, col = ops.pair_stats(
            given[0], given[1] if len(given) > 1 else None, channels, scale=100.0, cosine=True,
            row_bias=row_bias, col_bias=col_bias, rows={"label": labels[0]} if pairs else None,
            cols={"label": labels[1]} if pairs else None, backend=backend,
        )  # fmt: skip
        total = sum(v[v.isfinite()].tanh().sum() + 1e-3 * v[v.isfinite()].sum() for v in (row, col))
        found.append([row, col, *torch.autograd.grad(total, given)])
    for got, want in zip(*found, strict=True):
        live = want.isfinite()
        assert torch.equal(got.isfinite(), live)
        error = (got.double() - want)[live].norm()
        assert error <= 30 * (100 + spread) * torch.finfo(torch.float32).eps * want[live].norm()


@pytest.mark.parametrize(
    ("dtype", "factor", "rtol"),
    [
        (torch.float32, 2.0**100, 1e-5),
        (torch.bfloat16, 2.0**100, 1e-2),
        (torch.float64, 2.0**700, 1e-12),
    ],
    ids=str,
)
def test_cosines_of_rows_whose_squares_overflow(device, dtype, factor, rtol):
    """Values and gradients equal those of scaled-down rows, except that x's own gradient is smaller
    by the factor."""
    x, y = torch.randn(9, 24, device=device).to(dtype), torch.randn(14, 24, device=device).to(dtype)
    found = []
    for by in (1.0, factor):
        leaves = [(x * by).requires_grad_(), y.clone().requires_grad_()]
        (value,) = ops.pair_stats(*leaves, (LSE(),), cosine=True, backend="cuda")
        dx, dy = torch.autograd.grad(value.sum(), leaves)
        found.append((value.detach(), dx * by, dy))
    for got, want in zip(*reversed(found), strict=True):
        assert want.any()
        assert (got - want).norm() <= rtol * want.norm()


def test_rows_without_pairs_and_values_that_are_none(device):
    """-inf and zero gradients; NaN only in the rows and columns that contain it."""
    x, y = torch.randn(2, 140, 8, device=device).unbind()
    x[3], y[5] = torch.nan, torch.nan
    labels = torch.zeros(140, dtype=torch.int64, device=device)
    labels[7] = 1
    program = (LSE(pairs=LABELS), LSE(pairs=LABELS, axis=COL), MAX(pairs=LABELS))
    ids = {"label": labels}
    for leaf in (x, y):
        leaf.requires_grad_()
    row, col, best = ops.pair_stats(
        x, y, program, rows=ids, cols={"label": 2 * labels}, backend="cuda"
    )
    assert row[7] == col[7] == best.value[7] == -torch.inf
    assert best.index[7] == -1
    assert row.isnan().nonzero().ravel().tolist() == [k for k in range(140) if k != 7]
    keep = torch.arange(140, device=device) != 5
    (clean,) = ops.pair_stats(x, y[keep], program[:1], rows=ids,
                              cols={"label": 2 * labels[keep]}, backend="cuda")  # fmt: skip
    assert clean.isnan().nonzero().ravel().tolist() == [3]
    (grad,) = torch.autograd.grad(clean[[0, 7]].sum(), x)
    own = torch.zeros(140, dtype=torch.bool, device=device)
    own[[0, 3]] = True  # row 3 is NaN
    assert not grad[~own].any()
    assert grad[0].isfinite().all()


@pytest.mark.parametrize("cls", [contrastloss.CLIPLoss, contrastloss.NTXentLoss])
def test_repeats_its_bits(device, cls):
    x, y = torch.randn(2, 300, 40, device=device).unbind()
    found = []
    for _ in range(3):
        leaves = [v.clone().requires_grad_() for v in (x, y)]
        value = cls(backend="cuda")(*leaves)
        value.backward()
        found.append([value.detach(), *(v.grad for v in leaves)])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tuple(LSE(k + 1.0) for k in range(13)), "at most 12 channels, not 13"),
        (tuple(LSE(pairs=LABELS * k) for k in range(1, 8)), "at most 24 tests, not 28"),
        (tuple(LSE(weight=(form("soft"),) * k) for k in range(1, 6)), "at most 12 weights, not 15"),
        ((LSE(pairs=tuple(same(f"label{k}") for k in range(13))),), "at most 12 ids, not 13"),
    ],
    ids=["channels", "tests", "weights", "ids"],
)
def test_programs_that_are_too_long(device, program, message):
    x = torch.randn(4, 3, device=device)
    ids, soft = torch.arange(4, device=device), torch.rand(4, 2, device=device)
    named = set().union(*(c.called["row"] for c in program))
    given = {n: soft if n == "soft" else ids for n in named}
    with pytest.raises(RuntimeError, match=f"backend: 'cuda' cannot serve .* {message}"):
        ops.pair_stats(x, x, program, rows=given, cols=given, backend="cuda")


def test_the_programs_limits_are_those_of_the_kernels(device):
    """The library itself rejects one channel more than the Python layer accepts."""
    x = torch.randn(4, 3, device=device)
    program = contrastloss.program.Program((LSE(),) * (cuda.CHANNELS + 1))
    call = PairCall(Operands(x, x), program, False, x.dtype)
    with pytest.raises(RuntimeError, match="more channels than a kernel supports"):
        cuda.pair_stats_forward(call)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_begin_between_multiples_of_16_bytes(device, dtype):
    """Contiguous views with an odd offset give the bits of copies."""
    found = []
    for offset in (0, 1):
        torch.manual_seed(3)
        x, y = (torch.randn(40 * 16, device=device, dtype=dtype) for _ in "xy")
        x, y = (torch.cat([v[:offset], v])[offset:].view(40, 16).requires_grad_() for v in (x, y))
        assert x.data_ptr() % 16 == offset * x.itemsize
        values = ops.pair_stats(x, y, PROGRAMS["log and sum"], cosine=True, backend="cuda")
        best = ops.pair_topk(x, y, 3, backend="cuda")
        grads = torch.autograd.grad(sum(v.sum() for v in values), (x, y))
        found.append([*values, *best, *grads])
    assert all(map(torch.equal, *found))


@pytest.fixture
def tf32():
    """The user lets fp32 products be rounded to TF32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = before


def in_bf16(call):
    return {n: v.bfloat16().float() if n in "xy" and v is not None else v for n, v in call.items()}


@SYMMETRIC
@pytest.mark.parametrize("name", ["log and sums", "any"])
def test_products_in_tf32(device, name, symmetric, tf32):
    """Numbers of bf16 are also numbers of TF32, so their products are as right as those of fp32.
    Others are rounded, by half a unit in the 11th bit: the setting is obeyed."""
    # on a GPU the library rounds H, too
    rounding = None if device.type == "cpu" else 2.0**-9
    for m, n, d in ((130, 150, 24), (31, 129, 17), (257, 64, 65), (1, 40, 4)):
        size = {"m": m, "n": n, "d": d, "dtype": torch.float32, "vectors": VECTORS}
        call = problem(PROGRAMS[name], **size, symmetric=symmetric, device=device)
        assert not differences(function_of("cuda"), in_bf16(call), rtol=rounding)
    x = torch.tensor([[1 + 2.0**-12]], device=device)
    (lse,) = ops.pair_stats(x, x, (LSE(),), backend="cuda")
    assert lse.item() == pytest.approx(1.0, rel=1e-6)  # otherwise 1 + 2^-11


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize(("name", "launches"), [("clip", 6), ("siglip", 6), ("nt_xent", 5)])
def test_launches(name, launches, learned):
    """The kernels of a small step: measure and pass, measure and H, then one for each gradient of
    embeddings and one for the sums of a learned temperature."""
    if cuda.DEVICE != "cpu":
        pytest.skip("only the emulation counts launches")
    cls = contrastloss.losses.LOSSES[name]
    subject = contrastloss.testing.Subject(cls)
    leaves = subject.leaves(subject.inputs(n=96, dtype=torch.float32))
    given = {"logit_scale": torch.ones((), requires_grad=True)} if learned else {}
    count = ctypes.c_int64.in_dll(ctypes.CDLL(str(cuda.LIBRARY)), "cuda_host_launches")
    before = count.value
    cls(backend="cuda")(*leaves, **given).backward()
    assert count.value - before == launches + learned
