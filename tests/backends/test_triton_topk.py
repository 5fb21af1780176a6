"""Top-k of the Triton backend in Triton's interpreter: borders of tiles and panels, equal bits of
noise, ignore lists; and its kernels compiled for chips that are not present."""

import math
import random

import pytest
import torch

from contrastloss.backends import Operands, PairCall, Selection, position_keys, reference, triton
from contrastloss.channel import INDEX, MAX, differs, precedes, same, within
from contrastloss.ops import gather_scores, pair_topk
from contrastloss.program import Program

if triton.missing():
    pytest.skip("needs triton", allow_module_level=True)

from backends.ahead import SHARED, TARGETS, compiled

from contrastloss.backends.triton import topk

runs = pytest.mark.skipif(
    not (triton.interpreted() or torch.cuda.is_available()),
    reason="no GPU, and TRITON_INTERPRET=1 is not set",
)
compiles = pytest.mark.skipif(triton.interpreted(), reason="TRITON_INTERPRET=1 is set")
#: rows and columns of a tile in the interpreter
TILE = 32


def whole(*shape, device, high=3):
    """Integers, whose products are exact, and often equal."""
    return torch.randint(-high, high + 1, shape).to(device, torch.float32)


def agree(x, y, k, **options):
    """Returns the result, after checking that the reference gives the same."""
    found = pair_topk(x, y, k, **options, backend="triton")
    want = pair_topk(x, y, k, **options, backend="reference")
    assert torch.equal(found.indices, want.indices)
    assert torch.equal(found.values, want.values)
    return found


def panels(monkeypatch, columns, rows):
    """Panels of so many columns, unless 4 k are more, and of about so many rows of all items."""
    monkeypatch.setattr(topk, "COLUMNS", columns)
    monkeypatch.setattr(topk, "CANDIDATES", rows * columns)


# ---- borders -------------------------------------------------------------------------------------


@runs
@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (31, 33, 16), (32, 64, 3), (65, 95, 33)])
@pytest.mark.parametrize("largest", [True, False])
def test_borders_of_tiles(device, m, n, d, largest):
    x, y = whole(m, d, device=device), whole(n, d, device=device)
    agree(x, y, n + 3, largest=largest)
    assert (agree(x, None, 2, largest=largest).indices[:, 1] >= 0).all() == (m > 2)


TESTS = [(), (same("a"),), (differs("a"), differs(INDEX)), (precedes("a"),), (within(INDEX, 9),)]


def drawn(seed, device):
    """x, y, k and options of a call with everything."""
    choose = random.Random(seed)
    lead = choose.choice([(), (2,), (2, 2)])
    m, n = (choose.choice([TILE, 2 * TILE]) + choose.randint(-1, 1) for _ in range(2))
    symmetric = seed % 2 == 0
    n = m if symmetric else n + choose.choice([0, 40])
    k = choose.choice([1, 5, 2 * n])

    def make(*shape, high=3):
        return whole(*lead, *shape, device=device, high=high)

    x, y = (make(size, 5).to(choose.choice([torch.float32, torch.float16])) for size in (m, n))
    counts = torch.randint(0, 2 * topk.LISTED if seed == 1 else 9, (math.prod(lead) * m,))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device)
    pairs = TESTS[seed % len(TESTS)]
    ids = [make(size).to(torch.int64) for size in (m, n)]
    called = any(test.name == "a" for test in pairs)
    options = {
        "pairs": pairs,
        "rows": {"a": ids[0]} if called else None,
        "cols": {"a": ids[0] if symmetric else ids[1]} if called else None,
        "lower": make(m) - 12.0,
        "upper": make(m) + 9.0,
        "ignore": (offsets, torch.randint(0, n, (int(offsets[-1]),), device=device)),
        "scale": -0.5,
        "row_scale": 2.0 ** make(m, high=1),
        "col_scale": 2.0 ** make(n, high=1),
        "row_bias": make(m),
        "col_bias": make(n),
    }
    if choose.random() < 0.5:
        options |= {"sample": choose.choice([0.0, 1, -0.7]), "seed": seed}
    else:
        options["largest"] = choose.random() < 0.5
    return x, None if symmetric else y.to(x.dtype), k, options


@runs
@pytest.mark.parametrize("seed", range(8))
def test_everything_in_panels(device, monkeypatch, seed):
    """Some rows of an item, or some items at a time; the last panel has few columns."""
    columns = TILE + seed % 3 - 1
    panels(monkeypatch, columns, [9, TILE + 1, 3 * TILE][seed % 3])
    x, y, k, options = drawn(seed, device)
    agree(x, y, k, **options)


@runs
def test_equal_scores_of_several_panels(device, monkeypatch):
    """The smaller column comes first, and 0 equals -0."""
    panels(monkeypatch, 40, 50)
    x, y = torch.ones(33, 1, device=device), torch.zeros(150, 1, device=device)
    sign = torch.where(torch.arange(150, device=device) % 2 == 0, -1.0, 1.0)
    assert agree(x, y, 9, col_scale=sign).indices.tolist() == [[*range(9)]] * 33
    y[37::40] = 1.0
    want = [37, 77, 117, *range(6)]
    assert agree(x, y, 9).indices.tolist() == [want] * 33


