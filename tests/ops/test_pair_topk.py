"""``pair_topk`` on every backend that has it, against a stable sort of explicit scores."""

import math

import pytest
import torch
from layouts import column_major

from contrastloss.backends import Operands, PairCall, gumbel, position_keys
from contrastloss.backends.choose import BACKENDS
from contrastloss.channel import INDEX, MAX, differs, precedes, same, within
from contrastloss.ops import PairTopK, TopK, merge_topk, pair_topk
from contrastloss.program import Program

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.half]
)


#: Triton serves no fp64, and its interpreter takes minutes: tests/backends/test_triton_topk.py
pytestmark = [
    pytest.mark.operators("pair_topk"),
    pytest.mark.among("cpu", "cuda", "reference"),
]


def test_who_has_it():
    """Also under a named backend, every loss may use it."""
    assert all(hasattr(backend, "pair_topk") for backend in BACKENDS.values())


def whole(shape, dtype, device, high=3, seed=0):
    """Small integers, whose products and sums are exact in every dtype, and often equal."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-high, high + 1, shape, generator=g).to(device, dtype)


def oracle(s, k, *, mask=None, largest=True, lower=None, upper=None, skip=0):
    """The k best of fp64 scores. The sort is stable, so of equal scores the smaller column wins."""
    keys = s if largest else -s
    keys = torch.where(keys.isnan(), -torch.inf, keys)
    if mask is not None:
        keys = keys.masked_fill(~mask, -torch.inf)
    for bound, beyond in ((lower, torch.lt), (upper, torch.gt)):
        if bound is not None:
            bound = torch.as_tensor(bound, device=s.device, dtype=s.dtype)
            keys = keys.masked_fill(beyond(s, bound.expand(s.shape[:-1])[..., None]), -torch.inf)
    missing = max(0, k + skip - keys.shape[-1])
    best, index = keys.sort(dim=-1, descending=True, stable=True)
    best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)[..., skip : k + skip]
    index = torch.nn.functional.pad(index, (0, missing), value=-1)[..., skip : k + skip]
    index = torch.where(best == -torch.inf, -1, index)
    return torch.where(index < 0, -torch.inf, best if largest else -best), index


def check(found, want):
    assert isinstance(found, TopK)
    assert torch.equal(found.indices, want[1])
    assert torch.equal(found.values.double(), want[0])


# ---- values --------------------------------------------------------------------------------------

#: rows of one tile and less, columns of several tiles, more columns than one thread processes
SIZES = [(1, 1, 1), (7, 5, 3), (70, 433, 9), (3, 9000, 4), (433, 1, 2), (900, 700, 20)]


@DTYPES
@pytest.mark.parametrize(("m", "n", "d"), SIZES)
@pytest.mark.parametrize("largest", [True, False])
def test_the_best_and_where_they_are(backend, device, dtype, m, n, d, largest):
    x, y = whole((m, d), dtype, device), whole((n, d), dtype, device, seed=1)
    s = x.double() @ y.double().mT
    for k in (1, 10, 300):
        check(pair_topk(x, y, k, largest=largest, backend=backend), oracle(s, k, largest=largest))


def test_many_are_asked_for(backend, device):
    x, y = whole((5, 6), torch.float32, device), whole((6000, 6), torch.float32, device, seed=1)
    check(pair_topk(x, y, 4096, backend=backend), oracle(x.double() @ y.double().mT, 4096))


def test_scales_and_biases(backend, device):
    x, y = whole((60, 5), torch.float32, device), whole((800, 5), torch.float32, device, seed=1)
    a, b = (
        2.0 ** whole((60,), torch.float32, device, 2, 2),
        2.0 ** whole((800,), torch.float32, device, 2, 3),
    )
    beta, gamma = (
        whole((60,), torch.float32, device, 9, 4),
        whole((800,), torch.float32, device, 9, 5),
    )
    gamma[::7] = -torch.inf  # excludes the column
    gamma[3] = math.nan
    s = -0.5 * (x.double() @ y.double().mT) * a[:, None] * b + beta[:, None] + gamma
    found = pair_topk(
        x, y, 30, scale=-0.5, row_scale=a, col_scale=b, row_bias=beta, col_bias=gamma,
        backend=backend,
    )  # fmt: skip
    check(found, oracle(s, 30))


def test_cosine(backend, device):
    x = torch.randn(50, 24, device=device, dtype=torch.float64)
    y = torch.randn(700, 24, device=device, dtype=torch.float64)
    x[3] = 0.0  # all of its cosines are 0: columns in order
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).mT
    found = pair_topk(x, y, 20, cosine=True, scale=3.0, backend=backend)
    values, index = oracle(3.0 * s, 20)
    assert torch.equal(found.indices, index)
    torch.testing.assert_close(found.values, values, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("symmetric", [False, True])
def test_tests_of_pairs(backend, device, symmetric):
    x, y = whole((300, 4), torch.float32, device), whole((500, 4), torch.float32, device, seed=1)
    y, n = (None, 300) if symmetric else (y, 500)
    a = torch.arange(300, device=device) // 30
    b = a if symmetric else torch.randint(0, 12, (n,), device=device)
    i, j = torch.arange(300, device=device)[:, None], torch.arange(n, device=device)
    s = x.double() @ (x if symmetric else y).double().mT
    for pairs, mask in (
        ((same("a"),), a[:, None] == b),
        ((differs("a"), differs(INDEX)), (a[:, None] != b) & (i != j)),
        ((precedes("a"),), a[:, None] < b),
        ((within(INDEX, 40), same("a")), ((i - j).abs() <= 40) & (a[:, None] == b)),
    ):
        called = any(test.name == "a" for test in pairs)
        ids = {"rows": {"a": a}, "cols": {"a": b}} if called else {}
        mask = mask & (i != j) if symmetric else mask
        check(pair_topk(x, y, 12, pairs=pairs, **ids, backend=backend), oracle(s, 12, mask=mask))


def test_windows_are_closed(backend, device):
    x, y = whole((80, 6), torch.float32, device), whole((900, 6), torch.float32, device, seed=1)
    s = x.double() @ y.double().mT
    lower, upper = whole((80,), torch.float32, device, 2, 2), 6.0
    upper_rows = lower + 3.0
    for bounds in ({"lower": lower}, {"upper": upper}, {"lower": lower, "upper": upper_rows}):
        for largest in (True, False):
            found = pair_topk(x, y, 15, largest=largest, **bounds, backend=backend)
            check(found, oracle(s, 15, largest=largest, **bounds))
    nothing = pair_topk(x, y, 15, lower=1.0, upper=0.0, backend=backend)
    assert (nothing.indices == -1).all()
    assert (nothing.values == -torch.inf).all()


def test_semi_hard_negatives(backend, device):
    """The bounds from the documentation select scores below the positive, by at most the margin."""
    x = torch.tensor([[1.0]], device=device)
    y = torch.tensor([[0.5], [0.75], [1.0], [0.25], [0.9375]], device=device)
    positive, margin = y[1], 0.5
    found = pair_topk(
        x, y, 4, lower=positive - margin, backend=backend,
        upper=torch.nextafter(positive, torch.tensor(-math.inf, device=device)),
    )  # fmt: skip
    assert found.indices.tolist() == [[0, 3, -1, -1]]
    assert found.values.tolist() == [[0.5, 0.25, -math.inf, -math.inf]]


def test_ranks_from_skip_on(backend, device):
    x, y = whole((40, 6), torch.float32, device), whole((300, 6), torch.float32, device, seed=1)
    s = x.double() @ y.double().mT
    check(pair_topk(x, y, 10, skip=25, backend=backend), oracle(s, 10, skip=25))
    check(pair_topk(x, y, 10, skip=295, backend=backend), oracle(s, 10, skip=295))


@pytest.mark.parametrize("lead", [(), (2, 2)])
def test_ignore_lists(backend, device, lead):
    m, n = 70, 900
    x, y = whole((*lead, m, 6), torch.float32, device), whole((*lead, n, 6), torch.float32, device)
    flat = math.prod(lead) * m
    counts = torch.randint(0, 60, (flat,))
    counts[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).to(device)
    columns = torch.randint(0, n, (int(counts.sum()),), device=device)  # unsorted, some twice
    owner = torch.repeat_interleave(torch.arange(flat, device=device), counts.to(device))
    mask = torch.ones(flat, n, dtype=torch.bool, device=device)
    mask[owner, columns] = False
    s = x.double() @ y.double().mT
    found = pair_topk(x, y, 50, ignore=(offsets, columns), backend=backend)
    check(found, oracle(s, 50, mask=mask.view(*lead, m, n)))


def test_batches(backend, device):
    x, y = whole((3, 2, 20, 5), torch.float32, device), whole((3, 2, 40, 5), torch.float32, device)
    lower = whole((3, 1, 20), torch.float32, device)
    found = pair_topk(x, y, 6, lower=lower, backend=backend)
    check(found, oracle(x.double() @ y.double().mT, 6, lower=lower.expand(3, 2, 20)))


@pytest.mark.parametrize(("m", "n"), [(0, 4), (4, 0), (0, 0)])
def test_nothing_to_choose_from(backend, device, m, n):
    x = torch.randn(m, 3, device=device, requires_grad=True)
    found = pair_topk(x, torch.randn(n, 3, device=device), 2, backend=backend)
    assert found.values.shape == found.indices.shape == (m, 2)
    assert (found.values == -torch.inf).all()
    assert (found.indices == -1).all()
    found.values.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_nan_and_infinity_are_never_neighbours(backend, device):
    x, y = torch.ones(3, 2, device=device), torch.ones(40, 2, device=device)
    y[::2] = math.nan
    y[1] = -math.inf
    x[1, 0] = math.nan
    found = pair_topk(x, y, 25, backend=backend)
    want = [*range(3, 40, 2), *[-1] * 6]
    assert found.indices.tolist() == [want, [-1] * 25, want]
    found = pair_topk(x, y, 25, sample=0.0, seed=1, backend=backend)
    assert (found.indices >= 0).sum(-1).tolist() == [19, 0, 19]
    y[1] = math.inf
    assert pair_topk(x, y, 1, backend=backend).values.flatten().tolist() == [
        math.inf, -math.inf, math.inf,
    ]  # fmt: skip
    assert pair_topk(x, y, 1, largest=False, backend=backend).indices[0].item() == 3


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_a_bound_of_nan_lets_nothing_through(backend, device, side):
    x, y = torch.ones(3, 2, device=device), torch.ones(5, 2, device=device)
    bound = torch.tensor([math.nan, 2.0, math.nan], device=device)
    found = pair_topk(x, y, 2, **{side: bound}, backend=backend)
    assert found.indices.tolist() == [[-1, -1], [0, 1], [-1, -1]]


# ---- sampling ------------------------------------------------------------------------------------


def test_noise_is_the_same_on_every_backend(backend, device):
    """With all scores zero, the order of 3,000 columns is that of the noise: any fp32 difference
    between backends would change it."""
    x, y = torch.zeros(9, 2, device=device), torch.zeros(3000, 2, device=device)
    found = pair_topk(x, y, 3000, sample=1.0, seed=12345678901234, backend=backend)
    positions = torch.arange(3000, device=device)
    row, col = (position_keys(positions, 12345678901234, axis) for axis in (0, 1))
    noise = gumbel(row[:9, None], col[None])
    check(found, (torch.zeros(9, 3000, dtype=torch.float64), oracle(noise.double(), 3000)[1]))


def test_noise_is_gumbel():
    """Four million numbers have the mean, variance and tails of a Gumbel distribution, and
    neighbours are not correlated."""
    key = position_keys(torch.arange(2000), 7, 0), position_keys(torch.arange(2000), 7, 1)
    g = gumbel(key[0][:, None], key[1][None]).double()
    n = g.numel()
    assert abs(g.mean() - 0.5772156649) < 5 * math.pi / math.sqrt(6 * n)
    assert abs(g.var() - math.pi**2 / 6) < 5 * math.sqrt(4.4 * (math.pi**2 / 6) ** 2 / n)
    for t in (-2.0, 0.0, 3.0, 8.0):
        p = -math.expm1(-math.exp(-t))
        assert abs((g > t).double().mean() - p) < 5 * math.sqrt(p * (1 - p) / n), t
    rows = g - g.mean()
    together = (rows[:-1] * rows[1:]).mean(), (rows[:, :-1] * rows[:, 1:]).mean()
    assert all(abs(c) < 5 * g.var() / math.sqrt(n) for c in together)


def test_draws_without_replacement_by_the_softmax(backend, device):
    """In 60,000 equal rows, the first draw follows softmax(beta s), the second the same softmax
    without the first column."""
    m, beta = 60_000, 1.5
    s = torch.tensor([0.0, 0.5, 1.0, -1.0, 2.0], dtype=torch.float64, device=device)
    x, y = torch.ones(m, 1, device=device), s[:, None].float()
    found = pair_topk(x, y, 5, sample=beta, seed=3, backend=backend)
    assert (found.indices.sort(-1).values == torch.arange(5, device=device)).all()
    assert torch.equal(found.values, s.float()[found.indices])
    p = (beta * s).softmax(0)
    first, second = found.indices[:, 0], found.indices[:, 1]
    for a in range(5):
        assert abs((first == a).double().mean() - p[a]) < 5 * math.sqrt(p[a] * (1 - p[a]) / m)
        for b in range(5):
            q = p[a] * p[b] / (1 - p[a]) if a != b else torch.zeros(())
            got = ((first == a) & (second == b)).double().mean()
            assert abs(got - q) <= 5 * math.sqrt(q * (1 - q) / m), (a, b)


@pytest.mark.parametrize("beta", [2.0, 0.5, -1.0])
def test_what_scores_minus_infinity_is_never_drawn(beta, backend, device):
    """A score of -inf is never drawn, not even with a negative beta, which prefers small scores."""
    x, y = torch.ones(50, 1, device=device), torch.randn(9, 1, device=device)
    bias = torch.zeros(9, device=device)
    bias[::2] = -torch.inf
    found = pair_topk(x, y, 9, sample=beta, seed=3, col_bias=bias, backend=backend)
    assert (found.indices[:, :4].sort(1).values == torch.tensor([1, 3, 5, 7], device=device)).all()
    assert (found.indices[:, 4:] == -1).all()
    assert (found.values[:, 4:] == -torch.inf).all()


def test_seeds_and_rows_draw_apart(backend, device):
    x, y = torch.ones(4, 1, device=device), torch.ones(500, 1, device=device)
    draws = [pair_topk(x, y, 500, sample=1.0, seed=s, backend=backend).indices for s in (0, 1, 0)]
    assert torch.equal(draws[0], draws[2])
    both = torch.cat(draws[:2])
    same_place = (both[:, None] == both[None]).double().mean(-1)
    assert (same_place - torch.eye(8, device=device, dtype=torch.float64)).abs().max() < 0.02


# ---- merging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"largest": False}, {"sample": 1.0, "seed": 9}], ids=str)
def test_shards_merge_to_the_whole(backend, device, options):
    x, y = whole((30, 6), torch.float64, device), whole((700, 6), torch.float64, device, seed=1)
    want = pair_topk(x, y, 40, **options, backend=backend)
    starts = [0, 13, 400, 690]
    parts = []
    for start, end in zip(starts, [*starts[1:], 700], strict=True):
        ids = {}
        if "sample" in options:
            rows, cols = torch.arange(30, device=device), torch.arange(start, end, device=device)
            ids = {"rows": {INDEX: rows}, "cols": {INDEX: cols}}
        parts.append(pair_topk(x, y[start:end], 40, **ids, **options, backend=backend))
    order = [2, 0, 3, 1]
    found = merge_topk([parts[p] for p in order], [starts[p] for p in order], **options)
    assert torch.equal(found.indices, want.indices)
    assert torch.equal(found.values, want.values)
    assert torch.equal(merge_topk(parts, starts, k=7, **options).indices, want.indices[:, :7])
    assert merge_topk(parts[:1], k=50, **options).indices.shape == (30, 50)


def test_merging_nothing_is_an_error():
    with pytest.raises(ValueError, match="parts: got an empty sequence"):
        merge_topk([])
    one = TopK(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="offsets: got 2, expected 1"):
        merge_topk([one], [0, 1])


# ---- gradients and transforms --------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_values_are_differentiable(backend, device, cosine, symmetric):
    x, y = (torch.randn(2, n, 3, device=device, dtype=torch.float64) for n in (5, 7))
    n = 5 if symmetric else 7
    vectors = {
        "scale": torch.rand((), device=device, dtype=torch.float64) + 1,
        "row_scale": torch.rand(2, 5, device=device, dtype=torch.float64) + 1,
        "col_scale": torch.rand(n, device=device, dtype=torch.float64) + 1,
        "row_bias": torch.randn(5, device=device, dtype=torch.float64),
        "col_bias": torch.randn(2, n, device=device, dtype=torch.float64),
    }
    inputs = [x, *([] if symmetric else [y]), *vectors.values()]

    def function(*values):
        named = dict(zip(vectors, values[-5:], strict=True))
        z = None if symmetric else values[1]
        found = pair_topk(values[0], z, 3, upper=3.0, cosine=cosine, **named, backend=backend)
        return torch.where(found.indices < 0, 0.0, found.values)  # no finite differences of -inf

    torch.autograd.gradcheck(function, [v.requires_grad_() for v in inputs])


def test_second_derivatives(backend, device):
    """Second derivatives are those of the scores at the indices, which count as constants."""
    x, y = torch.randn(2, 4, 3, dtype=torch.float64, device=device)

    def function(x, y):
        return pair_topk(x, y, 2, cosine=True, backend=backend).values

    torch.autograd.gradgradcheck(function, [x.requires_grad_(), y.requires_grad_()])


def test_torch_library(backend, device):
    x, y = (column_major(torch.randn(n, 3, device=device)).requires_grad_() for n in (6, 9))
    program = '[[{"kind": "MAX", "axis": "row", "pairs": [], "weight": [], "sign": 1.0}], [], []]'
    lists = [torch.tensor([0, 1, 1, 1, 1, 1, 2]).to(device), torch.tensor([3, 4]).to(device)]
    arguments = (x, y, *[None] * 5, [], [], program, True, torch.float32, backend)
    for chosen in ((4, None, None, [], None, 0), (4, x[:, 0].detach(), None, lists, 1.0, 5)):
        torch.library.opcheck(torch.ops.contrastloss.pair_topk.default, (*arguments, *chosen))


def test_compiles_to_one_graph(backend, device):
    def loss(x, y, ids):
        found = pair_topk(
            x, y, 4, pairs=(differs("a"),), rows={"a": ids}, cols={"a": ids}, backend=backend
        )
        return found.values.exp().sum() + found.indices.sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for n in (8, 11):
        x, y = torch.randn(2, n, 5, device=device)
        ids = torch.arange(n, device=device) % 3
        x.requires_grad_()
        value, want = compiled(x, y, ids), loss(x, y, ids)
        torch.testing.assert_close(value, want)
        grads = [torch.autograd.grad(v, x)[0] for v in (value, want)]
        torch.testing.assert_close(*grads)


def test_autocast_rounds_the_operands_and_nothing_else(backend, device):
    x, y = torch.randn(2, 30, 16, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = pair_topk(x, y, 5, backend=backend)
    s = x.bfloat16().double() @ y.bfloat16().double().mT
    assert torch.equal(found.indices, s.topk(5).indices)
    torch.testing.assert_close(found.values.double(), s.topk(5).values, rtol=1e-6, atol=1e-6)


def test_strides(backend, device):
    x = whole((6, 40), torch.float32, device).mT
    y = whole((100, 12), torch.float32, device)[:, ::2]
    check(pair_topk(x, y, 8, backend=backend), oracle(x.double() @ y.double().mT, 8))


def test_the_function_is_public(backend, device):
    x, y = torch.randn(4, 3, device=device), torch.randn(5, 3, device=device)
    call = PairCall(Operands(x, y), Program((MAX(),)), False, x.dtype, backend)
    chosen = (2, None, None, [], None, 0)
    values, index = PairTopK.apply(call, chosen, *call.operands.flat())
    check(
        TopK(values, index),
        [v if v.dtype == torch.int64 else v.double() for v in pair_topk(x, y, 2)],
    )


# ---- bad arguments -------------------------------------------------------------------------------

X, Y = torch.eye(4, 3), torch.eye(5, 3)
LISTS = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([0, 4])
BAD = [
    ({"k": 0}, ValueError, "k: got 0, expected at least 1"),
    ({"k": 2.0}, TypeError, "k: got float, expected an integer"),
    ({"k": 1 << 31}, ValueError, "k: got 2147483648, expected at most 2147483647"),
    ({"k": 10**400}, ValueError, "k: got an integer of 1329 bits, expected at most 2147483647"),
    ({"lower": 10**400}, ValueError, "lower: got an integer of 1329 bits, expected a number"),
    ({"sample": 10**400, "seed": 1}, ValueError, "sample: got an integer of 1329 bits, expected"),
    ({"skip": -1}, ValueError, "skip: got -1, expected at least 0"),
    ({"sample": 1.0}, ValueError, "seed: got None, expected an integer"),
    ({"seed": 1}, ValueError, "seed: got 1, expected none without sample"),
    ({"sample": math.inf, "seed": 1}, ValueError, "sample: got inf, expected a finite number"),
    ({"sample": 1.0, "seed": 1, "largest": False}, ValueError, "largest: got False, expected True"),
    ({"lower": "0"}, TypeError, "lower: got str, expected a number or a tensor"),
    ({"lower": torch.zeros(3)}, ValueError, r"lower: got shape \(3,\), expected .*\(4,\)"),
    (
        {"upper": torch.zeros(4, requires_grad=True)},
        ValueError,
        "upper: got a tensor that requires",
    ),
    (
        {"upper": torch.zeros(4, dtype=torch.int64)},
        TypeError,
        "upper: got dtype torch.int64, expected a floating one",
    ),
    ({"ignore": LISTS[0]}, TypeError, "ignore: got Tensor, expected"),
    ({"ignore": (LISTS[0].float(), LISTS[1])}, TypeError, "ignore offsets: got torch.float32"),
    ({"ignore": (LISTS[0][1:], LISTS[1])}, ValueError, "ignore offsets: got 4, expected 5"),
    ({"ignore": (LISTS[0] + 1, LISTS[1])}, ValueError, "ignore offsets: got 1 to 3, expected"),
    ({"pairs": (same("a"),)}, ValueError, "rows: got .*expected 'a'"),
    ({"rows": {"a": torch.zeros(4)}}, ValueError, "rows: got 'a', expected only names"),
    ({"backend": "tpu"}, ValueError, "backend: got 'tpu', expected None or one of"),
    ({"y": Y.double()}, TypeError, "y: got dtype torch.float64, expected x's"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        pair_topk(**{"x": X, "y": Y, "k": 2, **options})


def test_a_backend_without_the_operator_says_so(monkeypatch):
    monkeypatch.delattr(BACKENDS["triton"], "pair_topk")
    with pytest.raises(
        RuntimeError, match="'triton' cannot serve this call: it does not have pair"
    ):
        pair_topk(X, Y, 2, backend="triton")
