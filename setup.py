"""Builds the native code; all metadata is in pyproject.toml.

A target is a shared library with its own sources and flags. One ninja file builds them all, and
rebuilds what changed, headers included. Without native code the package still works and
``contrastloss/_build.py``, written here, says why it is missing.

Environment: CONTRASTLOSS_NATIVE, CXX, CXXFLAGS, MAX_JOBS; see docs/environment.md.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
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
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
CXXFLAGS = shlex.split(os.environ.get("CXXFLAGS", ""))
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fopenmp-simd"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra"]
#: the oldest torch that the operator libraries run with; one build serves every later one
TORCH_TARGET = "0x020a000000000000"

BUILD = Path("build", "native", sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)
CPU_SOURCES = sorted(path.as_posix() for path in Path("csrc/cpu").glob("*.cpp"))

#: why a target is missing, or None where it is built; ends up in contrastloss/_build.py
missing: dict[str, str | None] = {}


@dataclass
class Target:
    """``module`` is the file contrastloss/<module><suffix>."""

    module: str
    suffix: str
    sources: list[str]
    compile_flags: list[str]
    link_flags: list[str]


def torch_folder() -> Path | None:
    """Where torch is installed, found without importing it.

    An isolated build does not see the packages of the environment it serves, but still knows
    where they are.
    """
    spec = importlib.util.find_spec("torch")
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or []]
    places += [Path(sysconfig.get_path(scheme), "torch") for scheme in ("purelib", "platlib")]
    header = "include/torch/csrc/stable/library.h"
    return next((place for place in places if (place / header).is_file()), None)


def torch_version(torch: Path) -> tuple[int, ...]:
    """(major, minor) as the headers have it; (0, 0) for those that do not say."""
    header = torch / "include/torch/headeronly/version.h"
    text = header.read_text() if header.is_file() else ""
    found = (re.search(rf"TORCH_VERSION_{part} (\d+)", text) for part in ("MAJOR", "MINOR"))
    return tuple(int(match[1]) if match else 0 for match in found)


def system_include(*folders: str | Path) -> list[str]:
    """Folders of other people's headers, whose place must not show in the binary."""
    return [f for d in folders for f in ("-isystem", str(d), f"-ffile-prefix-map={d}=include")]


def cpu_library() -> Target | str:
    """The operators on CPU tensors, against torch's stable ABI; or why they cannot be built."""
    if not CPU_SOURCES:
        return "the source tree has no csrc/cpu"
    if platform.machine() != "x86_64":
        return f"it is written for x86-64 only, not for {platform.machine()}"
    torch = torch_folder()
    if torch is None:
        return "no headers of torch 2.10 or later where it was built"
    if torch_version(torch) < (2, 10):
        return "the headers of torch where it was built are older than 2.10"
    return Target(
        "_cpu",
        ".so",
        CPU_SOURCES,
        [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", *system_include(torch / "include")],
        [f"-L{torch / 'lib'}", "-ltorch_cpu"],
    )


def python_module(isas: list[str]) -> Target | str:
    """``contrastloss._C``: what was built and what the CPU can do; or why it cannot be built."""
    if importlib.util.find_spec("pybind11") is None:
        return "no pybind11 where it was built"
    import pybind11

    facts = {"CL_BUILD_FLAGS": shlex.join(FLAGS + CXXFLAGS), "CL_CPU_ISAS": " ".join(isas)}
    headers = {pybind11.get_include(), *(sysconfig.get_path(p) for p in ("include", "platinclude"))}
    return Target(
        "_C",
        sysconfig.get_config_var("EXT_SUFFIX"),
        ["csrc/module.cpp"],
        [*system_include(*sorted(headers)), *(f"-D{k}={json.dumps(v)}" for k, v in facts.items())],
        [],
    )


def targets() -> list[Target]:
    """What can be built here; fills `missing`. CUDA kernels will be one more target."""
    if NATIVE == "0":
        reason = "built with CONTRASTLOSS_NATIVE=0"
    elif sys.platform != "linux":
        reason = "native code is built on Linux only"
    elif shutil.which(CXX[0]) is None:
        reason = f"no C++ compiler ({CXX[0]}) where it was built"
    elif importlib.util.find_spec("ninja") is None:
        reason = "no ninja where it was built"
    else:
        cpu = cpu_library()
        isas = [Path(s).stem[4:] for s in CPU_SOURCES if Path(s).stem.startswith("isa_")]
        wanted = {"_C": python_module([] if isinstance(cpu, str) else isas), "_cpu": cpu}
        missing.update((k, t if isinstance(t, str) else None) for k, t in wanted.items())
        return [target for target in wanted.values() if isinstance(target, Target)]
    missing.update(dict.fromkeys(("_C", "_cpu"), reason))
    return []


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
            compiler = [*CXX, *FLAGS, "-Icsrc", *target.compile_flags, *CXXFLAGS]
            linker = [*CXX, "-shared", "-o", "$out", "$in", *CXXFLAGS, *target.link_flags]
            ninja.newline()
            ninja.rule(
                f"compile{target.module}",
                command(*compiler, "-MMD", "-MF", "$out.d", "-c", "-o", "$out", "$in"),
                description="C++ $in",
                depfile="$out.d",
                deps="gcc",
            )
            ninja.rule(f"link{target.module}", command(*linker), description="link $out")
            objects = []
            for source in target.sources:
                objects.append((BUILD / target.module / source).with_suffix(".o").as_posix())
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
        file = BUILD / "build.ninja"
        write_ninja(file)
        jobs = [f"-j{n}" for n in [os.environ.get("MAX_JOBS")] if n]
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-m", "ninja", "-f", str(file), *jobs]).returncode:
            if NATIVE == "1":
                sys.exit("CONTRASTLOSS_NATIVE=1 and the native code does not compile")
            missing.update(dict.fromkeys(missing, "it did not compile where it was built"))
            self.extensions = self.distribution.ext_modules = []
        for extension in self.extensions:
            destination = self.get_ext_fullpath(extension.name)
            self.mkpath(os.path.dirname(destination))
            self.copy_file(output(TARGETS[extension.name]).as_posix(), destination)


class BuildPython(build_py):
    """Adds contrastloss/_build.py, after ninja has shown what can be built."""

    def run(self) -> None:
        if self.distribution.has_ext_modules():
            self.run_command("build_ext")
        reasons = {module: reason for module, reason in missing.items() if reason}
        if reasons and NATIVE == "1":
            sys.exit(f"CONTRASTLOSS_NATIVE=1 and native parts are missing: {reasons}")
        super().run()
        folder = (
            Path("contrastloss") if self.editable_mode else Path(self.build_lib, "contrastloss")
        )
        (folder / "_build.py").write_text(
            '"""Written by setup.py: why a native part is missing, None where it was built."""\n\n'
            f"MISSING = {json.dumps(missing, indent=4).replace('null', 'None')}\n"
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
