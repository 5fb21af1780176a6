"""The CUDA library as built: its operators, architectures and resource usage. Needs no GPU."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import torch

from contrastloss.backends import cuda

if cuda.absent() is not None:
    pytest.skip(f"cuda: {cuda.absent()}", allow_module_level=True)
if cuda.DEVICE != "cuda":
    pytest.skip("--cuda-host puts another library in its place", allow_module_level=True)

from contrastloss import _C

#: stack bytes per thread, including spilled registers: in the special kernels only arguments of
#: functions that are not inlined, in the generic kernel a little more, in fp64 more
STACK = {"special": 64, "generic": 96, "fp64": 512}
MEGABYTES = 60
OPERATORS = ("forward", "measure", "sums", "h_block", "totals", "finish", "topk", "gather")
OPERATORS += ("gather_backward", "sort", "sort_backward")


@pytest.fixture(scope="module")
def objects():
    """Runs cuobjdump, which Triton ships, on the library."""
    spec = importlib.util.find_spec("triton")
    if spec is None:
        pytest.skip("needs triton, for its cuobjdump")
    tool = Path(spec.submodule_search_locations[0], "backends", "nvidia", "bin", "cuobjdump")

    def run(*options):
        command = [str(tool), *options, str(cuda.LIBRARY)]
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
    assert needed <= {"libtorch_cpu", "libstdc++", "libgcc_s", "libc", "libm", "ld-linux-x86-64"}
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


def test_kernels_keep_their_numbers_in_registers(objects):
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", objects("-res-usage"))
    kernels = [(name, int(stack)) for name, _, stack in found if "_kernel" in name]

    def allowed(name):
        return STACK["fp64" if "ernelId" in name else "generic" if "IJEE" in name else "special"]

    wide = [f"{name}: {stack} bytes" for name, stack in kernels if stack > allowed(name)]
    assert not wide, wide
    architectures = len(_C.build_info()["cuda_architectures"])
    of_pairs = [name for name, *_ in kernels if re.search("(forward|h_block)_kernel", name)]
    assert len(of_pairs) == architectures * (3 * 2 * 7 + 2)
