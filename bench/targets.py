"""The targets on two threads of a CPU and on a GPU, compared with what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from results import CHUNKED, DIFFSORT, FAISS, NT_XENT, Results
from sections import over_products

from contrastloss.bench.peers import COMPILED, CUDA, CUT_CROSS_ENTROPY, DENSE, INF_CL, OURS, TRITON

#: problem, rows, D, dtype: at least this many times the speed of another program
SPEED = {
    ("clip", 8192, 128, "float32"): {DENSE: 7.0, COMPILED: 2.7},
    ("clip", 8192, 512, "float32"): {DENSE: 2.2, COMPILED: 1.1},
    ("nt_xent", 8192, 128, "float32"): {DENSE: 6.0, COMPILED: 3.2},
    ("clip", 8192, 128, "bfloat16"): {DENSE: 9.0},
}
#: problem, rows: at most this many MB in addition to inputs and gradients
MEMORY = {("clip", 65536): 64.0, ("nt_xent", 8192): 30.0}
#: 100 of 200,000 columns: at least this many times the speed of another program
TOPK = {CHUNKED: 1.5, FAISS: 1.1}
#: (rows, n): at least this many times the speed of diffsort, at most this share of its memory
SORT = {(4096, 16): (20.0, 1.0), (256, 128): (50.0, 1 / 50)}
#: at most this many times the time of NT-Xent for GroCo
GROCO_TIME = 1.5
#: of small batches, up to so many rows: at least this ratio of the time of the faster one of dense
#: PyTorch and another library's class to ours
SMALL = {64: 0.97, 512: 1.2, 1024: 1.0}
#: loss, D: at most this share of CLIP's time, since it needs fewer products
SHARE = {
    ("siglip", 128): 0.85,
    ("siglip", 512): 0.85,
    ("info_nce", 128): 0.90,
    ("info_nce", 512): 0.85,
}
#: of CLIP in bf16: at most this many times the time of four library products
FOUR_PRODUCTS = 1.3
#: in every shape: at most this many times dense PyTorch's time
SHAPES = 1.1

#: on a GPU: at most this many times the time of the products alone; at least this many times the
#: speed of other programs; at most this many times the memory of the inputs (MILLION)
PRODUCTS = {"clip": 1.7, "nt_xent": 1.9}
KERNELS = {INF_CL: 3.0, CUT_CROSS_ENTROPY: 1.5}
COMPILED_ON_GPU, DEEPEST = 1.3, 512
#: up to this many rows, at most this share of dense PyTorch's time
SMALL_ON_GPU, SMALL_TIME = 1024, 0.6
MILLION = 1.5
#: rows of up to this many numbers: at least this many times the speed of diffsort
SHORT, SORT_ON_GPU = 16, 30.0

Line = tuple[str, float, float, bool]  # what, wanted, measured, reached


def lines(results: Results) -> Iterator[Line]:
    for (problem, rows, d, dtype), wanted in SPEED.items():
        info = results.find("bench_large", problem=problem, rows=rows, d=d, dtype=dtype)
        for name, least in wanted.items():
            if info and name in info["times"]:
                found = info["times"][name]["ratio"]
                yield f"{problem} {rows} x {d} {dtype}: {name}", least, found, found >= least
    for info in results.of("bench_small"):
        case, found = info["case"], results.rival(info)
        least = next(ratio for rows, ratio in SMALL.items() if case["rows"] <= rows)
        what = f"{case['problem']} {case['rows']} x {case['d']} {case['dtype']}: others"
        yield what, least, found, found >= least
    yield from products(results)
    info = results.find("bench_topk", problem="top 100 of 200,000", rows=2000, dtype="float32")
    if info:
        for name in TOPK.keys() & info["times"].keys():
            found = info["times"][name]["ratio"]
            yield f"top 100 of 200,000: {name}", TOPK[name], found, found >= TOPK[name]
    for info in results.of("bench_sort"):
        case, found = info["case"], info["times"].get(DIFFSORT)
        least, share = SORT[case["rows"], case["d"]]
        if found:
            what = f"{case['problem']} {case['rows']} x {case['d']}: {DIFFSORT}"
            yield what, least, found["ratio"], found["ratio"] >= least
            memory = info["memory"][OURS] / info["memory"][DIFFSORT]
            yield f"{what}, share of its memory", share, memory, memory <= share
    for info in results.of("bench_groco"):
        found = 1 / info["times"][NT_XENT]["ratio"]
        yield "groco: over NT-Xent", GROCO_TIME, found, found <= GROCO_TIME
    for (problem, rows), most in MEMORY.items():
        probe = dict(results.extra(problem, OURS)).get(rows)
        if probe is not None:
            found = probe / 1e6
            yield f"{problem} {rows}: MB", most, found, found <= most


def products(results: Results) -> Iterator[Line]:
    """What fewer products, and products of the library's speed, promise."""
    for info in results.of("bench_beside_clip"):
        for (problem, d), most in SHARE.items():
            if info["case"]["d"] == d:
                found = info["times"][problem]["ratio"]
                what = f"{problem} {info['case']['rows']} x {d}: over CLIP"
                yield what, most, found, found <= most
    for info in results.of("bench_over_products"):
        case, found = info["case"], over_products(info)
        if case["dtype"] == "bfloat16":
            what = f"{case['problem']} {case['rows']} x {case['d']} bfloat16: over four products"
            yield what, FOUR_PRODUCTS, found, found <= FOUR_PRODUCTS
    for info in results.of("bench_shapes"):
        case, found = info["case"], 1 / info["times"][DENSE]["ratio"]
        what = f"{case['problem']} {case['rows']} x {case['d']} {case['dtype']}: over {DENSE}"
        yield what, SHAPES, found, found <= SHAPES


