"""Builds all files of a release into dist/: ``make wheels``.

The sdist; a wheel with native code for each Python; a wheel without any, which serves all other
systems; and the hashes of all. Native wheels load where glibc is 2.28 or later. Two builds of a
commit with the same compilers give the same files.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import contents
import glibc

ROOT = Path(__file__).resolve().parents[1]
WORK, DIST = ROOT / "build/release", ROOT / "dist"
#: RHEL 8, Debian 10, Ubuntu 18.10; torch's own wheels need it too
GLIBC = (2, 28)
PLATFORM = f"manylinux_2_28_{platform.machine()}"
#: the package index refuses larger ones without a special permission
MOST_BYTES = 60 * 10**6
#: otherwise the number of nvcc's process and the folder of a source are in the names of symbols
NAMELESS = "--frandom-seed=0 -Xcudafe=--orig_src_path_name=csrc"
#: what setup.py needs beside torch
TOOLS = ("setuptools", "wheel", "ninja", "pybind11")


def run(*command: str | Path, **environment: str) -> None:
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": tools, **environment}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def commit_time() -> str:
    """The time that all files get: that of the commit, or SOURCE_DATE_EPOCH."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    log = ["git", "-c", f"safe.directory={ROOT}", "log", "-1", "--format=%ct"]
    return subprocess.check_output(log, cwd=ROOT, text=True).strip()


def sdist() -> Path:
    """setuptools writes the times and the owners of this machine's files; both are removed."""
    run(sys.executable, "-m", "build", "--quiet", "--sdist", "--no-isolation", "-o", WORK / "sdist")
    (made,) = (WORK / "sdist").glob("*.tar.gz")
    found, when = BytesIO(), int(os.environ["SOURCE_DATE_EPOCH"])
    with tarfile.open(made) as old, tarfile.open(fileobj=found, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.pax_headers = when, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path = DIST / made.name
    with path.open("wb") as file, gzip.GzipFile("", "wb", mtime=when, fileobj=file) as packed:
        packed.write(found.getvalue())
    return path


def interpreter(python: str) -> tuple[str, dict[str, str]]:
    """An interpreter that can build, and its environment: this one, or another with the tools and
    with this one's torch, of which only headers and libraries are used."""
    if not python:
        return sys.executable, {}
    import torch

    told = subprocess.check_output([python, "--version"], text=True)
    folder = WORK / told.strip().lower().replace(" ", "-")
    run(python, "-m", "venv", folder)
    made = (folder / "bin/python").as_posix()
    run(made, "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
        "-c", "constraints.txt", *TOOLS)  # fmt: skip
    (WORK / "torch").mkdir(exist_ok=True)
    link = WORK / "torch/torch"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(torch.__file__).parent)
    return made, {"PYTHONPATH": str(link.parent)}


def wheel(python: str, native: bool) -> Path:
    made, environment = interpreter(python)
    shutil.rmtree(ROOT / "build/lib", ignore_errors=True)  # files that are no longer in the package
    stubs = glibc.libraries(WORK / "glibc", GLIBC)
    environment["NVCCFLAGS"] = f"{os.environ.get('NVCCFLAGS', '')} {NAMELESS}"
    environment["LDFLAGS"] = " ".join(["-Wl,-s", *(f"-Wl,{path}" for path in stubs)])
    if native:
        environment["CONTRASTLOSS_NATIVE"] = "1"
    else:
        environment |= {"CONTRASTLOSS_NATIVE": "0", "CONTRASTLOSS_CUDA": "0"}
    folder = WORK / ("native" if native else "pure") / Path(made).parents[1].name
    run(made, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet",
        "--no-build-isolation", "--no-deps", "-w", folder, ".", **environment)  # fmt: skip
    (built,) = folder.glob("*.whl")
    if native:
        run(sys.executable, "-m", "auditwheel", "repair", "--plat", PLATFORM, "--only-plat",
            "--exclude", "libtorch*", "-w", folder / "repaired", built)  # fmt: skip
        (built,) = (folder / "repaired").glob("*.whl")
    home = os.environ.get("CUDA_HOME")
    path = contents.add(built, f"{home}/bin/nvcc" if home else None)
    return Path(shutil.move(path, DIST))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs="*", help="other Pythons, beside this one")
    given = parser.parse_args()
    os.environ["SOURCE_DATE_EPOCH"] = commit_time()
    for folder in (WORK, DIST):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    made = [sdist(), wheel("", native=False), *(wheel(p, True) for p in ["", *given.python])]
    with (DIST / "SHA256SUMS").open("w") as sums:
        for path in made:
            sums.write(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
            print(f"{path.stat().st_size / 1e6:8.2f} MB  {path.name}")
            if path.stat().st_size > MOST_BYTES:
                sys.exit(f"{path.name}: more than {MOST_BYTES / 1e6:g} MB")


if __name__ == "__main__":
    main()
