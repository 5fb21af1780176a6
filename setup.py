"""Builds the native code; all metadata is in pyproject.toml.

A target is a shared library with its own sources and flags. One ninja file builds them all, and
rebuilds what changed, headers included. Without native code the package still works and
``contrastloss/_build.py``, written here, says why it is missing.

Environment: CONTRASTLOSS_NATIVE, CXX, CXXFLAGS, LDFLAGS, MAX_JOBS; CONTRASTLOSS_CUDA, CUDA_HOME,
NVCCFLAGS, TORCH_CUDA_ARCH_LIST; see docs/environment.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

#: "0": no native code; "1": all of it or an error (an exit: setuptools lets no exception through
#: from the commands of an editable install); unset: what this machine can build
NATIVE = os.environ.get("CONTRASTLOSS_NATIVE", "")
#: the same for the CUDA library; unset: where CUDA_HOME is set. Hardware is not looked at.
CUDA = os.environ.get("CONTRASTLOSS_CUDA", "")
CUDA_HOME = os.environ.get("CUDA_HOME", "")
ARCHITECTURES = re.split(
    r"[;\s]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip() or "8.0+PTX;9.0;10.0;12.0"
)
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
CXXFLAGS = shlex.split(os.environ.get("CXXFLAGS", ""))
LDFLAGS = shlex.split(os.environ.get("LDFLAGS", ""))
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fopenmp-simd"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
NVCC_FLAGS += ["-Xfatbin=-compress-all"]  # to a fifth
NVCC_FLAGS += shlex.split(os.environ.get("NVCCFLAGS", ""))
#: the oldest torch that the operator libraries run with; one build serves every later one
TORCH_TARGET = "0x020a000000000000"

BUILD = Path("build", "native")
#: the machine that the build is for, which need not be this one
MACHINE = sysconfig.get_platform().split("-", 1)[-1]
#: by machine: instruction sets whose engines (csrc/cpu/isa_*.cpp) only its compiler knows
ENGINES = {"x86_64": ("amx", "avx512_bf16", "avx512", "avx2"), "aarch64": ("neon_bf16", "neon")}
if MACHINE == "aarch64":  # GCC hoists loads over products, and then spills sums
    FLAGS.append("-fno-schedule-insns")
#: only the Python module differs between versions of Python
ABI = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
PORTABLE = ["csrc/portable.cpp"]
OTHERS = [f"isa_{name}" for m, names in ENGINES.items() if m != MACHINE for name in names]
CPU_SOURCES = sorted(p.as_posix() for p in Path("csrc/cpu").glob("*.cpp") if p.stem not in OTHERS)
CUDA_SOURCES = sorted(p.as_posix() for s in ("cpp", "cu") for p in Path("csrc/cuda").glob(f"*.{s}"))

#: why a target is missing, or None where it is built; ends up in contrastloss/_build.py
missing: dict[str, str | None] = {}


@dataclass
class Target:
    """``module`` is the file contrastloss/<module><suffix>; ``link_flags`` come after LDFLAGS."""

    module: str
    suffix: str
    sources: list[str]
    compiler: list[str]
    linker: list[str]
    link_flags: list[str]


def torch_folder() -> Path | None:
    """Where torch is installed, found without importing it, and whatever links lead there: a new
    path would be a new command for every source.

    An isolated build does not see the packages of the environment it serves, but still knows
    where they are.
    """
    spec = importlib.util.find_spec("torch")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or []]
    places += [Path(sysconfig.get_path(scheme), "torch") for scheme in ("purelib", "platlib")]
    header = "include/torch/csrc/stable/library.h"
    return next((place.resolve() for place in places if (place / header).is_file()), None)


def torch_version(torch: Path) -> tuple[int, ...]:
    """(major, minor) as the headers have it; (0, 0) for those that do not say."""
    header = torch / "include/torch/headeronly/version.h"
    text = header.read_text() if header.is_file() else ""
    found = (re.search(rf"TORCH_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR"))
    return tuple(int(match[1]) if match else 0 for match in found)


def system_include(*folders: str | Path) -> list[str]:
    """Folders of other people's headers, whose place must not show in the binary."""
    return [f for d in folders for f in ("-isystem", str(d), f"-ffile-prefix-map={d}=include")]


def cxx_target(
    module: str, suffix: str, sources: list[str], flags: list[str], link_flags: list[str]
) -> Target:
    compiler = [*CXX, *FLAGS, "-Icsrc", *flags, *CXXFLAGS]
    linker, flags = [*CXX, "-shared", *CXXFLAGS], [*LDFLAGS, *link_flags]
    return Target(module, suffix, sources + PORTABLE, compiler, linker, flags)


def usable_torch() -> Path | str:
    """Where the headers of the stable ABI are; or why there are none."""
    torch = torch_folder()
    if torch is None:
        return "no headers of torch 2.10 or later where it was built"
    if torch_version(torch) < (2, 10):
        return "the headers of torch where it was built are older than 2.10"
    return torch


