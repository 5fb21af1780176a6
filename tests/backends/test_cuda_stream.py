"""Where the CUDA library has PyTorch's streams from, and with which drivers and torches it runs:
what the emulation on the host would have to replace."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contrastloss.backends import cuda

ROOT = Path(__file__).parent.parent.parent
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
TORCH = Path(torch.__file__).parent

#: as torch has it in an older release, in a library that only torch itself can see
LIBRARY = """
#include <cstdint>
extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  *stream = reinterpret_cast<void*>(uintptr_t(4096 + device));
  return 0;
}
"""
PROBE = """
#include "cuda/stream.h"
extern "C" uintptr_t stream(int device) {
  void* found = nullptr;
  const auto current = contrastloss::cuda::stream_of_libtorch_cuda();
  if (current == nullptr || current(device, &found) != 0) return 0;
  return reinterpret_cast<uintptr_t>(found);
}
extern "C" int everyone_sees_it() {
  return dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream") != nullptr;
}
extern "C" const char* source() { return contrastloss::cuda::stream_source(); }
"""
ASK = """
import ctypes, sys
import torch
probe = ctypes.CDLL(sys.argv[1])
probe.source.restype = ctypes.c_char_p
print(probe.stream(3), probe.source())
ctypes.CDLL(sys.argv[2])  # RTLD_LOCAL
print(probe.stream(3), probe.source(), probe.everyone_sees_it())
"""


def compiled(folder, name, text, *flags):
    (folder / f"{name}.cpp").write_text(text)
    command = [*CXX, "-std=c++17", "-shared", "-fPIC", f"{name}.cpp", "-o", f"{name}.so", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / f"{name}.so"


def test_a_stream_of_a_library_that_torch_loads_for_itself_alone(tmp_path):
    """The symbol of libtorch_cuda is found by its handle. It is not among the global ones."""
    library = compiled(tmp_path, "cuda", LIBRARY, "-Wl,-soname,libtorch_cuda.so")
    includes = [f"-I{ROOT / 'csrc'}", "-isystem", str(TORCH / "include")]
    defines = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    link = ["-Wl,--no-as-needed", f"-L{TORCH / 'lib'}", "-ltorch_cpu"]
    probe = compiled(tmp_path, "probe", PROBE, *includes, *defines, *link)
    command = [sys.executable, "-c", ASK, str(probe), str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (none, _), (found, source, everyone) = map(str.split, done.stdout.splitlines())
    if torch.version.cuda is None:  # else torch's own library answers
        assert none == "0"
        assert found == "4099"
    assert everyone == "0"
    newer = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    assert source == ("b'torch_stream_native_handle'" if newer else "b'libtorch_cuda.so'")


@pytest.mark.parametrize(
    ("driver", "runtime", "streams", "reason"),
    [
        (13000, 13000, "libtorch_cuda.so", None),
        (13020, 13000, "torch_stream_native_handle", None),
        (13000, 13020, "libtorch_cuda.so", None),  # of one major version
        (12080, 13000, "libtorch_cuda.so", "needs CUDA 13.0: the NVIDIA driver serves CUDA 12.8"),
        (0, 12090, "libtorch_cuda.so", "needs CUDA 12.9: no NVIDIA driver"),
        (13000, 13000, None, "this torch has no CUDA: neither torch_stream_native_handle nor"),
    ],
)
def test_why_it_cannot_run(driver, runtime, streams, reason):
    found = cuda.unfit(driver, runtime, streams)
    assert found == reason or (reason is not None and reason in found)


def test_the_products_of_torch_take_what_product_h_gives_them():
    """The kernels on the host multiply in fp32 and fp64 only, so never meet the second one."""
    shared = "Tensor self, Tensor mat2, "
    out = "*, Tensor(a!) out) -> Tensor(a!)"
    assert str(torch.ops.aten.bmm.out._schema) == f"aten::bmm.out({shared}{out}"
    narrow = f"aten::bmm.dtype_out({shared}ScalarType out_dtype, {out}"
    assert str(torch.ops.aten.bmm.dtype_out._schema) == narrow
