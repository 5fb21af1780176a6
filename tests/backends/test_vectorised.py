"""GCC vectorises every loop of the C++ backend with `#pragma omp simd`, in every instantiation.

A loop that it leaves scalar computes the same numbers several times as slowly, so no other test
fails. Each engine of x86 is compiled with the flags of the build, and GCC reports each loop.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("contrastloss._C", reason="contrastloss._C has not been built")

from contrastloss import _C

CSRC = Path(__file__).parents[2] / "csrc"
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
FLAGS = shlex.split(_C.build_info()["flags"])
#: functions of single numbers: a loop that is reported here is that of a caller
SCALAR = ("candidate.h", "channel.h", "pair.h", "relaxed.h", "simd_math.h")

LIBRARY = "calls a function of the C library"
#: loops that GCC 12 leaves scalar, and has to: file, words of the loop, in how many instances at
#: most, and why
KNOWN = [
    ("sort.h", ".weight(d)", 13, LIBRARY),  # atan in fp64, erfc and pow; some twice, for `keep`
    ("sort.h", ".slopes(", 2, LIBRARY),  # pow
    ("topk.h", "falls", 1, "there are no vectors of integers of 128 bits"),
]
#: engines that leave all but products of bf16 to another, and what only they include
SHARING = ("amx", "avx512_bf16")
OWN = ("amx.h", "pair_products.h")


def defines(flags=()):
    """The macros of the compiler, by name; none if there is no compiler."""
    command = [*CXX, *flags, "-dM", "-E", "-x", "c++", os.devnull]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {line.split()[1] for line in text.splitlines()}


def closing(text, at):
    """Where the bracket at ``at`` closes."""
    depth = 0
    for k, letter in enumerate(text[at:], at):
        depth += (letter in "({") - (letter in ")}")
        if not depth:
            return k
    raise AssertionError(f"nothing closes {text[at : at + 100]!r}")


def loops():
    """(file, first line, last line, code) of all loops with the pragma."""
    for file in sorted(CSRC.rglob("*.h")):
        text = file.read_text()
        for pragma in re.finditer(r"#pragma omp simd.*\n\s*for ", text):
            head = closing(text, pragma.end())
            body = re.compile(r"\s*").match(text, head + 1).end()
            end = closing(text, body) if text[body] == "{" else text.index(";", body)
            first, last = (text.count("\n", 0, at) + 1 for at in (pragma.start(), end))
            yield file, first, last, text[body:end]


def reports(source, folder):
    """(file, line, whether it was vectorised, why not) of all loops, and the files included."""
    report, included, code = (folder / name for name in ("report", "included", "code"))
    command = [*CXX, *FLAGS, f"-I{CSRC}", "-MMD", "-MF", included, "-S", "-o", code, source]
    command += [f"-fopt-info-vec-optimized-missed={report}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = report.read_text().splitlines()
    found = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        note = re.match(r"(.+?):(\d+):\d+: (optimized: loop vect|missed: couldn't vect)", line)
        if note:
            place = Path(note[1]).resolve(), int(note[2])
            why = re.sub(r"_\d+", "", after.partition("missed: ")[2])
            found.append((*place, note[3].startswith("opt"), why))
    words = included.read_text().replace("\\\n", " ").split()
    return found, {Path(word).resolve() for word in words[1:]}


def known(file, code):
    """In how many instances a loop stays scalar, at most."""
    return sum(count for name, words, count, _ in KNOWN if name == file.name and words in code)


def test_all_pragmas_are_read():
    found = [(file, code) for file, _, _, code in loops()]
    pragmas = sum(file.read_text().count("#pragma omp simd") for file in CSRC.rglob("*.h"))
    assert len(found) == pragmas > 50
    for name, words, *_ in KNOWN:
        assert sum(name == file.name and words in code for file, code in found) == 1, words


@pytest.mark.extra
@pytest.mark.timeout(900)
@pytest.mark.skipif("__GNUC__" not in defines() or "__clang__" in defines(), reason="needs GCC")
@pytest.mark.skipif("__x86_64__" not in defines(), reason="its engines are for other machines")
@pytest.mark.skipif("__SANITIZE_ADDRESS__" in defines(FLAGS), reason="the build is instrumented")
@pytest.mark.parametrize("engine", ["amx", "avx512_bf16", "avx512", "avx2"])
def test_loops_are_vectorised(engine, tmp_path):
    found, included = reports(CSRC / "cpu" / f"isa_{engine}.cpp", tmp_path)
    wrong = []
    for file, first, last, code in loops():
        if file not in included:
            continue
        own = [one for one in found if one[0] == file and first <= one[1] <= last]
        scalar = [why for _, _, vectorised, why in own if not vectorised]
        where, most = f"{file.relative_to(CSRC)}:{first}", known(file, code)
        if len(scalar) > most:
            why = "; ".join(sorted(set(scalar)))
            wrong.append(f"{where}: {len(scalar)} scalar, {most} are known: {why}")
        shared = engine in SHARING and file.name not in OWN
        if not own and not shared:
            wrong.append(f"{where}: GCC reports no such loop")
        if most and not scalar and not shared:
            wrong.append(f"{where}: vectorised, so KNOWN needs no entry")
    wrong += [
        f"{file.name}:{line}: a loop that calls this is scalar, {why}"
        for file, line, vectorised, why in found
        if file.name in SCALAR and not vectorised
    ]
    assert not wrong, "\n".join(wrong)
