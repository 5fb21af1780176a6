"""Every Triton kernel, with every row of its table, compiled for chips that are not present: shared
memory, spilled registers, matrix instructions, instructions per pair, and how often it compiles."""

import json
import random
from pathlib import Path

import pytest
import torch

from contrastloss.backends import Operands, PairCall, SortCall, triton
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    SUM,
    at_most,
    differs,
    form,
    not_above,
    row_weight,
    same,
)
from contrastloss.program import Program

if triton.missing() or triton.interpreted():
    pytest.skip("needs triton, without its interpreter", allow_module_level=True)

from backends.ahead import SHARED, TARGETS, compiled
from triton import knobs

from contrastloss.backends.triton import backward, forward, sort

PROGRAMS = {
    "clip": (LSE(), LSE(axis=COL), SUM("id", pairs=(same(INDEX),))),
    "nt_xent": (LSE(), SUM("id", pairs=(same("label"),))),
    "siglip": (
        SUM("softplus", pairs=(differs(INDEX),)),
        SUM("softplus", sign=-1.0, pairs=(same(INDEX),)),
    ),
    "mixed": (
        LSE(2.0, weight=(row_weight("weight"), form("form"))),
        LSE(-1.0, relax=0.25, weight=(at_most("form"),)),
        EXPECT(axis=COL, pairs=(differs("label"),), weight=(not_above("weight"),)),
        SUM("focal", shift="shift"),
        MAX(axis=COL, pairs=(same("label"),)),
    ),
    "triplet": tuple(
        SUM(psi, shift=f"shift{k}", pairs=(differs("label"),))
        for k in range(5)
        for psi in ("relu", "step")
    ),
}
#: Spilled bytes per thread (for AMD: registers) of a program, bits of a number and class of sizes:
#: they are cheaper than smaller tiles. And instructions per pair of a tile without edges and
#: diagonal on Hopper.
BUDGET = json.loads((Path(__file__).parent / "triton_budget.json").read_text())
ROWS = {"small": 256, "large": 4096}


def call(name, dtype, rows, d=512):
    program = PROGRAMS[name]
    names = sorted({n for c in program for n in c.called["row"] | c.called["col"]} - {INDEX})
    shapes = {"label": torch.zeros(rows, dtype=torch.int64), "form": torch.zeros(rows, 8)}
    operands = tuple(shapes.get(n, torch.zeros(rows)) for n in names)
    x = torch.zeros(rows, d)
    given = Operands(
        x, None if name == "nt_xent" else x, torch.ones(()), rows=operands, cols=operands
    )
    return PairCall(given, Program(program, tuple(names), tuple(names)), True, dtype)


def both_passes(given):
    outputs = forward.pair_stats_forward(given)
    grads = [o if o.is_floating_point() else None for o in outputs]
    backward.pair_stats_backward(given, outputs, grads, frozenset({"x", "y", "scale"}))


CASES = [
    *[("clip", dtype, size) for dtype in (torch.bfloat16, torch.float32) for size in ROWS],
    *[(name, torch.bfloat16, "large") for name in ("nt_xent", "siglip", "mixed", "triplet")],
    ("mixed", torch.float32, "large"),
]


@pytest.mark.parametrize(
    ("name", "dtype", "size"), CASES, ids=lambda v: str(v).removeprefix("torch.")
)
@pytest.mark.parametrize(
    "architecture",
    [a if a == "sm_90" else pytest.param(a, marks=pytest.mark.extra) for a in TARGETS],
)
def test_kernels_fit(monkeypatch, tmp_path, architecture, name, dtype, size):
    with compiled(monkeypatch, architecture) as launches:
        both_passes(call(name, dtype, ROWS[size]))
    bits = torch.finfo(dtype).bits
    budget = BUDGET["spills"][architecture].get(f"{name} {bits} {size}", 0)
    for one in launches:
        instances = one.config.instances if one.config else 1
        assert one.binary.metadata.shared * instances <= SHARED[architecture], one.label
        registers, spilled = one.registers(tmp_path)
        assert spilled <= budget, f"{one.label} spills"
        if one.config and architecture.startswith("sm"):
            assert registers * 32 * one.config.warps * instances <= 65536, one.label
            if one.config.how == "tma":
                assert "cp.async.bulk.tensor" in one.binary.asm["ptx"], one.label
        if one.config and architecture == "sm_90" and bits == 16:
            assert "wgmma.mma_async" in one.binary.asm["ptx"], one.label


@pytest.mark.parametrize("name", ["clip", "nt_xent"])
def test_instructions_per_pair(monkeypatch, tmp_path, name):
    """Of a tile that has all its pairs, in the straight piece with an exponential per pair and, in
    a forward pass, a maximum."""
    tools = Path(knobs.nvidia.nvdisasm.path).parent
    with compiled(monkeypatch, "sm_90") as launches:
        both_passes(call(name, torch.bfloat16, 4096))
    for kernel, least in (("forward_kernel", ("MUFU", "FMNMX")), ("h_block_kernel", ("MUFU",))):
        (one,) = (launch for launch in launches if launch.kernel == kernel)
        totals = [
            piece.total()
            for piece in one.pieces(tmp_path, tools)
            if all(piece[instruction] >= one.pairs for instruction in least)
        ]
        assert min(totals) <= BUDGET["per pair"][kernel][name] * one.pairs, kernel


def test_batches_of_any_size_share_kernels(monkeypatch):
    """Two variants, of small and large batches, serve all of up to 4,096 rows."""
    sizes = random.Random(0).choices(range(1, 4097), k=12)
    with compiled(monkeypatch, "sm_90") as launches:
        for rows in [4096, 4095, *sizes]:
            both_passes(call("clip", torch.bfloat16, rows, d=64))
    variants = {}
    for one in launches:
        variants.setdefault(one.kernel, set()).add(one.binary.hash)
    assert {"forward_kernel", "merge_kernel", "h_block_kernel", "finish_kernel"} <= {*variants}
    assert max(map(len, variants.values())) <= 2, {k: len(v) for k, v in variants.items()}


def test_launches_of_a_step(monkeypatch):
    with compiled(monkeypatch, "sm_90") as launches:
        both_passes(call("clip", torch.bfloat16, 1024))
    assert len(launches) <= 9, [one.kernel for one in launches]


def test_batches_of_many_items(monkeypatch):
    """Only the first axis of a grid may have more than 65,535 program instances."""
    batch = 70_000
    x, y = torch.zeros(batch, 2, 8), torch.zeros(batch, 3, 8)
    program = Program(PROGRAMS["clip"], (), ())
    with compiled(monkeypatch, "sm_90") as launches:
        both_passes(PairCall(Operands(x, y, torch.ones(())), program, True, x.dtype))
    assert all(len(one.grid) == 1 for one in launches)
    assert max(one.grid[0] for one in launches) >= batch


@pytest.mark.parametrize("n", [16, 256])
@pytest.mark.parametrize("architecture", TARGETS)
def test_sorting_fits(monkeypatch, tmp_path, architecture, n):
    x, masses, beta = torch.zeros(4096, n), torch.zeros(4096, 2, n), torch.ones(4096)
    given = SortCall(x, masses, beta, 0.25, "odd_even", "cauchy")
    with compiled(monkeypatch, architecture) as launches:
        sort.sort_network_forward(given)
        sort.sort_network_backward(given, x, masses, [True, True, True])
    for one in launches:
        assert one.binary.metadata.shared <= 16 << 10
        assert one.registers(tmp_path)[1] <= 32, one.label  # mostly predicates
