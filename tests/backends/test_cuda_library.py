"""The CUDA library as it was built: what it holds, for which chips, and what it asks of them. Needs
no GPU."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import torch

from contrastloss.backends import cuda

if cuda.missing() is not None:
    pytest.skip(f"cuda: {cuda.missing()}", allow_module_level=True)
if cuda.DEVICE != "cuda":
    pytest.skip("--cuda-host puts another library in its place", allow_module_level=True)

from contrastloss import _C

#: bytes of a lane's numbers that may lie in memory instead of registers: of any program, since the
#: two numbers of a Pair and a View's switch go through it; nothing is spilled
STACK = 64
MEGABYTES = 60
OPERATORS = ("forward", "measure", "sums", "panel", "totals", "finish")


@pytest.fixture(scope="module")
def objects():
    """cuobjdump of the library, which Triton brings."""
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
    """So that it loads beside every torch."""
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
    wanted = {f"sm_{word.split('+')[0].replace('.', '')}" for word in said}
    assert set(re.findall(r"\.(sm_\w+)\.cubin", objects("-lelf"))) == wanted
    ptx = {f"sm_{w.split('+')[0].replace('.', '')}" for w in said if w.endswith("+PTX")}
    assert set(re.findall(r"\.(sm_\w+)\.ptx", objects("-lptx"))) == ptx


def test_kernels_keep_their_numbers_in_registers(objects):
    """None may spill: what lies on the stack is bounded, and a thread has 255 registers."""
    found = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", objects("-res-usage"))
    kernels = [(name, int(reg), int(stack)) for name, reg, stack in found if "_kernel" in name]
    wide = [k for k in kernels if k[1] > 255 or k[2] > STACK]
    assert not wide, wide
    architectures = len(_C.build_info()["cuda_architectures"])
    programs = [name for name, *_ in kernels if re.search("(forward|panel)_kernel", name)]
    assert len(programs) == architectures * (3 * 2 * 7 + 2)
