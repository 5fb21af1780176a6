"""Every channel on every backend, compared with the dense fp64 oracle.

Two full products (kinds x axes x tests x weights x symmetry, and kinds x axes x dtypes x operands x
batches x symmetry) and random programs of several channels that share one pass.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from oracle import VECTORS, differences, evaluate, leaves, problem
from programs import DTYPES, KINDS, OPERANDS, PAIRS, WEIGHTS, channels, variant
from selection import every_fifth, part

from contrastloss.backends import Operands, PairCall
from contrastloss.backends.choose import BACKENDS
from contrastloss.backends.reference import block
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    ROW,
    SUM,
    col_weight,
    differs,
    not_above,
    precedes,
    row_weight,
    same,
)
from contrastloss.ops import pair_stats
from contrastloss.program import Program

#: other seeds for cases in which a pair's gradient overflows fp16 although the gradient of x does
#: not: backends with fp16 products need both in range
DRAWS = {("shifted focal", ROW, VECTORS, torch.float16): 1}


def serves(name, call):
    """Whether the backend serves this call here; a missing backend serves none."""
    backend = BACKENDS[name]
    return backend.missing() is None and backend.why_not(as_pair_call(call)) is None


def as_pair_call(call):
    """The call as a PairCall."""
    rows, cols = call["rows"], call["cols"]
    program = Program(call["channels"], tuple(rows), tuple(cols))
    x, y = call["x"], call["y"]
    vectors = [call.get(name) for name in VECTORS]
    operands = Operands(x, y, *vectors, (*rows.values(),), (*cols.values(),))
    whole = PairCall(operands, program, call["cosine"], x.dtype)
    return whole if x.ndim > 2 else whole.batched()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Small blocks, so that the reference visits many of them."""
    monkeypatch.setattr(block, "block_elements", lambda device: 600)


def function_of(backend):
    def function(x, y, channels, **call):
        return pair_stats(x, y, channels, backend=backend, **call)

    return function


def disagreements(backend, cases, **options):
    """Compares every case that the backend serves with the oracle, and fails with a list of
    differences."""

    found, served = [], 0
    for label, program, settings_ in cases:
        call = problem(program, **{**options, **settings_})
        if not serves(backend, call):
            continue
        served += 1
        found += [f"{label}: {line}" for line in differences(function_of(backend), call)]
    assert served, f"{backend} served none of these cases"
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:40])


def chunks(channels, length=9):
    """Programs short enough for every backend."""
    channels = tuple(channels)
    return [channels[k : k + length] for k in range(0, len(channels), length)]


@every_fifth
@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_channels(backend, device, weight, symmetric, fifth):
    """Kind x axis x tests x weights, cycling through the other operands."""
    turn = itertools.cycle(itertools.product(OPERANDS, (False, True)))
    cases = []
    for kind, axis, pairs in itertools.product(KINDS, (ROW, COL), PAIRS):
        if kind in ("max", "min") and weight != "none":
            continue
        vectors, cosine = next(turn)
        channel = variant(KINDS[kind], axis, PAIRS[pairs], WEIGHTS[weight])
        options = {"vectors": vectors, "cosine": cosine, "seed": len(cases)}
        cases.append((f"{kind} {axis} {pairs} {vectors} cosine={cosine}", (channel,), options))
    cases = [case for case in cases if part((*case[:2], weight, symmetric)) == fifth]
    disagreements(backend, cases, device=device, symmetric=symmetric)


@every_fifth
@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operands(backend, device, dtype, symmetric, fifth):
    """Kind x axis x dtype x biases and scales x batch dimensions x cosine."""
    cases = []
    for kind, axis, vectors in itertools.product(KINDS, (ROW, COL), OPERANDS):
        for lead, cosine in (((), False), ((2, 3), True)):
            channel = variant(KINDS[kind], axis, (differs(INDEX),), (row_weight("u"),))
            seed = DRAWS.get((kind, axis, vectors, dtype), len(cases))
            options = {"vectors": vectors, "cosine": cosine, "lead": lead, "seed": seed}
            size = {"m": 7, "n": 11, "d": 19} if lead else {"m": 37, "n": 53, "d": 19}
            label = f"{kind} {axis} {vectors} batch={lead} cosine={cosine}"
            cases.append((label, (channel,), {**options, **size}))
    cases = [case for case in cases if part((*case[:2], dtype, symmetric)) == fifth]
    disagreements(backend, cases, device=device, dtype=dtype, symmetric=symmetric)


