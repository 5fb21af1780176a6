"""Columns that each row chooses, on the CUDA backend: teams of every size, sums of a warp and of a
block, more work than blocks, invalid indices. More tests are in tests/ops/test_gather_scores.py."""

import pytest
import torch

import contrastloss
from contrastloss.backends import NAMES, Operands, PairCall, cuda, reference
from contrastloss.ops import gather_scores
from contrastloss.program import Program

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])


pytestmark = pytest.mark.usefixtures("cuda_backend")


def problem(device, dtype, m, n, d, k, lead=(), symmetric=False):
    """Operands in the order of NAMES, and an index."""
    n = m if symmetric else n
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    x, y = (torch.randn(*lead, r, d, device=device).to(dtype) for r in (m, n))
    vectors = [torch.rand(*lead, r, device=device, dtype=stat) + 0.5 for r in (m, n, m, n)]
    scale = torch.tensor(1.5, device=device, dtype=stat)
    index = torch.randint(-1, n, (*lead, m, k), device=device)
    return [x, None if symmetric else y, scale, *vectors], index


def run(backend, operands, index, cosine=True, **options):
    """The scores, and the gradients of a fixed combination of them."""
    leaves = [v if v is None else v.detach().clone().requires_grad_() for v in operands]
    named = dict(zip(NAMES[2:], leaves[2:], strict=True))
    out = gather_scores(*leaves[:2], index, cosine=cosine, backend=backend, **named, **options)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(index.shape, generator=generator).to(out).masked_fill(index < 0, 0.0)
    grads = torch.autograd.grad(out, [v for v in leaves if v is not None], weights)
    return [out, *grads]


def compare(operands, index, cosine=True):
    got = run("cuda", operands, index, cosine)
    wide = [v if v is None else v.double() for v in operands]
    want = run("reference", wide, index, cosine)
    assert torch.equal(got[0].isinf(), index < 0)
    got[0], want[0] = (v.masked_fill(index < 0, 0.0) for v in (got[0], want[0]))
    for one, exact in zip(got, want, strict=True):
        rtol = {torch.float64: 1e-13, torch.float32: 2e-6}.get(one.dtype)
        rtol = rtol or torch.finfo(one.dtype).eps  # rounded once, at the end
        rtol *= 1 if one.ndim else 10  # all terms of d scale cancel each other
        assert (one - exact).norm() <= rtol * exact.norm() + 1e-14


@pytest.mark.gpu_smoke
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 7, 8, 24, 33, 64, 130, 256, 300, 520])
def test_teams(device, d, dtype):
    """Parts of a warp and whole warps; vectors several times as wide as a team, which can or cannot
    be read 16 bytes at a time."""
    operands, index = problem(device, dtype, 11, 13, d, 9)
    compare(operands, index, cosine=d not in (1, 33))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_that_begin_anywhere(device, dtype):
    operands, index = problem(device, dtype, 11, 13, 32, 9)
    for k in (0, 1):
        v = operands[k]
        moved = torch.empty(v.numel() + 1, device=device, dtype=dtype)[1:].view_as(v).copy_(v)
        operands[k] = moved
        assert moved.data_ptr() % 16
    got, want = (run("cuda", [*some, *operands[2:]], index) for some in
                 (operands[:2], [v.clone() for v in operands[:2]]))  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    compare(operands, index)


@SYMMETRIC
@pytest.mark.gpu_smoke
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(90, 5, 70), (4, 300, 400), (6, 7, 300)])
def test_many_entries(device, m, n, k, dtype, symmetric):
    """Many entries per column, per row, and both: the sums of a block."""
    operands, index = problem(device, dtype, m, n, 24, k, (2,), symmetric)
    compare(operands, index)


def test_all_entries_of_one_column(device):
    operands, index = problem(device, torch.float32, 60, 100, 70, 40)
    index[:] = 3
    compare(operands, index)


def test_more_rows_than_blocks(device):
    compare(*problem(device, torch.float32, 1700, 1800, 3, 5))
    compare(*problem(device, torch.float32, 210, 2, 3, 300))


