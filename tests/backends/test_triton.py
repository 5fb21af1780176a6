"""The Triton backend in Triton's interpreter, compared with the dense oracle. Kernels take seconds
there, so channels share calls: every kind, axis, test, weight and operand occurs, but not every
combination."""

import itertools

import pytest
import torch
from backends.test_sweep import (
    BOUNDED,
    KINDS,
    MIXED,
    OPERANDS,
    PAIRS,
    WEIGHTS,
    at_the_bound,
    disagreements,
    variant,
)
from oracle import VECTORS

import contrastloss
from contrastloss.backends import triton
from contrastloss.channel import COL, INDEX, ROW, differs

pytestmark = pytest.mark.skipif(
    not (triton.interpreted() or torch.cuda.is_available()),
    reason="no GPU, and TRITON_INTERPRET=1 is not set",
)
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["y", "symmetric"])


#: other seeds for cases in which a gradient of a scale is a sum that nearly cancels, so that the
#: order of fp32 sums matters
SEEDS = {("col", 6): 1}


#: the other weights take minutes in the interpreter; "sum" and "log form eps" are the most complex
EXTRA = [
    pytest.param(weight, marks=pytest.mark.extra)
    for weight in WEIGHTS
    if weight not in ("none", "sum", "log form eps", "at most", "not above")
]


@SYMMETRIC
@pytest.mark.parametrize("weight", ["none", "sum", "log form eps", "at most", "not above", *EXTRA])
def test_channels(device, weight, symmetric):
    """Every kind along both axes, cycling through the tests, eight channels per call."""
    start = list(WEIGHTS).index(weight)
    pairs = itertools.islice(itertools.cycle(PAIRS.values()), start, None)
    program = [
        variant(kind, axis, next(pairs), WEIGHTS[weight])
        for kind in KINDS.values()
        for axis in (ROW, COL)
    ]
    vectors = itertools.cycle(OPERANDS)
    cases = [
        (
            str(channels),
            channels,
            {"vectors": next(vectors), "cosine": k % 2 == 1, "seed": SEEDS.get((weight, k), k)},
        )
        for k, channels in enumerate(tuple(program[k : k + 8]) for k in range(0, len(program), 8))
    ]
    disagreements(
        "triton", cases, device=device, symmetric=symmetric, dtype=torch.float32, m=37, n=41
    )


@SYMMETRIC
@pytest.mark.parametrize("pairs", PAIRS)
def test_pairs(device, pairs, symmetric):
    program = tuple(
        variant(KINDS[kind], axis, PAIRS[pairs])
        for kind in ("lse", "relu", "expect", "max")
        for axis in (ROW, COL)
    )
    case = (pairs, program, {"vectors": VECTORS, "m": 35, "n": 70, "d": 17})
    disagreements("triton", [case], device=device, symmetric=symmetric, dtype=torch.float32)


@SYMMETRIC
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_operands(device, dtype, symmetric):
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter does not multiply bfloat16")
    program = tuple(variant(KINDS[k], a, (differs(INDEX),)) for k in KINDS for a in (ROW, COL))
    cases = []
    for k, vectors in enumerate(OPERANDS):
        for lead in ((), (2, 3)):
            channels = program[(7 * len(cases)) % 40 :][:5]
            options = {"vectors": vectors, "cosine": k % 2 == 1, "lead": lead, "m": 7, "n": 19}
            cases.append((f"{vectors} {lead} {channels}", channels, options))
    disagreements("triton", cases, device=device, dtype=dtype, symmetric=symmetric)


@SYMMETRIC
@pytest.mark.parametrize(("m", "n", "d"), [(300, 130, 70), (1, 290, 1), (129, 65, 33)])
def test_across_the_borders_of_tiles(device, symmetric, m, n, d):
    """Several program instances along both axes, ragged tails, and slices that are merged."""
    options = {"m": m, "n": n, "d": d, "vectors": VECTORS, "cosine": d > 1}
    disagreements(
        "triton", [("mixed", MIXED, options)], device=device, symmetric=symmetric,
        dtype=torch.float32,
    )  # fmt: skip


@SYMMETRIC
def test_a_score_at_its_bound_stays(device, symmetric):
    assert not at_the_bound("triton", device, BOUNDED[::3], 70, 41, symmetric)


@SYMMETRIC
@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (1, 1)])
def test_nothing_to_reduce(device, symmetric, m, n):
    program = tuple(
        variant(KINDS[k], a) for k in ("lse", "id", "expect", "max") for a in (ROW, COL)
    )
    options = {"m": m, "n": n, "d": 3, "vectors": VECTORS}
    disagreements(
        "triton", [("all", program, options)], device=device, symmetric=symmetric,
        dtype=torch.float32,
    )  # fmt: skip


def test_what_it_declines():
    x = torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"backend: 'triton' cannot serve .* not serve float64"):
        contrastloss.ops.pair_stats(x, x, MIXED[:1], backend="triton")