@runs
@pytest.mark.parametrize("ascending", [True, False])
def test_every_panel_has_better_columns(device, monkeypatch, ascending):
    panels(monkeypatch, 40, 1)
    y = torch.arange(130.0, device=device)[:, None]
    x = torch.tensor([[1.0], [-1.0]], device=device)
    found = agree(x, y if ascending else -y, 7).indices
    assert found[0 if ascending else 1].tolist() == [*range(129, 122, -1)]


# ---- candidates ----------------------------------------------------------------------------------


@runs
def test_nan_and_infinity_are_never_neighbours(device):
    x, y = torch.ones(3, 2, device=device), torch.ones(40, 2, device=device)
    y[::2], y[1], y[3] = math.nan, -math.inf, math.inf
    x[1, 0] = math.nan
    bias = torch.zeros(40, device=device)
    bias[[5, 7]] = -math.inf
    for options in ({}, {"largest": False}, *({"sample": b, "seed": 1} for b in (0.0, -0.5, 2.0))):
        found = agree(x, y, 25, col_bias=bias, **options).indices
        assert (found[1] == -1).all()
        infinite = {3} if options.get("largest") is False else {1, 5, 7}
        assert not ({*range(0, 40, 2)} | infinite) & {*found.flatten().tolist()}
    bounds = torch.tensor([math.inf, math.nan, math.nan], device=device)
    assert agree(x, y, 25, upper=bounds, lower=-bounds).indices[0, 0] == 3
    assert agree(x, y, 25, lower=bounds).indices[0].tolist() == [3, *[-1] * 24]


@runs
def test_offsets_that_do_not_ascend_lead_nowhere_else(device):
    x, y = (torch.arange(4.0 * n, device=device).view(n, 4) for n in (3, 5))
    around = torch.tensor([3, 2, 1, 0, 3, 4, 3, 0, 1], device=device)
    lists = torch.tensor([-5, 1, 1 << 40, 0], device=device), around[5:7]
    call = PairCall(Operands(x, y), Program((MAX(),)), False, x.dtype)
    values, index = triton.pair_topk(call, Selection(2, ignore=lists))
    assert index.tolist() == [[3, 2], [4, 2], [4, 3]]
    assert values[2].tolist() == [670.0, 518.0]


@runs
def test_cosines(device, monkeypatch):
    """With other sums than the reference's: the same scores, whatever columns tie."""
    panels(monkeypatch, 50, 20)
    x, y = torch.randn(2, 40, 12, device=device), torch.randn(2, 70, 12, device=device)
    x[1, 3] = 0.0
    for other in (y, None):
        given = {"cosine": True, "scale": 4.0}
        found = pair_topk(x, other, 9, **given, backend="triton")
        want = pair_topk(x, other, 9, **given, backend="reference")
        again = gather_scores(x, x if other is None else y, found.indices, **given)
        for values in (found.values, again):
            torch.testing.assert_close(values, want.values, rtol=1e-6, atol=1e-6)
        assert found.indices[1, 3].tolist() == want.indices[1, 3].tolist()


@runs
def test_gradients(device):
    x, y = (whole(n, 5, device=device).requires_grad_() for n in (9, 40))
    found = []
    for backend in ("triton", "reference"):
        values = pair_topk(x, y, 4, sample=0.5, seed=2, cosine=True, backend=backend).values
        found.append(torch.autograd.grad(values.square().sum(), (x, y)))
    torch.testing.assert_close(*found)


@runs
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("lead", [(), (0,), (3,)])
def test_nothing_to_choose_from(device, shape, lead):
    x, y = (torch.ones(*lead, size, 3, device=device) for size in shape)
    found = agree(x, y, 2)
    assert found.indices.shape == (*lead, shape[0], 2)
    assert (found.indices == -1).all()


def test_it_declines_fp64():
    x = torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="'triton' cannot serve this call"):
        pair_topk(x, x, 2, backend="triton")


# ---- noise ---------------------------------------------------------------------------------------


def noisy(device, row_keys, col_keys, beta, x, y, pairs=()):
    """The keys of all columns, checked to be the reference's bits."""
    call = PairCall(Operands(x, y), Program((MAX(pairs=pairs),)), False, x.dtype)
    keys = row_keys.to(device), col_keys.to(device)
    chosen = Selection(len(col_keys), sample=beta, row_keys=keys[0], col_keys=keys[1])
    (values, index), want = (b.pair_topk(call, chosen) for b in (triton, reference))
    assert torch.equal(index, want[1])
    assert torch.equal(values, want[0])
    return values, index


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_keys_of_samples_are_the_same_bits(device, dtype, monkeypatch):
    """With exact products, only the noise, its product with beta and their sum can differ."""
    monkeypatch.setattr(topk, "NOISY", 16)
    x, y = (whole(n, 5, device=device).to(dtype) for n in (70, 2 * TILE + 1))
    positions = [torch.arange(len(v)) + (1 << 40) for v in (x, y)]
    keys = [position_keys(p, 99, axis) for axis, p in enumerate(positions)]
    _, index = noisy(device, *keys, 0.7, x, y, (differs(INDEX),))
    assert (index[: len(y), -1] == -1).all()  # a row's own position


