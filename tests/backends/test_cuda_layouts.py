"""Which lane holds which numbers of a matrix, by an independent source: the layouts of CuTe, whose
headers the package nvidia-cutlass has, evaluated on the host. The emulation of the instructions has
to agree, and the instructions have to be those that the layouts describe."""

import ctypes
import importlib.util
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
CUDA = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda", "include")
CUTE = importlib.util.find_spec("cutlass_library")
if CUTE is None or not (CUDA / "cccl").exists():
    pytest.skip("needs nvidia-cutlass and the headers of CUDA", allow_module_level=True)
INCLUDE = Path(CUTE.submodule_search_locations[0], "source", "include")

LAYOUTS = """
#include <cute/layout.hpp>
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cstdio>
using namespace cute;
template <class Layout>
void show(const char* name, Layout layout) {
  for (int lane = 0; lane < size<0>(layout); ++lane)
    for (int k = 0; k < size<1>(layout); ++k) printf("%s %d\\n", name, int(layout(lane, k)));
}
template <class Instruction>
void show_all(const char* type) {
  using Traits = MMA_Traits<Instruction>;
  printf("# %s\\n", type);
  show("a", typename Traits::ALayout{});
  show("b", typename Traits::BLayout{});
  show("c", typename Traits::CLayout{});
}
int main() {
  show_all<SM80_16x8x16_F32BF16BF16F32_TN>("bf16");
  show_all<SM80_16x8x16_F32F16F16F32_TN>("f16");
  show_all<SM80_16x8x8_F32TF32TF32F32_TN>("tf32");
  using Copy = Copy_Traits<SM75_U32x4_LDSM_N>;
  printf("# copy\\n");
  show("from", typename Copy::SrcLayout{});
  show("to", typename Copy::DstLayout{});
}
"""
EMULATED = """
#include <cuda/instructions.h>
using namespace contrastloss::cuda;
template <class E>
void multiply(const uint32_t* a, const uint32_t* b, float* c) {
  const unsigned lane = threadIdx.x;
  uint32_t own[4];
  for (int k = 0; k < 4; ++k) own[k] = a[4 * lane + k];
  float* to = c + 4 * lane;
  multiply_add(to[0], to[1], to[2], to[3], own, b[2 * lane], b[2 * lane + 1],
               static_cast<const E*>(nullptr));
}
void load(const uint16_t* rows, uint32_t* to) {
  uint32_t own[4];
  load_matrices(own, rows + 8 * threadIdx.x);
  for (int k = 0; k < 4; ++k) to[4 * threadIdx.x + k] = own[k];
}
template <class... P>
int run(void (*kernel)(P...), P... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1), config.blockDim = dim3(32);
  return cudaLaunchKernelEx(&config, kernel, arguments...) == cudaSuccess;
}
extern "C" int bf16(const uint32_t* a, const uint32_t* b, float* c) {
  return run(multiply<__nv_bfloat16>, a, b, c);
}
extern "C" int f16(const uint32_t* a, const uint32_t* b, float* c) {
  return run(multiply<__half>, a, b, c);
}
extern "C" int tf32(const uint32_t* a, const uint32_t* b, float* c) {
  return run(multiply<float>, a, b, c);
}
extern "C" int copy(const uint16_t* rows, uint32_t* to) { return run(load, rows, to); }
"""


def build(folder, name, text, *flags):
    (folder / f"{name}.cpp").write_text(text)
    command = [*CXX, "-std=c++17", "-w", f"{name}.cpp", *map(str, flags), "-o", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / name


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """By type of numbers and name: the place of a lane's k-th number, (32, numbers)."""
    folder = tmp_path_factory.mktemp("cute")
    program = build(folder, "layouts", LAYOUTS, "-I", INCLUDE, "-I", CUDA, "-I", CUDA / "cccl")
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        name, value = line.split()
        if name == "#":
            kind = found.setdefault(value, {})
        else:
            kind.setdefault(name, []).append(int(value))
    return {k: {n: torch.tensor(v).view(32, -1) for n, v in d.items()} for k, d in found.items()}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder, host = tmp_path_factory.mktemp("emulated"), ROOT / "tests" / "cuda_host"
    flags = ["-shared", "-fPIC", "-I", host, host / "host.cpp"]
    return ctypes.CDLL(str(build(folder, "emulated.so", EMULATED, *flags)))


def pointers(*tensors):
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


@pytest.mark.parametrize(
    ("name", "dtype", "depth"),
    [("bf16", torch.bfloat16, 16), ("f16", torch.float16, 16), ("tf32", torch.float32, 8)],
)
def test_products(name, dtype, depth, layouts, emulated):
    """Places count down the columns of a (16, depth), of b, (8, depth) by columns of the product,
    and of c (16, 8)."""
    of = layouts[name]
    shapes = (16, depth), (8, depth), (16, 8)
    a, b, c = (torch.randint(-8, 9, shape).to(dtype) for shape in shapes)
    own = [m.T.flatten()[of[k]].contiguous() for m, k in ((a, "a"), (b, "b"))]
    sums = c.float().T.flatten()[of["c"]].contiguous()
    assert getattr(emulated, name)(*pointers(*own, sums))
    want = c.float() + a.float() @ b.float().T
    assert torch.equal(sums, want.T.flatten()[of["c"]])


def test_loads(layouts, emulated):
    """Lane k gives a row of eight numbers, k-th of four matrices; places count bits."""
    of = layouts["copy"]
    assert torch.equal(of["from"], torch.arange(32 * 128).view(32, 128))
    rows = torch.randint(-1000, 1000, (32, 8), dtype=torch.int16)
    found = torch.zeros(32, 4, dtype=torch.int32)
    assert emulated.copy(*pointers(rows, found))
    first = of["to"][:, ::16] // 16  # of every number of 16 bits
    assert torch.equal(found.view(torch.int16), rows.flatten()[first])


def test_the_instructions_are_those_of_the_layouts():
    text = (ROOT / "csrc" / "cuda" / "instructions.h").read_text().replace("\\\n", "")
    theirs = "".join(p.read_text() for p in (INCLUDE / "cute" / "arch").glob("*_sm[78]*.hpp"))
    known = [words(opcode) for opcode in re.findall(r"(?:mma|ldmatrix|cp)\.[\w.]+", theirs)]
    joined = re.sub(r'"\s*NAME\s*"', "NAME", text)
    ours = set(re.findall(r"(?:mma|ldmatrix|cp)\.[\w.]+", re.sub(r'"\s*"', "", joined)))
    assert len(ours) == 5  # two kinds of mma, ldmatrix, cp.async and its wait
    for opcode in ours:
        for name in ("bf16", "f16") if "NAME" in opcode else ("",):
            wanted = words(opcode.replace("NAME", name))
            assert any(wanted <= found for found in known), opcode


def words(opcode):
    """The modifiers, which have more than one order; a cache hint is one of theirs alone."""
    return set(opcode.split("."))