def gpu_lines(results: Results) -> Iterator[Line]:
    for info in results.of("bench_kernels"):
        case, times = info["case"], info["times"]
        what = f"{case['problem']} {case['rows']} x {case['d']}"
        best = results.best(info)  # the faster one of the two backends
        most, found = PRODUCTS[case["problem"]], results.over_products(info) * best
        yield f"{what}: over the products alone", most, found, found <= most
        rivals = KERNELS | ({COMPILED: COMPILED_ON_GPU} if case["d"] <= DEEPEST else {})
        for name in rivals.keys() & times.keys():
            least, found = rivals[name], times[name]["ratio"] / best
            yield f"{what}: {name}", least, found, found >= least
    for info in results.of("bench_backends"):
        case, times = info["case"], info["times"]
        if case["rows"] <= SMALL_ON_GPU and DENSE in times:
            found = results.best(info) / times[DENSE]["ratio"]
            what = f"{case['problem']} {case['rows']} {case['dtype']}: over {DENSE}"
            yield what, SMALL_TIME, found, found <= SMALL_TIME
    for info in results.of("bench_sort"):
        case, times = info["case"], info["times"]
        ours = [times[name]["ratio"] for name in (OURS, TRITON, CUDA) if name in times]
        if case["d"] <= SHORT and DIFFSORT in times:
            what = f"{case['problem']} {case['rows']} x {case['d']}: {DIFFSORT}"
            found = times[DIFFSORT]["ratio"] / min(ours)
            yield what, SORT_ON_GPU, found, found >= SORT_ON_GPU
    for info in results.of("bench_million"):
        found = info["memory"]["extra"] / info["inputs"]
        yield "a million rows: memory over that of the inputs", MILLION, found, found <= MILLION


def table(results: Results) -> str:
    found = list(gpu_lines(results) if results.machine["device"] == "cuda" else lines(results))
    missed = [f"  {what}: {got:.2f}, wanted {want:.2f}" for what, want, got, ok in found if not ok]
    head = f"{results.file.name}: {len(found) - len(missed)} of {len(found)} targets reached"
    return "\n".join([head, *missed])