@SYMMETRIC
@pytest.mark.parametrize("lead", [(), (3,)], ids=["", "batch"])
def test_an_index_of_nothing(device, lead, symmetric):
    """Calls the library directly. Invalid indices read neither memory beyond the columns nor
    columns of the next batch item."""
    x, y = (torch.randn(*lead, 4, 3, device=device) for _ in range(2))
    call = PairCall(Operands(x, None if symmetric else y), Program(()), True, x.dtype)
    wrong = [4, -2, 1 << 31, 1 << 32, 1 << 60, -(1 << 63)]
    index = torch.tensor([0, *wrong], device=device).expand(*lead, 4, -1)
    grad = torch.ones(index.shape, device=device)
    grad[..., 1:] = torch.nan
    out = cuda.gather_scores_forward(call, index)
    assert (out[..., 1:] == -torch.inf).all()
    needs = frozenset({"x"} if symmetric else {"x", "y"})
    found = cuda.gather_scores_backward(call, index, grad, needs)
    first = index[..., :1].contiguous()
    torch.testing.assert_close(out[..., :1], reference.gather_scores_forward(call, first))
    want = reference.gather_scores_backward(call, first, torch.ones_like(grad[..., :1]), needs)
    for name in needs:
        torch.testing.assert_close(getattr(found, name), getattr(want, name))


@SYMMETRIC
@pytest.mark.parametrize("cosine", [False, True])
def test_each_gradient_alone(device, cosine, symmetric):
    """Each gradient alone is bitwise equal to the same gradient computed together with all
    others."""
    operands, index = problem(device, torch.float32, 11, 13, 9, 7, (2,), symmetric)
    call = PairCall(Operands(*operands), Program(()), cosine, torch.float32)
    grad = torch.randn(index.shape, device=device)
    names = [n for n, v in zip(NAMES, operands, strict=True) if v is not None]
    every = cuda.gather_scores_backward(call, index, grad, frozenset(names))
    for name in names:
        alone = cuda.gather_scores_backward(call, index, grad, frozenset({name}))
        assert torch.equal(getattr(alone, name), getattr(every, name))
        assert all(getattr(alone, other) is None for other in names if other != name)


@SYMMETRIC
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(150, 4, 40), (40, 90, 12)])
def test_repeats_its_bits(device, m, n, k, dtype, symmetric):
    operands, index = problem(device, dtype, m, n, 40, k, (), symmetric)
    first = run("cuda", operands, index)
    for _ in range(3):
        assert all(map(torch.equal, run("cuda", operands, index), first))


@SYMMETRIC
def test_races(device, symmetric):
    """A small case for a slow sanitizer: sums of warps and of a block."""
    for k in (3, 130):
        compare(*problem(device, torch.bfloat16, 5, 4, 70, k, (), symmetric))


def test_products_of_narrower_numbers(device):
    """Embeddings are rounded for the products; gradients are not rounded."""
    operands, index = problem(device, torch.float32, 20, 30, 24, 8)
    got = run("cuda", operands, index, compute_dtype=torch.bfloat16)
    rounded = [*(v.bfloat16().float() for v in operands[:2]), *operands[2:]]
    for one, exact in zip(got, run("cuda", rounded, index), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_of_sampled_candidates(device, dtype):
    inputs = [torch.randn(r, 40, device=device).to(dtype) for r in (30, 50)]
    index = torch.randint(0, 50, (30, 20), device=device)
    found = []
    for backend in ("cuda", "reference"):
        leaves = [v.clone().requires_grad_() for v in inputs]
        value = contrastloss.SampledContrastiveLoss(backend=backend)(*leaves, index)
        found.append([value, *torch.autograd.grad(value, leaves)])
    for got, want in zip(*found, strict=True):
        rtol = 1e-5 if got.dtype == torch.float32 else torch.finfo(dtype).eps
        assert (got - want).norm() <= rtol * want.norm()