@st.composite
def problems(draw):
    cosine = draw(st.booleans())
    options = {
        "m": draw(st.integers(1, 40)),
        "n": draw(st.integers(1, 40)),
        "d": draw(st.integers(2 if cosine else 1, 20)),  # for d = 1 all cosines are +-1: ties
        "lead": draw(st.sampled_from([(), (1,), (3,)])),
        "dtype": draw(st.sampled_from(DTYPES)),
        "symmetric": draw(st.booleans()),
        "vectors": draw(st.sampled_from(OPERANDS)),
        "cosine": cosine,
        "seed": draw(st.integers(0, 99)),
    }
    return tuple(draw(st.lists(channels(), min_size=2, max_size=5))), options


@pytest.mark.gpu_smoke
def test_programs(backend, device):
    """Several channels in one pass, which may or may not share tests, weights, shifts and axes."""

    @settings(max_examples=120, derandomize=True, deadline=None, database=None)
    @given(problems())
    def check(drawn):
        program, options = drawn
        call = problem(program, device=device, **options)
        if serves(backend, call):
            disagreements(backend, [(str(program), program, options)], device=device)

    check()


MIXED = (
    LSE(pairs=(differs(INDEX),)),
    LSE(pairs=(differs(INDEX),), axis=COL),
    SUM("softplus", sign=-1.0, pairs=(differs("a"),), shift="margin"),
    SUM("id", axis=COL, weight=(row_weight("u"),)),
    MAX(pairs=(precedes("a"),)),
    MAX(axis=COL),
    EXPECT(2.0, axis=COL, pairs=(same("a"),)),
)


@every_fifth
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
def test_across_the_borders_of_tiles(backend, device, threads, dtype, symmetric, fifth):
    """Sizes that no tile divides; also each channel alone, because backends specialise on single
    channels."""
    threads(2)
    programs = [("mixed", MIXED), *((str(channel), (channel,)) for channel in MIXED)]
    cases = []
    for m, n, d in ((300, 700, 70), (517, 129, 77), (1, 900, 1)):
        options = {"m": m, "n": n, "d": d, "vectors": VECTORS, "cosine": d > 1}
        cases += [(f"{name} {m} x {n} x {d}", program, options) for name, program in programs]
    cases = [case for case in cases if part((*case[:2], dtype, symmetric)) == fifth]
    disagreements(backend, cases, device=device, dtype=dtype, symmetric=symmetric)


@pytest.mark.parametrize(
    "kinds", [("lse", "lse"), ("softplus", "max"), ("shifted relu2", "expect")]
)
def test_symmetric_scores_are_not_symmetric(backend, device, kinds):
    """y=None evaluates a tile in both orientations, which must be told apart by row_bias !=
    col_bias, row ids != column ids, and tests that are not symmetric."""
    for pairs in ((precedes("a"),), (precedes(INDEX),), (same("a"), precedes("b"))):
        program = tuple(
            variant(KINDS[kind], axis, pairs, (row_weight("u"), col_weight("v")))
            for kind in kinds
            for axis in (ROW, COL)
        )
        options = {"m": 261, "d": 9, "vectors": VECTORS, "symmetric": True}
        call = problem(program, **options)
        assert not torch.equal(call["row_bias"], call["col_bias"])
        if call["rows"]:
            assert not any(
                torch.equal(v, call["cols"].get(k, v[:0])) for k, v in call["rows"].items()
            )
        disagreements(backend, [(str(pairs), program, options)], device=device)


@pytest.mark.parametrize("axis", [ROW, COL])
def test_each_shift_gets_its_own_gradient(backend, device, axis):
    """Channels may use shifts in another order than the operands, share one, or name the same
    tensor twice."""
    order = ("late", "early", "late", "twin")
    program = tuple(SUM("square", axis=axis, shift=name) for name in order)
    call = problem(program, device=device, lead=(2,))
    side = "rows" if axis == ROW else "cols"
    call[side]["twin"] = call[side]["early"]
    call[side] = {name: call[side][name] for name in ("early", "late", "twin")}
    assert not differences(function_of(backend), call)
    early, _, twin = (call[side][name].requires_grad_() for name in call[side])
    assert twin is early
    sums = pair_stats(call.pop("x"), call.pop("y"), call.pop("channels"), backend=backend, **call)
    both = torch.autograd.grad(sums[1].sum() + sums[3].sum(), early, retain_graph=True)[0]
    torch.testing.assert_close(both, 2 * torch.autograd.grad(sums[1].sum(), early)[0])


