"""``python -m analyse``: clang-tidy and cppcheck on csrc; see `make analyse`.

CUDA sources are read as C++ for the CPU, with the headers of tests/cuda_host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import torch

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "csrc").glob("**/*.c*"))
TORCH = Path(torch.__file__).parent / "include"
JOBS = os.cpu_count() or 1

# clang's own warnings; setup.py has those of the build
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
WARNINGS += ["-Wno-sign-conversion"]  # sizes and indices are signed, those of std are not
WARNINGS += ["-Wno-implicit-int-float-conversion"]  # counts far below 2^53
WARNINGS += ["-Wno-deprecated-declarations"]  # of the C++ library, in itself
WARNINGS += ["-Wno-unknown-pragmas"]  # they are nvcc's
DEFINES = {
    "module.cpp": [f'-D{k}=""' for k in ("CL_BUILD_FLAGS", "CL_CPU_ISAS", "CL_CUDA_ARCHITECTURES")]
}
CUDA = ["-x", "c++", f"-I{ROOT / 'tests/cuda_host'}"]
ARM = ["--target=aarch64-linux-gnu"]  # clang finds the headers of g++-aarch64-linux-gnu


def said(command: list[str]) -> str:
    """What a tool writes if it fails, as it does with a finding; nothing otherwise."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if not done.returncode:
        return ""
    return done.stdout or done.stderr or f"{command[0]} ended with {done.returncode}\n"


def clang_tidy(source: Path) -> str:
    """What it finds in a source and in the headers that it includes."""
    headers = [TORCH, pybind11.get_include(), sysconfig.get_path("include")]
    command = ["clang-tidy", "--quiet", str(source), "--", "-std=c++17"]
    command += [*(CUDA if "cuda" in source.parts else []), f"-I{ROOT / 'csrc'}"]
    command += ARM if "neon" in source.name else []
    command += [*WARNINGS, *DEFINES.get(source.name, [])]
    command += [f for h in headers for f in ("-isystem", str(h))]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    return said(command)


def cppcheck() -> str:
    """What it finds. The engines of instruction sets are one source, so it reads one of them."""
    skip = ("isa_avx2.cpp", "isa_avx512.cpp", "isa_generic.cpp", "isa_neon.cpp")
    sources = [str(s.relative_to(ROOT)) for s in SOURCES if s.suffix != ".cuh"]
    command = ["cppcheck", "--quiet", f"-j{JOBS}", "--language=c++", "--std=c++17"]
    command += ["--enable=warning,performance,portability", "--inline-suppr", "--error-exitcode=1"]
    command += ["--suppressions-list=tests/analyse.cppcheck", "-Icsrc", "-Itests/cuda_host"]
    command += ["-U__has_feature"]  # clang's; cppcheck would try it as a plain name
    command += ["--template={file}:{line}: {severity}: {message} [{id}]"]
    command += [s for s in sources if not s.endswith(skip)]
    return said(command)


def main() -> int:
    sources = [s for s in SOURCES if s.suffix in (".cpp", ".cu")]
    if not shutil.which("aarch64-linux-gnu-g++"):
        sources = [s for s in sources if "neon" not in s.name]
    with ThreadPoolExecutor(JOBS) as pool:
        outputs = [*pool.map(clang_tidy, sources)]
    # a header is read with each source that includes it; one finding is enough
    findings = re.split(r"(?m)^(?=\S+:\d+:\d+: (?:error|warning))", "".join(outputs))
    found = "".join(dict.fromkeys(findings)) + cppcheck()
    print(found or f"clang-tidy and cppcheck find nothing in {len(sources)} sources")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
