"""Top-k as CUDA kernels, on a GPU or, with --cuda-host, on the CPU: chunks of columns, parts of
rows, long lists, bitwise equal noise, and operators called without the Python layer."""

from functools import partial

import pytest
import torch

from contrastloss.backends import Operands, PairCall, Selection, cuda, position_keys, reference
from contrastloss.backends.encode import encode
from contrastloss.channel import INDEX, LSE, MAX, differs, same
from contrastloss.ops import pair_topk
from contrastloss.program import Program

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
#: columns of the first chunk
FIRST = 1024


pytestmark = pytest.mark.usefixtures("cuda_backend")


def whole(*shape, device, high=3):
    """Integers, whose products are exact, so that ties are broken in the same way."""
    return torch.randint(-high, high + 1, shape).to(device, torch.float32)


def agree(x, y, k, **options):
    """Returns the result, after checking that the reference gives the same."""
    found = pair_topk(x, y, k, **options, backend="cuda")
    want = pair_topk(x, y, k, **options, backend="reference")
    assert torch.equal(found.indices, want.indices)
    assert torch.equal(found.values, want.values)
    return found


# ---- chunks --------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("k", [1, 17, 2 * FIRST])
@pytest.mark.gpu_smoke
def test_every_chunk_has_better_columns(device, dtype, k):
    """Ascending scores in groups of 64 equal ones: every list is full after every chunk."""
    n = 8500
    y = (torch.arange(n, device=device) // 64)[:, None].to(dtype)
    x = torch.tensor([[1.0], [-1.0], [0.0]], device=device, dtype=dtype)
    found = agree(x, y, k)
    step = torch.arange(n // 64, -1, -1, device=device)[:, None] * 64 + torch.arange(64).to(device)
    best = step.flatten()
    assert torch.equal(found.indices[0], best[best < n][:k])
    assert torch.equal(found.indices[1:], torch.arange(k, device=device).expand(2, k))


def test_equal_scores_of_several_chunks(device):
    """Scores equal to the last kept one do not enter the list from a later chunk."""
    y = torch.zeros(5 * FIRST, 1, device=device)
    x = torch.ones(140, 1, device=device)
    y[FIRST - 3 :: FIRST] = 1.0
    found = agree(x, y, 10)
    first = [c * FIRST + FIRST - 3 for c in range(5)]
    assert (found.indices == torch.tensor([*first, *range(5)], device=device)).all()


@pytest.mark.parametrize(
    ("dtype", "n", "k"),
    [
        (torch.float32, 31_744, 100),  # wide chunks, whose lists are sorted in parts
        (torch.float32, 6000, 4096),  # the longest lists in shared memory
        (torch.float32, 6000, 4097),  # lists in device memory
        (torch.float64, 5000, 2048),
        (torch.float64, 5000, 3000),
        (torch.float64, 3000, 4000),  # more than there are columns
    ],
    ids=str,
)
def test_long_lists(device, dtype, n, k):
    """Ascending scores, shuffled scores, and shuffled halves of which the second is above the
    first."""
    g = torch.Generator().manual_seed(1)
    shuffled = [torch.randperm(part, generator=g) for part in (n, n // 2, n - n // 2)]
    halves = torch.cat([shuffled[1], n // 2 + shuffled[2]])
    order = torch.stack([torch.arange(n), shuffled[0], halves]).to(device, dtype)
    agree(torch.eye(3, device=device, dtype=dtype), order.mT.contiguous(), k)


# ---- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (3,)], ids=["rows", "items"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.7, 2.0])
def test_parts(device, monkeypatch, lead, symmetric, share):
    """Whatever number of rows has lists at a time: one; some rows of an item or some items; all."""
    m, n = (300, 300) if symmetric else (270, 700 if lead else 2500)
    items = lead[0] if lead else 1
    monkeypatch.setattr(cuda, "LIST_BYTES", int(share * items * m * n * 8))
    make = partial(whole, device=device)
    x, y = make(*lead, m, 6), None if symmetric else make(*lead, n, 6)
    ids = torch.arange(m, device=device) % 5
    cols = ids if symmetric else torch.arange(n, device=device) % 7
    offsets = torch.arange(items * m + 1, device=device) * 3
    columns = torch.randint(0, n, (3 * items * m,), device=device)
    agree(
        x, y, 20, pairs=(differs("label"),), rows={"label": ids.expand(*lead, m)},
        cols={"label": cols.expand(*lead, n)}, upper=make(*lead, m) + 9.0, lower=-20.0,
        ignore=(offsets, columns), row_scale=2.0 ** make(*lead, m, high=2), scale=-0.5,
        col_scale=2.0 ** make(*lead, n, high=1), row_bias=make(*lead, m), col_bias=make(*lead, n),
        largest=False,
    )  # fmt: skip


def test_cosines_in_parts(device, monkeypatch):
    monkeypatch.setattr(cuda, "LIST_BYTES", 2 << 20)
    for y in (None, torch.randn(3, 400, 12, device=device)):
        x = torch.randn(3, 260, 12, device=device)
        found, want = (
            pair_topk(x, y, 9, cosine=True, scale=4.0, backend=name)
            for name in ("cuda", "reference")
        )
        assert (found.indices == want.indices).float().mean() > 0.999
        torch.testing.assert_close(found.values, want.values, rtol=1e-6, atol=1e-6)


# ---- noise ---------------------------------------------------------------------------------------


def test_a_sample_leaves_out_scores_of_minus_infinity(device):
    """A negative beta would turn them into the best keys."""
    y, bias = torch.zeros(5, 1, device=device), torch.zeros(5, device=device)
    bias[[1, 3]] = -torch.inf
    x = torch.ones(20, 1, device=device)
    found = agree(x, y, 5, sample=-0.5, seed=3, col_bias=bias)
    assert all(sorted(row) == [-1, -1, 0, 2, 4] for row in found.indices.tolist())


@DTYPES
def test_keys_of_samples_are_the_same_bits(device, dtype, monkeypatch):
    """With exact products, only the noise, its product with beta and their sum can differ."""
    monkeypatch.setattr(cuda, "LIST_BYTES", 4 << 20)
    x, y = (whole(2, n, 5, device=device).to(dtype) for n in (150, 2100))
    program = Program((MAX(pairs=(differs(INDEX),)),))
    call = PairCall(Operands(x, y), program, False, dtype)
    positions = [torch.arange(n, device=device).expand(2, n) + (1 << 40) for n in (150, 2100)]
    keys = [position_keys(p, 99, axis) for axis, p in enumerate(positions)]
    selection = Selection(2100, sample=0.7, row_keys=keys[0], col_keys=keys[1])
    values, index = cuda.pair_topk(call, selection)
    want, want_index = reference.pair_topk(call, selection)
    assert torch.equal(index, want_index)
    assert torch.equal(values, want)
    assert (index[:, :, -1] == -1).all()  # a row's own position


# ---- order and timing ----------------------------------------------------------------------------


def test_races(device):
    """A small case for a slow sanitizer: several blocks, tiles, stages and chunks."""
    x, y = (whole(n, 70, device=device).bfloat16() for n in (140, 1200))
    ids = torch.arange(1200, device=device) % 3
    agree(x, y, 40, pairs=(same("a"),), rows={"a": ids[:140]}, cols={"a": ids})


def test_repeats_its_bits(device):
    x, y = torch.randn(200, 32, device=device), torch.randn(5000, 32, device=device)
    first = pair_topk(x, y, 50, cosine=True, backend="cuda")
    for _ in range(3):
        found = pair_topk(x, y, 50, cosine=True, backend="cuda")
        assert torch.equal(found.indices, first.indices)
        assert torch.equal(found.values, first.values)


# ---- without the Python layer --------------------------------------------------------------------


def run(device, program=None, **changes):
    found = {
        "k": 2, "lower": None, "upper": None, "ignore": [], "row_keys": None, "col_keys": None,
        "beta": 0.0, "list_bytes": cuda.LIST_BYTES, **changes,
    }  # fmt: skip
    move = lambda v: v.to(device) if isinstance(v, torch.Tensor) else v  # noqa: E731
    chosen = [[move(t) for t in v] if isinstance(v, list) else move(v) for v in found.values()]
    x, y = (torch.arange(4.0 * n, device=device).view(n, 4) for n in (3, 5))
    code = encode((program or Program((MAX(),))).text).tensors
    return torch.ops.contrastloss.cuda_topk(x, y, *[None] * 5, [], [], *code, False, *chosen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "k: got 0"),
        ({"lower": torch.zeros(2)}, r"lower: got shape \(2\), expected \(3\)"),
        ({"upper": torch.zeros(3).double()}, "upper: got Double, expected Float"),
        ({"ignore": [torch.zeros(4, dtype=torch.int64)]}, "ignore: got 1 tensors, expected 2"),
        ({"ignore": [torch.zeros(3, dtype=torch.int64)] * 2},
         r"ignore offsets: got shape \(3\), expected \(4\)"),
        ({"row_keys": torch.zeros(3, 2, dtype=torch.int32)}, "keys: got only row keys or only"),
        ({"row_keys": torch.zeros(2, dtype=torch.int32), "col_keys": torch.zeros(10).int()},
         r"row_keys: got shape \(2\), expected \(3, 2\)"),
        ({"program": Program((LSE(),))}, "expected one MAX channel"),
        ({"program": Program((MAX(), MAX()))}, "expected one MAX channel"),
    ],
)  # fmt: skip
def test_malformed_operands_are_errors(device, changes, message):
    with pytest.raises(RuntimeError, match=message):
        run(device, **changes)


def test_malformed_offsets_read_nothing_else(device):
    """The values are on the device, so rows get wrong lists, but only from the given columns."""
    offsets, columns = torch.tensor([-5, 1, 1 << 40, 0]), torch.tensor([4, 3])
    values, index = run(device, ignore=[offsets, columns])
    assert index.tolist() == [[3, 2], [4, 2], [4, 3]]
    assert values[2].tolist() == [670.0, 518.0]