def test_symmetric_columns_take_the_rows_operands(backend, device):
    call = problem((LSE(pairs=(same("a"),)),), device=device, symmetric=True)
    rows = call["rows"]
    (default,) = pair_stats(call["x"], None, call["channels"], rows=rows, backend=backend)
    (given_,) = pair_stats(call["x"], None, call["channels"], rows=rows, cols=rows, backend=backend)
    assert torch.equal(default, given_)
    s = call["x"] @ call["x"].mT
    mask = (rows["a"][:, None] == rows["a"]).fill_diagonal_(False)
    expected = s.masked_fill(~mask, -torch.inf).logsumexp(1)
    torch.testing.assert_close(default, expected)


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_positions_may_be_given(backend, device, dtype, symmetric):
    """As for shards: explicit ids under INDEX replace positions in tests, but not in the result of
    MAX."""
    program = (LSE(pairs=(differs(INDEX),)), MAX(pairs=(precedes(INDEX),)), MAX(axis=COL))
    call = problem(program, device=device, dtype=dtype, symmetric=symmetric)
    m, n = call["x"].shape[0], (call["x"] if symmetric else call["y"]).shape[0]
    call["rows"][INDEX] = torch.arange(m, device=device) + 11
    call["cols"][INDEX] = torch.arange(n, device=device).flip(0)

    assert not differences(function_of(backend), call)


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
def test_frozen_inputs(backend, device, symmetric):
    """Every subset of inputs that require a gradient gets the same gradients as the full set."""
    program = (LSE(pairs=(differs(INDEX),)), SUM("relu2", axis=COL, shift="margin"))
    call = problem(program, device=device, symmetric=symmetric, vectors=VECTORS)
    names = sorted(leaves(call))

    values, everything = evaluate(function_of(backend), call)
    for bits in range(1, 2 ** len(names)):
        live = {name for k, name in enumerate(names) if bits >> k & 1}
        same_values, grads = evaluate(function_of(backend), call, frozen=set(names) - live)
        assert set(grads) == live
        assert all(map(torch.equal, values, same_values))
        for name, grad in grads.items():
            torch.testing.assert_close(grad, everything[name], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("lead", [(), (2,), (0,)], ids=str)
def test_nothing_to_reduce(backend, device, dtype, symmetric, m, n, lead):
    """No rows, no columns and, for y=None, a single row without pairs: the value of the empty set,
    and zero gradients."""
    options = {"m": m, "n": n, "d": 3, "lead": lead, "vectors": VECTORS}
    cases = []
    for axis in (ROW, COL):
        cases += [(axis, few, options) for few in chunks(variant(k, axis) for k in KINDS.values())]
    disagreements(backend, cases, device=device, dtype=dtype, symmetric=symmetric)


def test_weights_that_leave_nothing(backend, device):
    weight = (row_weight("u"),)
    variants = (variant(kind, axis, (), weight) for kind in KINDS.values() for axis in (ROW, COL))
    for program in chunks(channel for channel in variants if channel.kind != "MAX"):
        call = problem(program, device=device)
        call["rows"]["u"] = torch.full_like(call["rows"]["u"], -torch.inf)
        assert not differences(function_of(backend), call)
        values, grads = evaluate(function_of(backend), call)
        assert all(((value == 0) | (value == -torch.inf)).all() for value in values)
        assert not any(grad.any() for grad in grads.values())


# ---- a bound on the scores ----------------------------------------------------------------------

BOUNDED = tuple(
    replace(kind, axis=axis, pairs=pairs, weight=(not_above("most"),))
    for kind in (LSE(), LSE(-2.0), EXPECT(0.5), SUM("one"), SUM("square"))
    for pairs in ((), (differs(INDEX),))
    for axis in (ROW, COL)
)


def at_the_bound(backend, device, channels, m, n, symmetric):
    """What differs from the oracle where many scores are equal to their bounds: all of them are
    multiples of 1/2, so they are exact."""
    g = torch.Generator().manual_seed(m)

    def whole(*shape):
        return torch.randint(-1, 2, shape, generator=g).float().to(device)

    bound = torch.randint(-4, 5, (m,), generator=g).div(2).to(device)
    bound[0], bound[1] = -torch.inf, torch.inf
    call = {"x": whole(m, 6), "y": None if symmetric else whole(n, 6), "channels": channels}
    call |= {"rows": {"most": bound}, "cols": {}, "scale": torch.tensor(0.5, device=device)}
    return differences(function_of(backend), {**call, "cosine": False})


@pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])
@pytest.mark.parametrize("together", [4, 1])
def test_a_score_at_its_bound_stays(backend, device, symmetric, together):
    """Several channels in one pass, and each alone; a row and a column more than a tile has."""
    for program in chunks(BOUNDED, together):
        assert not at_the_bound(backend, device, program, 193, 385, symmetric), program


