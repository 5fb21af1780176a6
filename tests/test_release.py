"""What a release is made with: libraries for an old glibc, the matrix, the workflow of CI."""

import ctypes
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import glibc
import matrix
import pytest

ROOT = Path(__file__).parents[1]

needs_linker = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("c++") and shutil.which("readelf")),
    reason="needs a C++ compiler and readelf, on Linux",
)

#: what a native library may need of the system: glibc 2.28 and the libstdc++ of GCC 8
MOST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}

PROGRAM = r"""
#include <cmath>
#include <exception>
#include <new>
#include <pthread.h>
#include <sstream>
#include <vector>

struct Counted {
  int* alive;
  explicit Counted(int* a) : alive(a) { ++*alive; }
  Counted(const Counted& other) : alive(other.alive) { ++*alive; }
  ~Counted() { --*alive; }
};

static void* nothing(void* value) { return value; }

// Bits for what went wrong.
extern "C" int check(double x, size_t many) {
  int alive = 0, wrong = 0;
  {
    std::exception_ptr first;
    try { throw Counted(&alive); } catch (...) { first = std::current_exception(); }
    std::vector<std::exception_ptr> copies(7, first);
    first = nullptr;
    copies[3] = copies[2];
    wrong |= alive != 1;
    try { std::rethrow_exception(copies[6]); } catch (const Counted& c) { wrong |= *c.alive != 1; }
  }
  wrong |= (alive != 0) << 1;
  std::ostringstream text;
  text << 12 << "ab";
  wrong |= (text.str() != "12ab") << 2;
  try {
    volatile size_t n = many;
    delete[] new double[n];
    wrong |= 1 << 3;
  } catch (const std::bad_alloc&) {
  }
  wrong |= (std::exp(x) * std::pow(x, 2.0) != std::exp(x) * x * x) << 4;
  pthread_t thread;
  wrong |= (pthread_create(&thread, nullptr, nothing, nullptr) != 0) << 5;
  pthread_join(thread, nullptr);
  return wrong;
}
"""


def needed(library):
    """The newest version of each kind that a library needs."""
    text = subprocess.run(["readelf", "--version-info", "--wide", library], check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    found = {}
    for kind, version in re.findall(r"Name: (GLIBC|GLIBCXX|CXXABI)_([\d.]+)", text):
        numbers = tuple(map(int, version.split(".")))
        found[kind] = max(found.get(kind, ()), numbers)
    return found


@needs_linker
def test_a_library_for_an_old_glibc(tmp_path):
    """It needs nothing newer, and runs; without the two measures it would need more."""
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM)
    stubs = glibc.libraries(tmp_path / "stubs", MOST["GLIBC"])
    command = ["c++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=default", source]
    subprocess.run([*command, "-o", tmp_path / "new.so"], check=True)
    subprocess.run([*command, ROOT / "csrc/portable.cpp", *(f"-Wl,{path}" for path in stubs),
                    "-o", tmp_path / "old.so"], check=True)  # fmt: skip
    assert all(version <= MOST[kind] for kind, version in needed(tmp_path / "old.so").items())
    assert any(version > MOST[kind] for kind, version in needed(tmp_path / "new.so").items())
    for name in ("new.so", "old.so"):
        library = ctypes.CDLL(str(tmp_path / name))
        library.check.argtypes = ctypes.c_double, ctypes.c_size_t
        assert library.check(0.7, 2**62) == 0, name


@needs_linker
def test_the_newest_of_the_old_names_is_taken():
    """Values of glibc 2.34 and later; an older one has no newer names."""
    found = glibc.old_names((2, 28))
    if not found.get("libpthread.so.0"):
        pytest.skip("this glibc is older than 2.34")
    first = {"x86_64": "GLIBC_2.2.5", "aarch64": "GLIBC_2.17"}[platform.machine()]
    clock = {"x86_64": "GLIBC_2.3.3", "aarch64": "GLIBC_2.17"}[platform.machine()]
    assert found["libpthread.so.0"]["pthread_create"] == first
    assert found["libpthread.so.0"]["pthread_condattr_setclock"] == clock
    assert found["libdl.so.2"]["dlsym"] == first
    assert found["libm.so.6"]["exp"] == first
    assert "sin" not in found["libm.so.6"]  # has had one version
    assert glibc.old_names((99, 0)) == {}


def test_the_matrix_names_files_that_exist():
    for names in (matrix.OPERATORS, matrix.COMPILED[:1], matrix.INTERPRETED[:1]):
        assert [name for name in names if not (ROOT / "tests" / name).exists()] == []


def test_the_workflow_calls_targets_that_exist():
    made = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflow = (ROOT / ".github/workflows/checks.yml").read_text()
    called = set(re.findall(r"(?:run: |  )make ([a-z-]+)", workflow))
    assert called == {"docs", "lint", "notebooks", "test", "wheels"}
    assert called <= made
