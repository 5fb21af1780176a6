"""Libraries to link with, so that the result loads on systems with an older glibc.

A program that is linked here asks for the newest version of each function: ``pthread_create`` of
glibc 2.34, although that of 2.2.5 is the same function under the name that older systems know. The
libraries made here have nothing but names, each in the newest version that an old glibc has. A
linker that meets them before the real ones takes the old names. At run time the real libraries
serve them, as they serve every old program.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

#: where functions of libc.so.6 were before glibc 2.34, by the beginning of their names
MOVED = {"pthread_": "libpthread.so.0", "sem_": "libpthread.so.0", "dl": "libdl.so.2",
         "shm_": "librt.so.1"}  # fmt: skip

Version = tuple[int, ...]


def old_names(glibc: Version, compiler: str = "c++") -> dict[str, dict[str, str]]:
    """By library: the functions whose newest version is beyond ``glibc``, and the newest version
    that is not."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for library in ("libc.so.6", "libm.so.6"):
        versions: dict[str, list[Version]] = defaultdict(list)
        for name, version in functions(path_of(library, compiler)):
            versions[name].append(version)
        for name, known in sorted(versions.items()):
            older = [version for version in known if version <= glibc]
            if older and max(known) > glibc:
                places = (place for start, place in MOVED.items() if name.startswith(start))
                text = "GLIBC_" + ".".join(map(str, max(older)))
                found[next(places, library)][name] = text
    return found


def path_of(library: str, compiler: str) -> str:
    command = [compiler, f"-print-file-name={library}"]
    return subprocess.check_output(command, text=True).strip()


def functions(library: str) -> Iterator[tuple[str, Version]]:
    """The functions that a library offers, in all of their versions."""
    command = ["readelf", "--dyn-syms", "--wide", library]
    for line in subprocess.check_output(command, text=True).splitlines():
        words = line.split()
        if len(words) >= 8 and words[3] in ("FUNC", "IFUNC") and words[6] != "UND":
            name, _, version = words[7].replace("@@", "@").partition("@")
            if version.startswith("GLIBC_") and version != "GLIBC_PRIVATE":
                yield name, tuple(map(int, version.removeprefix("GLIBC_").split(".")))


def libraries(folder: Path, glibc: Version, compiler: str = "c++") -> list[Path]:
    """Writes the libraries, and returns them in the order in which to link them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for library, names in sorted(old_names(glibc, compiler).items()):
        source, script = folder / f"{library}.cpp", folder / f"{library}.map"
        source.write_text("".join(f'extern "C" void {name}() {{}}\n' for name in names))
        nodes: dict[str, list[str]] = defaultdict(list)
        for name, version in names.items():
            nodes[version].append(name)
        script.write_text("".join(f"{v} {{ {'; '.join(n)}; }};\n" for v, n in nodes.items()))
        made.append(folder / library)
        flags = ["-shared", "-nostdlib", "-fPIC", "-fno-builtin", "-w"]
        flags += [f"-Wl,-soname,{library}", f"-Wl,--version-script={script}"]
        subprocess.run([compiler, *flags, "-o", made[-1], source], check=True)
    return made