def test_a_bound_is_on_the_whole_score(backend, device):
    """With scales and biases, and before theta, sign, shift and pace."""
    x, y = torch.tensor([[2.0]], device=device), torch.tensor([[1.0], [3.0], [5.0]], device=device)
    vectors = {
        "scale": 2.0,
        "row_scale": torch.full((1,), 0.5, device=device),
        "row_bias": torch.ones(1, device=device),
        "col_bias": torch.tensor([0.0, 0.0, -8.0], device=device),
    }
    s, most = [3.0, 7.0, 3.0], (not_above("most"),)
    operands = {"most": s[0], "c": 4.0}
    rows = {name: torch.full((1,), value, device=device) for name, value in operands.items()}
    program = (
        SUM("id", pairs=(same(INDEX),)),
        SUM("one", weight=most),
        SUM("relu", sign=-1.0, shift="c", weight=most),
        LSE(-2.0, weight=most),
        LSE(2.0, relax=1.0, weight=most),
    )
    rows = {
        "most": torch.full((1,), s[0], device=device),
        "c": torch.full((1,), 4.0, device=device),
    }
    found = pair_stats(x, y, program, **vectors, rows=rows, backend=backend)
    first, count, relu, lse, paced = [value.item() for value in found]
    assert (first, count, relu) == (s[0], s.count(s[0]), 2 * (4.0 - s[0]))
    assert lse == pytest.approx(-2.0 * s[0] + math.log(2))
    assert paced == pytest.approx(2.0 * (s[0] + 1.0) * (s[0] - 1.0) + math.log(2))


# ---- what a backend declines --------------------------------------------------------------------

FEATURES = sorted(
    {
        "batch",
        "cosine",
        "symmetric",
        "shift",
        *(f"SUM {psi}" for psi in PSI),
        *("LSE", "LSE relax", "EXPECT", "MAX"),
        *(f"test {op}" for op in ("eq", "ne", "lt", "within")),
        *(
            f"weight {k}"
            for k in (
                *("row", "col", "distance", "differing"),
                *("form", "log_form", "at_most", "not_above"),
            )
        ),
    }
)


def call_with(feature, device):
    """A call with this feature and as few others as possible."""
    kind = {c.kind: c for c in (LSE(), EXPECT(), MAX())}.get(feature, LSE())
    if feature.startswith("SUM "):
        kind = SUM(feature.removeprefix("SUM "))
    if feature == "LSE relax":
        kind = LSE(relax=0.25)
    if feature == "shift":
        kind = SUM("id", shift="margin")
    word = feature.split(" ")[-1]
    pairs = PAIRS[word] if feature.startswith("test ") else ()
    weight = WEIGHTS[word.replace("_", " ")] if feature.startswith("weight ") else ()
    channel = replace(kind, pairs=pairs, **({} if kind.kind == "MAX" else {"weight": weight}))
    lead = (2,) if feature == "batch" else ()
    options = {"symmetric": feature == "symmetric", "cosine": feature == "cosine"}
    return problem((channel,), m=5, n=6, d=3, lead=lead, device=device, **options)


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_has_its_word(feature, device):
    assert feature in as_pair_call(call_with(feature, device)).features


@pytest.mark.parametrize("feature", FEATURES)
def test_declines_what_its_table_says(backend, device, feature):
    """Every backend declines exactly the features that it lists."""
    declines = getattr(BACKENDS[backend], "DECLINES", frozenset())
    assert declines <= set(FEATURES)
    call = call_with(feature, device)
    declined = bool(as_pair_call(call).features & declines)
    assert serves(backend, call) is not declined
    x, y, program = call.pop("x"), call.pop("y"), call.pop("channels")
    if declined:
        with pytest.raises(RuntimeError, match=f"'{backend}' cannot serve .*{feature}"):
            pair_stats(x, y, program, backend=backend, **call)
    else:
        pair_stats(x, y, program, backend=backend, **call)


def test_the_sweep_knows_every_feature(device):
    """A new feature of channels or calls must be added to the sweep."""
    seen = set()
    for kind, pairs, weight in itertools.product(KINDS, PAIRS, WEIGHTS):
        channel = variant(KINDS[kind], ROW, PAIRS[pairs], WEIGHTS[weight])
        seen |= Program((channel,)).features
    assert seen | {"batch", "cosine", "symmetric"} == set(FEATURES)


@pytest.mark.parametrize("name", sorted(set(BACKENDS) - {"reference"}))
def test_has_a_table_of_what_it_declines(name):
    assert isinstance(BACKENDS[name].DECLINES, frozenset)


def test_the_reference_declines_nothing():
    assert not getattr(BACKENDS["reference"], "DECLINES", frozenset())
    assert list(BACKENDS)[-1] == "reference"