def preimage(h):
    """The number that ``mixed`` takes to h."""
    mask = 0xFFFFFFFF

    def unshifted(v):
        return v ^ v >> 15 ^ v >> 30

    v = unshifted(h) * pow(0xD35A2D97, -1, 1 << 32) & mask
    v = unshifted(v) * pow(0x21F0AAAD, -1, 1 << 32) & mask
    return v ^ v >> 16


@runs
def test_noise_of_the_first_and_last_numbers(device):
    """The ends of the range of random bits, and the borders of their halves."""
    ends = [0, 1, 0xFFFF, 0x10000, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1]
    keys = torch.tensor([[0, preimage(h)] for h in ends])
    x, y = torch.zeros(1, 1, device=device), torch.zeros(len(ends), 1, device=device)
    values, index = noisy(device, torch.zeros(1, 2, dtype=torch.int64), keys, 1.0, x, y)
    assert index[0].tolist() == [*range(len(ends))]
    w = (torch.tensor([0, (1 << 32) - 1], dtype=torch.float64) + 0.5) / 2**32
    torch.testing.assert_close(
        values[0, [0, -1]].cpu().double(), -(-(-w).log1p()).log(), rtol=1e-6, atol=0
    )


# ---- launches ------------------------------------------------------------------------------------


class Recorded:
    """Replaces a kernel that is not launched by a list of its grids."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *args, **options: None


def test_batches_of_any_number(monkeypatch):
    """Grids have one axis, as the others end at 65,535."""
    record = Recorded()
    monkeypatch.setattr(topk, "candidates_kernel", record)
    monkeypatch.setattr(topk, "CANDIDATES", 200_000)
    x = torch.ones(70_000, 1, 16)
    given = PairCall(Operands(x, x), Program((MAX(),)), False, x.dtype)
    found = topk.pair_topk(given, Selection(1))
    assert found[1].shape == (70_000, 1, 1)
    assert record.grids == [(70_000,)]


def call(dtype, rows, sampled, d=512):
    """A call with ids, bounds and lists, and its selection."""
    x, ids = torch.zeros(rows, d), torch.zeros(rows, dtype=torch.int64)
    program = Program((MAX(pairs=(differs("a"),)),), ("a",), ("a",))
    given = Operands(x, x.clone(), torch.ones(()), rows=(ids,), cols=(ids,))
    bound, keys = torch.zeros(rows), torch.zeros(rows, 2, dtype=torch.int64)
    noise = (0.5, keys, keys) if sampled else ()
    lists = torch.zeros(rows + 1, dtype=torch.int64), ids[:0]
    return PairCall(given, program, True, dtype), Selection(9, bound, bound, lists, *noise)


def every(architecture):
    marks = () if architecture == "sm_90" else pytest.mark.extra
    return pytest.param(architecture, marks=marks)


@compiles
@pytest.mark.parametrize("rows", [256, 1100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("architecture", [*map(every, TARGETS)])
def test_kernels_fit(monkeypatch, tmp_path, architecture, dtype, rows):
    """No kernel spills registers, and none for NVIDIA fuses a multiplication and an addition."""
    for sampled in (False, True):
        with compiled(monkeypatch, architecture) as launches:
            topk.pair_topk(*call(dtype, rows, sampled))
        own = [one for one in launches if one.kernel in ("candidates_kernel", "ignore_kernel")]
        assert len(own) == 2
        for one in own:
            assert one.binary.metadata.shared <= SHARED[architecture], one.label
            assert one.registers(tmp_path)[1] == 0, f"{one.label} spills"
            assert "fma" not in one.binary.asm.get("ptx", ""), one.label
        if dtype == torch.bfloat16 and architecture == "sm_90" and rows > 1024:
            assert "wgmma.mma_async" in own[0].binary.asm["ptx"]
            assert "cp.async.bulk.tensor" in own[0].binary.asm["ptx"]


@compiles
def test_sizes_are_not_part_of_kernels(monkeypatch):
    panels(monkeypatch, 300, 400)
    with compiled(monkeypatch, "sm_90") as launches:
        for rows in (1, 16, 255, 1000, 1024):
            topk.pair_topk(*call(torch.bfloat16, rows, True, d=64))
    for kernel in ("candidates_kernel", "ignore_kernel"):
        assert len({one.binary.hash for one in launches if one.kernel == kernel}) == 1
