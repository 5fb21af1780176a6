"""Builds the CUDA backend for the CPU: csrc/cuda, unchanged, with the headers of this folder.

python tests/cuda_host/build.py [plain | thread | address | prototypes] prints the library's path.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from ninja import Writer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
FLAGS += ["-Wno-unknown-pragmas", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
VARIANTS = {
    "plain": [],
    "prototypes": ["-DCL_TF32X3", "-DCL_TWO_BLOCKS"],
    "thread": ["-g1", "-fsanitize=thread"],  # lines; variables take a third longer
    # unoptimised: instrumented kernels take minutes to optimise, and seconds to run
    "address": ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}


def path(variant: str) -> Path:
    return ROOT / "build" / "cuda_host" / variant / "_cuda_host.so"


def build(variant: str = "plain") -> Path:
    """The path of the library, whose operators take CPU tensors; builds it if it is out of date."""
    library = path(variant)
    folder = library.parent
    folder.mkdir(parents=True, exist_ok=True)
    torch_folder = Path(torch.__file__).parent
    extra = VARIANTS[variant]
    includes = [f"-I{HERE}", f"-I{ROOT / 'csrc'}", "-isystem", str(torch_folder / "include")]
    # host.cpp announces fibers to ThreadSanitizer, and is itself not instrumented
    own = ["-DCUDA_HOST_TSAN", "-g"] if variant == "thread" else extra
    with (folder / "build.ninja").open("w") as stream:
        ninja = Writer(stream)
        for name, flags in (("kernels", extra), ("host", own)):
            command = [*CXX, *FLAGS, *flags, *includes, "-MMD", "-MF", "$out.d", "-c", "-o", "$out"]
            ninja.rule(name, " ".join([*command, "-x", "c++", "$in"]), depfile="$out.d", deps="gcc")
        link = [*CXX, "-shared", "-o", "$out", "$in", *extra]
        ninja.rule("link", " ".join([*link, f"-L{torch_folder / 'lib'}", "-ltorch_cpu"]))
        objects = []
        for source in [*sorted((ROOT / "csrc" / "cuda").glob("*.c*")), HERE / "host.cpp"]:
            if source.suffix == ".cuh":
                continue
            objects.append(f"{source.name}.o")
            ninja.build(objects[-1], "host" if source.stem == "host" else "kernels", str(source))
        ninja.build(library.name, "link", objects)
    ninja_command = [sys.executable, "-m", "ninja", "-C", str(folder), "--quiet"]
    # a sanitizer preloaded into this process must not be loaded into the compiler
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(ninja_command, capture_output=True, text=True, env=clean)
    if done.returncode:
        raise RuntimeError(
            f"the CUDA backend does not compile for the host:\n{done.stdout}{done.stderr}"
        )
    return library


if __name__ == "__main__":
    print(build(*sys.argv[1:]))
