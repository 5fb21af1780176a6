"""The CUDA library as built: its operators, architectures and resource usage. Needs no GPU."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from backends import sass

from contrastloss.backends import cuda

if cuda.absent() is not None:
    pytest.skip(f"cuda: {cuda.absent()}", allow_module_level=True)
if cuda.DEVICE != "cuda":
    pytest.skip("--cuda-host puts another library in its place", allow_module_level=True)

from contrastloss import _C

#: what kernels of pairs may use on sm_90. Registers: per thread; a block has 256, so one block runs
#: per multiprocessor. Stack: bytes per thread, with what is spilled. Local: loads from there, which
#: the constant kernels have only where rows have a top of their own. Instructions per pair: to
#: exponentiate and add up a logit, where all pairs of a lane are included. Per test: of ids. Per
#: stage: of the loop that multiplies 128 bytes of each row of a tile and copies the next 128, for
#: 64 matrix instructions.
BUDGET = json.loads((Path(__file__).parent / "cuda_budget.json").read_text())
MEGABYTES = 60
OPERATORS = ("forward", "measure", "begin", "h_block", "totals", "finish", "topk", "gather")
OPERATORS += ("gather_backward", "sort", "sort_backward")


@pytest.fixture(scope="module")
def tools():
    """The folder of cuobjdump and nvdisasm, which Triton ships."""
    spec = importlib.util.find_spec("triton")
    if spec is None:
        pytest.skip("needs triton, for its cuobjdump")
    return Path(spec.submodule_search_locations[0], "backends", "nvidia", "bin")


@pytest.fixture(scope="module")
def objects(tools):
    """Runs cuobjdump on the library."""

    def run(*options):
        command = [str(tools / "cuobjdump"), *options, str(cuda.LIBRARY)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return run


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_registered(name):
    operator = f"contrastloss::cuda_{name}"
    assert torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CUDA")


def test_it_links_no_cuda():
    """The library loads with every torch."""
    command = ["readelf", "--dynamic", "--wide", str(cuda.LIBRARY)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(\S+)\.so", listed))
    # of glibc: the last three are where an old one has what libc has now
    system = {"libc", "libm", "ld-linux-x86-64", "libdl", "libpthread", "librt"}
    assert needed <= {"libtorch_cpu", "libstdc++", "libgcc_s", *system}
    assert "libtorch_cpu" in needed
    assert "RUNPATH" not in listed
    assert "RPATH" not in listed


def test_its_size():
    assert cuda.LIBRARY.stat().st_size <= MEGABYTES << 20


def test_it_holds_the_architectures_that_it_says(objects):
    said = _C.build_info()["cuda_architectures"]
    wanted = {f"sm_{word.split('+')[0].replace('.', '').rstrip('af')}" for word in said}
    found = {word.rstrip("af") for word in re.findall(r"\.(sm_\w+)\.cubin", objects("-lelf"))}
    assert found == wanted  # without the letter, which older tools omit
    ptx = {word.rstrip("af") for word in re.findall(r"\.(sm_\w+)\.ptx", objects("-lptx"))}
    assert bool(ptx) is any(word.endswith("+PTX") for word in said)


def test_kernels_keep_to_their_budget(tools, tmp_path):
    kernels = sass.read(cuda.LIBRARY, "sm_90", tools, tmp_path)
    assert len(kernels) == 3 * 2 * len(sass.PROGRAMS) + 2
    beyond = []

    def check(name, what, found, most):
        if found is not None and found > most:
            beyond.append(f"{' '.join(name)}: {found} {what}, at most {most}")

    for name, kernel in kernels.items():
        _, element, program = name
        kind = "any program in fp64" if element == "fp64" else "any program"
        most = BUDGET["constant" if program else kind]
        check(name, "registers", kernel.registers, most["registers"])
        check(name, "bytes of stack", kernel.stack, most["stack"])
        check(name, "loads from local memory", kernel.total("LDL"), most["local"])
        total = sum(piece.total() for piece in kernel.pieces)
        check(name, "instructions", total, most["instructions"])
        if not program:
            continue
        calls = most["calls per kernel"]
        check(name, "calls", kernel.total("CALL"), calls.get(program, calls[""]))
        check(name, "instructions per pair", kernel.per_pair(), most["per pair"])
        check(name, "instructions per test", kernel.per_test(), most["per test"])
        check(name, "instructions per stage", kernel.loop(), most["per stage"][element])
    assert not beyond, "\n".join(beyond)
    clip = kernels["forward", "bf16", "0 5"]  # the code has what is counted
    assert None not in (clip.per_pair(), clip.per_test(), clip.loop())
