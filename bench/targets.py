"""What the library sets out to reach on two threads of a CPU, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from results import COMPILED, DENSE, OURS, Results

#: problem, rows, D, dtype: at least this many times the speed of a rival
SPEED = {
    ("clip", 8192, 128, "float32"): {DENSE: 7.0, COMPILED: 2.7},
    ("clip", 8192, 512, "float32"): {DENSE: 2.2, COMPILED: 1.1},
    ("nt_xent", 8192, 128, "float32"): {DENSE: 6.0, COMPILED: 3.2},
    ("clip", 8192, 128, "bfloat16"): {DENSE: 9.0},
}
#: problem, rows: at most this many MB beyond inputs and gradients
MEMORY = {("clip", 65536): 64.0, ("nt_xent", 8192): 30.0}
#: dense PyTorch's time over ours in small batches
SMALL, SMALLEST, SMALLEST_ROWS = 1.0, 1 / 1.25, 64

Line = tuple[str, float, float, bool]  # what, wanted, measured, reached


def lines(results: Results) -> Iterator[Line]:
    for (problem, rows, d, dtype), wanted in SPEED.items():
        info = results.find("bench_large", problem=problem, rows=rows, d=d, dtype=dtype)
        for name, least in wanted.items():
            if info and name in info["times"]:
                found = info["times"][name]["ratio"]
                yield f"{problem} {rows} x {d} {dtype}: {name}", least, found, found >= least
    for info in results.of("bench_small"):
        case, found = info["case"], info["times"][DENSE]["ratio"]
        least = SMALLEST if case["rows"] == SMALLEST_ROWS else SMALL
        what = f"{case['problem']} {case['rows']} {case['dtype']}: {DENSE}"
        yield what, least, found, found >= least
    for (problem, rows), most in MEMORY.items():
        probe = dict(results.extra(problem, OURS)).get(rows)
        if probe is not None:
            found = probe / 1e6
            yield f"{problem} {rows}: MB", most, found, found <= most


def table(results: Results) -> str:
    found = list(lines(results))
    missed = [f"  {what}: {got:.2f}, wanted {want:.2f}" for what, want, got, ok in found if not ok]
    head = f"{results.file.name}: {len(found) - len(missed)} of {len(found)} targets reached"
    return "\n".join([head, *missed])