def cpu_library() -> Target | str:
    """The operators on CPU tensors, against torch's stable ABI; or why they cannot be built."""
    if not CPU_SOURCES:
        return "the source tree has no csrc/cpu"
    if MACHINE not in ENGINES:
        return f"it is written for {' and '.join(ENGINES)}, not for {MACHINE}"
    torch = usable_torch()
    if isinstance(torch, str):
        return torch
    return cxx_target(
        "_cpu",
        ".so",
        CPU_SOURCES,
        [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", *system_include(torch / "include")],
        [f"-L{torch / 'lib'}", "-ltorch_cpu"],
    )


def gencode(architectures: list[str]) -> list[str]:
    """nvcc's flags for the words of TORCH_CUDA_ARCH_LIST. Nothing in the sources is newer than the
    oldest of them, so its PTX serves all; one for each would take half as long again."""
    found = {word: re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", word) for word in architectures}
    for word, match in found.items():
        if not match or int(match[1]) < 8:
            sys.exit(
                f"TORCH_CUDA_ARCH_LIST: got {word!r}, expected words such as 8.0, 9.0a or "
                "8.0+PTX, from 8.0 on"
            )
    matches = [match for match in found.values() if match]
    ptx = "compute_{}{}".format(*min((int(match[1]), int(match[2])) for match in matches))
    codes = [f"sm_{match[1]}{match[2]}{match[3]}" for match in matches]
    codes += [ptx] * any(match[4] for match in matches)
    return [f"-gencode=arch={ptx},code={code}" for code in codes]


def cuda_library() -> Target | str:
    """The operators on CUDA tensors, linked with neither torch's CUDA libraries nor a shared CUDA
    runtime, so that it loads beside every torch; or why it cannot be built."""
    if CUDA == "0":
        return "built with CONTRASTLOSS_CUDA=0"
    if not CUDA and not CUDA_HOME:
        return "built without CUDA_HOME and CONTRASTLOSS_CUDA"
    nvcc = os.path.join(CUDA_HOME, "bin", "nvcc") if CUDA_HOME else shutil.which("nvcc")
    if nvcc is None or shutil.which(nvcc) is None:
        return f"no CUDA compiler ({nvcc or 'nvcc'}) where it was built"
    torch = usable_torch()
    if isinstance(torch, str):
        return torch
    flags = gencode(ARCHITECTURES)
    defines = ["-DUSE_CUDA", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
    return Target(
        "_cuda",
        ".so",
        CUDA_SOURCES + PORTABLE,
        [nvcc, *NVCC_FLAGS, "-Icsrc", "-isystem", str(torch / "include"), *defines, *flags],
        [nvcc, "-shared", "-cudart=static", "-Xlinker=--exclude-libs,ALL", *flags],
        [*(re.sub("^-Wl,", "-Xlinker=", w) for w in LDFLAGS), f"-L{torch / 'lib'}", "-ltorch_cpu"],
    )


def python_module(isas: list[str], architectures: list[str]) -> Target | str:
    """``contrastloss._C``: what was built and what the CPU can do; or why it cannot be built."""
    if importlib.util.find_spec("pybind11") is None:
        return "no pybind11 where it was built"
    import pybind11

    facts = {
        "CL_BUILD_FLAGS": shlex.join(FLAGS + CXXFLAGS),
        "CL_CPU_ISAS": " ".join(isas),
        "CL_CUDA_ARCHITECTURES": " ".join(architectures),
    }
    headers = {pybind11.get_include(), *(sysconfig.get_path(p) for p in ("include", "platinclude"))}
    return cxx_target(
        "_C",
        sysconfig.get_config_var("EXT_SUFFIX"),
        ["csrc/module.cpp"],
        [*system_include(*sorted(headers)), *(f"-D{k}={json.dumps(v)}" for k, v in facts.items())],
        [],
    )


def targets() -> list[Target]:
    """What can be built here; fills `missing`."""
    if NATIVE == "0":
        reason = "built with CONTRASTLOSS_NATIVE=0"
    elif sys.platform != "linux":
        reason = "native code is built on Linux only"
    elif shutil.which(CXX[0]) is None:
        reason = f"no C++ compiler ({CXX[0]}) where it was built"
    elif importlib.util.find_spec("ninja") is None:
        reason = "no ninja where it was built"
    else:
        cpu, cuda = cpu_library(), cuda_library()
        isas = [Path(s).stem[4:] for s in CPU_SOURCES if Path(s).stem.startswith("isa_")]
        module = python_module(
            [] if isinstance(cpu, str) else isas, [] if isinstance(cuda, str) else ARCHITECTURES
        )
        wanted = {"_C": module, "_cpu": cpu, "_cuda": cuda}
        missing.update((k, t if isinstance(t, str) else None) for k, t in wanted.items())
        return [target for target in wanted.values() if isinstance(target, Target)]
    missing.update(dict.fromkeys(("_C", "_cpu", "_cuda"), reason))
    return []


def required(module: str) -> bool:
    """Whether it is an error that this part is missing."""
    if module == "_cuda":
        return CUDA == "1" or (NATIVE == "1" and bool(CUDA_HOME) and CUDA != "0")
    return NATIVE == "1"


TARGETS = {f"contrastloss.{target.module}": target for target in targets()}


def write_ninja(file: Path) -> None:
    from ninja import Writer

    def command(*words: str) -> str:
        # what ninja itself expands stays bare; the rest is quoted for the shell, then for ninja
        return " ".join(
            w if w.startswith("$") else shlex.quote(w).replace("$", "$$") for w in words
        )

    with file.open("w") as stream:
        ninja = Writer(stream, width=100)
        ninja.variable("builddir", BUILD.as_posix())
        for target in TARGETS.values():
            compiler, linker = target.compiler, target.linker
            ninja.newline()
            ninja.rule(
                f"compile{target.module}",
                command(*compiler, "-MMD", "-MF", "$out.d", "-c", "-o", "$out", "$in"),
                description="compile $in",
                depfile="$out.d",
                deps="gcc",
            )
            link = command(*linker, "-o", "$out", "$in", *target.link_flags)
            ninja.rule(f"link{target.module}", link, description="link $out")
            objects = []
            folder = BUILD / (ABI if target.module == "_C" else target.module)
            for source in target.sources:
                objects.append((folder / f"{source}.o").as_posix())
                ninja.build(objects[-1], f"compile{target.module}", source)
            ninja.build(output(target).as_posix(), f"link{target.module}", objects)


def output(target: Target) -> Path:
    return BUILD / f"{target.module}{target.suffix}"


class BuildNative(build_ext):
    """Runs ninja; setuptools only places what it built."""

    def get_ext_filename(self, fullname: str) -> str:
        *package, module = fullname.split(".")  # setuptools asks with and without the package
        return os.path.join(*package, module + TARGETS[f"contrastloss.{module}"].suffix)

    def build_extensions(self) -> None:
        BUILD.mkdir(parents=True, exist_ok=True)
        file = BUILD / f"{ABI}.ninja"
        write_ninja(file)
        jobs = [f"-j{n}" for n in [os.environ.get("MAX_JOBS")] if n]
        ninja = [sys.executable, "-m", "ninja", "-f", str(file)]
        sys.stdout.flush()
        if subprocess.run([*ninja, "-k0", *jobs]).returncode:
            self._leave_out(ninja)
        for extension in self.extensions:
            destination = self.get_ext_fullpath(extension.name)
            self.mkpath(os.path.dirname(destination))
            self.copy_file(output(TARGETS[extension.name]).as_posix(), destination)

    def _leave_out(self, ninja: list[str]) -> None:
        """The parts that did not compile."""
        for name, target in TARGETS.items():
            asked = [*ninja, "-n", output(target).as_posix()]
            if "no work to do" in subprocess.run(asked, capture_output=True, text=True).stdout:
                continue
            if required(target.module):
                sys.exit(f"the native part {target.module} does not compile, and was asked for")
            missing[target.module] = "it did not compile where it was built"
            kept = [e for e in self.extensions if e.name != name]
            self.extensions = self.distribution.ext_modules = kept


def code_hash(backend: str) -> str:
    """Of what a native backend is compiled from: times of `tune` belong to these sources."""
    found = hashlib.sha256()
    for path in sorted([*Path("csrc").glob("*.*"), *Path("csrc", backend).glob("*.*")]):
        found.update(path.read_bytes())
    return found.hexdigest()


class BuildPython(build_py):
    """Adds contrastloss/_build.py, after ninja has shown what can be built."""

    def run(self) -> None:
        if self.distribution.has_ext_modules():
            self.run_command("build_ext")
        reasons = {module: reason for module, reason in missing.items() if reason}
        if lacking := {module: why for module, why in reasons.items() if required(module)}:
            sys.exit(f"native parts that were asked for are missing: {lacking}")
        super().run()
        folder = (
            Path("contrastloss") if self.editable_mode else Path(self.build_lib, "contrastloss")
        )
        hashes = {f"_{name}": code_hash(name) for name in ("cpu", "cuda")}
        (folder / "_build.py").write_text(
            '"""Written by setup.py: why a native part is missing, None where it was built, and a '
            'hash of what\nit was compiled from."""\n\n'
            f"MISSING = {json.dumps(missing, indent=4).replace('null', 'None')}\n"
            f"SOURCES = {json.dumps(hashes, indent=4)}\n"
        )
        for module, reason in reasons.items():
            print(f"contrastloss: without native part {module}: {reason}", flush=True)
            if self.editable_mode:  # of an earlier build
                for stale in folder.glob(f"{module}.*so"):
                    stale.unlink()


class BuildWheel(bdist_wheel):
    """py3-none-any where nothing native was built, which only the build can tell."""

    def run(self) -> None:
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


setup(
    ext_modules=[Extension(name, target.sources) for name, target in TARGETS.items()],
    cmdclass={"bdist_wheel": BuildWheel, "build_ext": BuildNative, "build_py": BuildPython},
)
