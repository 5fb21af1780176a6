"""Every Triton kernel, with every row of its table, compiled for chips that are not present. It
must fit in their shared memory, keep its values in registers, and use Hopper's wgmma."""

import re
import subprocess

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

from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from contrastloss.backends.triton import backward, config, forward, sort

ARCHITECTURES = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
#: bytes of shared memory per program instance
SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10}
PROGRAMS = {
    "clip": (
        LSE(pairs=(differs(INDEX),)),
        LSE(pairs=(differs(INDEX),), axis=COL),
        SUM(pairs=(same(INDEX),)),
    ),
    "nt_xent": (LSE(pairs=(differs("label"),)), SUM(pairs=(same("label"),))),
    "siglip": (SUM("softplus", pairs=(differs(INDEX),)), SUM(pairs=(same(INDEX),))),
    "mixed": (
        LSE(2.0, weight=(row_weight("weight"), form("form"))),
        LSE(-1.0, relax=0.25, weight=(at_most("form"),)),
        EXPECT(axis=COL, pairs=(differs("label"),), weight=(not_above("weight"),)),
        SUM("focal", shift="shift"),
        MAX(axis=COL, pairs=(same("label"),)),
    ),
}
#: bytes (for AMD: registers) that may be spilled: none for programs of losses, some for a program
#: with every kind of channel and a second form
SPILLS = {"sm_80": 640, "sm_90": 512, "sm_100": 512, "gfx942": 128}
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "i64", torch.int32: "i32"}
ROWS = {"small": 256, "large": 4096}


class Launches:
    """Replaces a kernel and records its launches."""

    def __init__(self, kernel):
        self.kernel, self.kept = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **options: self.kept.append((args, options))


def call(name, dtype, rows):
    symmetric = name == "nt_xent"
    program = PROGRAMS[name]
    names = sorted({n for c in program for n in c.called["row"] | c.called["col"]} - {INDEX})
    shapes = {"label": torch.zeros(rows, dtype=torch.int64), "form": torch.zeros(rows, 8)}
    operands = tuple(shapes.get(n, torch.zeros(rows)) for n in names)
    x = torch.zeros(rows, 512)
    scale = torch.ones(())
    given = Operands(x, None if symmetric else x, scale, rows=operands, cols=operands)
    return PairCall(given, Program(program, tuple(names), tuple(names)), True, dtype)


def launches(monkeypatch, architecture, name, dtype, size):
    """The first launch (kernel, arguments, options) of each kernel of a forward and a backward
    pass."""
    found = []
    for module, kernel in (
        (forward, "forward_kernel"),
        (forward, "merge_kernel"),
        (backward, "h_block_kernel"),
    ):
        found.append(Launches(getattr(module, kernel)))
        monkeypatch.setattr(module, kernel, found[-1])
    monkeypatch.setattr(config, "architecture", lambda device: architecture)
    monkeypatch.setattr(config, "processors", lambda device: 132)
    exact = "ieee" if architecture == "gfx942" or dtype != torch.float32 else "tf32x3"
    for module in (forward, backward):
        monkeypatch.setattr(module, "precision", lambda o: exact)
    given = call(name, dtype, ROWS[size])
    outputs = forward.pair_stats_forward(given)
    grads = [o if o.is_floating_point() else None for o in outputs]
    backward.pair_stats_backward(given, outputs, grads, frozenset({"x", "y", "scale"}))
    return [(one.kernel, *launch) for one in found for launch in one.kept[:1]]


def kind(value):
    if isinstance(value, tuple):
        return tuple(map(kind, value))
    return "*" + NAMES[value.dtype] if isinstance(value, torch.Tensor) else "i32"


def pointers(value, path):
    if isinstance(value, tuple):
        for k, one in enumerate(value):
            yield from pointers(one, (*path, k))
    elif isinstance(value, torch.Tensor):
        yield path


def compiled(kernel, args, options, target):
    given = dict(zip(kernel.arg_names, args, strict=False))
    constants = {k: v for k, v in options.items() if k in kernel.arg_names}
    signature = {n: kind(given[n]) if n in given else "constexpr" for n in kernel.arg_names}
    aligned = {
        path: [["tt.divisibility", 16]] for k, v in enumerate(args) for path in pointers(v, (k,))
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    rest = {k: v for k, v in options.items() if k not in constants}
    return compile_kernel(source, target=target, options=rest)


def spilled(binary, architecture, tmp_path):
    """Spilled bytes according to ptxas, or spilled registers according to the AMD assembler."""
    if architecture == "gfx942":
        return int(re.search(r"\.vgpr_spill_count:\s*(\d+)", binary.asm["amdgcn"])[1])
    number = int(architecture.removeprefix("sm_"))
    found = get_ptxas(number)
    source = tmp_path / "kernel.ptx"
    source.write_text(binary.asm["ptx"])
    chip = architecture + ("a" if number >= 90 else "")
    command = [getattr(found, "path", found), "-v", f"--gpu-name={chip}", source, "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(re.search(r"(\d+) bytes spill stores", done.stderr)[1])


@pytest.mark.parametrize("size", ROWS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(
    "architecture",
    [a if a == "sm_90" else pytest.param(a, marks=pytest.mark.extra) for a in ARCHITECTURES],
)
def test_kernels_fit(monkeypatch, tmp_path, architecture, name, dtype, size):
    for kernel, args, options in launches(monkeypatch, architecture, name, dtype, size):
        binary = compiled(kernel, args, options, ARCHITECTURES[architecture])
        label = f"{kernel.__name__} {options.get('BLOCK_M')}"
        assert binary.metadata.shared <= SHARED[architecture], label
        found = spilled(binary, architecture, tmp_path)
        budget = SPILLS[architecture] if name == "mixed" else 0
        assert found <= budget, f"{label} spills {found}"
        products = kernel.__name__ != "merge_kernel"
        if products and architecture == "sm_90" and dtype == torch.bfloat16 and size == "large":
            assert "wgmma.mma_async" in binary.asm["ptx"], label


@pytest.mark.parametrize("n", [16, 256])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sorting_fits(monkeypatch, tmp_path, architecture, n):
    found = [Launches(getattr(sort, name)) for name in ("forward_kernel", "backward_kernel")]
    for one in found:
        monkeypatch.setattr(sort, one.kernel.__name__, one)
    x, masses, beta = torch.zeros(4096, n), torch.zeros(4096, 2, n), torch.ones(4096)
    given = SortCall(x, masses, beta, 0.25, "odd_even", "cauchy")
    sort.sort_network_forward(given)
    sort.sort_network_backward(given, x, masses, [True, True, True])
    for one in found:
        args, options = one.kept[0]
        binary = compiled(one.kernel, args, options, ARCHITECTURES[architecture])
        assert binary.metadata.shared <= 16 << 10
        spill = spilled(binary, architecture, tmp_path)
        assert spill <= 32, f"{one.kernel.__name__} spills {spill}"  # mostly predicates
