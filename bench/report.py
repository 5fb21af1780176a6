"""Makes docs/performance.md, its plots and the blocks in other pages from bench/results/*.json.

python bench/report.py            write them, and print which targets are reached
python bench/report.py --check    fail if the pages differ from what the results give
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import targets
from blocks import block, inside, of_ranks, start
from results import CHUNKED, DIFFSORT, FAISS, MASSES, NT_XENT, Results, by_chip, exponent
from sections import libraries, predicted, ratios, shapes
from words import factor, image, size, table

from contrastloss.bench.peers import (
    CHECKPOINTED,
    COMPILED,
    CUDA,
    CUT_CROSS_ENTROPY,
    DENSE,
    INF_CL,
    OURS,
    REFERENCE,
    TRITON,
)
from contrastloss.bench.results import SHORT, machine, percent, times, title

ROOT = Path(__file__).parent.parent
#: written by bench/ddp.py; the other results are written by pytest-benchmark
RATIOS = ROOT / "bench/results/ddp.json"
COMMON = [DENSE, COMPILED, CHECKPOINTED]
NOT_A_LIBRARY = {OURS, "gemm", *COMMON}
GROWTH_FROM = 4096
NEXT = "\n\n"


# ---- sections -----------------------------------------------------------------------------------


def speed(results: Results) -> str:
    rows = []
    for info in results.of("bench_large", "bench_cubic"):
        libraries = [n for n in (*info["times"], *info["refused"]) if n not in NOT_A_LIBRARY]
        cells = [times(results.seconds(info)), percent(results.efficiency(info))]
        cells += [factor(info, name) for name in COMMON]
        cells += [", ".join(f"{name} {factor(info, name)}" for name in libraries)]
        rows.append([title(info["case"]), *cells])
    head = ["loss, rows x D", "ours", "of the GEMM rate", *COMMON, "libraries"]
    return f"""### Large batches

Forward and backward. Columns of other programs are their time / ours; above 1, ours is faster. The
ratio is the median over rounds, each of which runs every program once, in one process. The GEMM
rate is that of one large matrix product in the same rounds. The share of it counts only the
products of two passes: four of rows x rows x D, two if a batch is compared with itself. What takes
one pass on a CPU needs one less.

{table(head, rows)}
"""


def small(results: Results) -> str:
    runs = results.of("bench_small")
    sizes = sorted({info["case"]["rows"] for info in runs})
    rows: dict[str, list[str]] = {}
    for info in runs:
        case = info["case"]
        name = f"{case['problem']}, D = {case['d']}, {SHORT[case['dtype']]}"
        cells = rows.setdefault(name, [""] * len(sizes))
        ours = times(results.seconds(info))
        cells[sizes.index(case["rows"])] = f"{results.rival(info):.2f} ({ours})"
    head = ["loss", *(f"{n} rows" for n in sizes)]
    return f"""### Small batches

The time of the faster one of dense PyTorch and another library's class / ours, and our time in
brackets. Above 1, ours is faster.

{table(head, [[name, *cells] for name, cells in rows.items()])}
"""


def kernels(results: Results) -> str:
    rivals = [CUDA, REFERENCE, COMPILED, INF_CL, CUT_CROSS_ENTROPY]
    rows = []
    for info in results.of("bench_kernels"):
        cells = [times(results.seconds(info, TRITON) or 0), f"{results.over_products(info):.2f}"]
        rows.append([title(info["case"]), *cells, *(factor(info, name) for name in rivals)])
    million = [
        f"{title(info['case'])}: {times(results.seconds(info) or 0)}, and, in addition to inputs "
        f"and gradients, {info['memory']['extra'] / info['inputs']:.2f} times the memory of the "
        "inputs.\n"
        for info in results.of("bench_million")
    ]
    head = ["loss, rows x D", "Triton", "over the products alone", *rivals]
    return f"""### Triton and CUDA C++

Forward and backward of the Triton backend, compared with the backend in CUDA C++ and with others.
The products alone are library products of matrices that hold all scores: the scores twice, and one
product for each gradient; half of them if a batch is compared with itself. Columns of other
programs are their time / Triton's.

{table(head, rows)}

{"".join(million)}"""


def backends(results: Results) -> str:
    rivals = [CUDA, REFERENCE, DENSE, COMPILED]
    rows = [
        [title(info["case"]), times(results.seconds(info, TRITON) or 0)]
        + [factor(info, name) for name in rivals]
        for info in results.of("bench_backends")
    ]
    return f"""### Triton and CUDA C++ in small batches

Columns of other programs are their time / Triton's.

{table(["loss, rows x D", "Triton", *rivals], rows)}
"""


def topk(results: Results) -> str:
    rivals = [CHUNKED, FAISS]
    rows = [
        [title(info["case"]), times(results.seconds(info) or 0), percent(results.efficiency(info))]
        + [factor(info, name) for name in rivals]
        for info in results.of("bench_topk")
    ]
    head = ["queries x D", "ours", "of the GEMM rate", *rivals]
    return f"""### Top-k

The k best columns of every query, unit vectors, forward only. "matmul and topk" is a loop over
column blocks, `(x @ block.T).topk(k)` and a merge; "faiss" is its exact `IndexFlatIP`. Their
columns are their time / ours. Results were compared with fp64 before they were timed.

{table(head, rows)}
"""


def sort(results: Results) -> str:
    rows = []
    rivals = [MASSES, DIFFSORT] + [TRITON, CUDA] * (results.machine["device"] == "cuda")
    for info in results.of("bench_sort"):
        case, found = info["case"], info["memory"]
        rows.append(
            [f"{case['problem']}, {case['rows']:,} rows of {case['d']}"]
            + [times(results.seconds(info) or 0), *(factor(info, name) for name in rivals)]
            + [f"{found[name] / 1e6:,.0f} MB" if name in found else "" for name in (OURS, DIFFSORT)]
        )
    head = ["network", "ours, all of P", *rivals, "memory, ours", "diffsort"]
    groco = [
        f"GroCo on two views of {info['case']['rows']:,} x {info['case']['d']}, ten negatives, "
        f"takes {times(results.seconds(info) or 0)}: {1 / info['times'][NT_XENT]['ratio']:.2f} "
        "times NT-Xent.\n"
        for info in results.of("bench_groco")
    ]
    return f"""### Sorting networks

Forward and backward, fp32, Cauchy, of sorted rows and the whole matrix P. Columns of other programs
are their time / ours. "One mass" is ours with one vector of rank masses instead of P.

{table(head, rows)}

{"".join(groco)}"""


def law(what: str, points: Sequence[tuple[int, float]]) -> list[str]:
    beyond = [point for point in points if point[0] >= GROWTH_FROM]
    return [f"{what} grows as N^{exponent(beyond):.2f}"] if len(beyond) > 1 else []


def scaling(results: Results) -> str:
    found = sorted(results.scaling(OURS))
    rows = [[f"{n:,}", times(seconds), percent(share)] for n, seconds, share in found]
    laws = law("time", [(n, seconds) for n, seconds, _ in found])
    laws += law("memory", results.extra("clip", OURS))
    return f"""### Growth

CLIP, fp32, D = 128. Beyond N = {GROWTH_FROM:,}: {", ".join(laws)}.

![Time, memory and share of the GEMM rate against N]({image(results)})

{table(["N", "ours", "of the GEMM rate"], rows)}
"""


def memory(results: Results) -> str:
    tables = []
    for problem in dict.fromkeys(i["case"]["problem"] for i in results.of("bench_memory")):
        found = results.memory(problem)
        sizes = sorted({n for probes in found.values() for n in probes})
        rows = [[name, *(size(probes.get(n)) for n in sizes)] for name, probes in found.items()]
        tables.append(table([problem, *(f"{n:,} rows" for n in sizes)], rows))
    return f"""### Memory

Peak memory of one forward and backward pass, in addition to inputs and gradients, each measured
separately; fp32, D = 128. If an allocation fails, its size is given.

{NEXT.join(tables)}
"""


def accuracy(results: Results) -> str:
    runs, rows = results.of("bench_accuracy"), []
    for info in runs:
        errors = [info["errors"][n][what] for what in ("value", "gradient") for n in (OURS, DENSE)]
        kind = SHORT[info["case"]["dtype"]]
        rows.append([kind, f"{info['temperature']:g}", *(f"{e:.1e}" for e in errors)])
    where = f"CLIP, {runs[0]['case']['rows']:,} x {runs[0]['case']['d']}"
    head = ["dtype", "temperature", "loss, ours", "dense", "gradient, ours", "dense"]
    return f"""### Accuracy

Relative errors, as norms; the truth is dense fp64 on the same rounded embeddings; {where}.
Gradients have the embeddings' dtype, so no program can be more accurate than the rounding to it.

{table(head, rows)}
"""


def refused(results: Results) -> str:
    lines = [
        f"- {title(info['case'])}: {name}: {why}"
        for info in results.of(*CONTESTS)
        for name, why in info["refused"].items()
    ]
    return "\n".join(
        ["### Refused", "", "Not timed, because absent, unable to run or wrong:", "", *lines, ""]
    )


#: functions that compare with other programs, which may be refused
CONTESTS = (
    *("bench_large", "bench_small", "bench_cubic", "bench_beside_dense"),
    *("bench_backends", "bench_kernels", "bench_topk", "bench_sort"),
    *("bench_over_products", "bench_shapes", "bench_adapter"),
)
SECTIONS = {
    speed: "bench_large",
    small: "bench_small",
    ratios: "bench_beside_clip",
    shapes: "bench_shapes",
    kernels: "bench_kernels",
    backends: "bench_backends",
    scaling: "bench_beside_dense",
    memory: "bench_memory",
    accuracy: "bench_accuracy",
    topk: "bench_topk",
    sort: "bench_sort",
    libraries: "bench_adapter",
}


def page(every: Sequence[Results]) -> str:
    parts = [
        "# Performance\n\nWritten by `python bench/report.py` from bench/results; `make bench` "
        "measures again.\nThere is a section for each class of chips that was measured.\n"
    ]
    for chip, found in by_chip(every).items():
        parts.append(f"## {chip}\n")
        for results in found:
            parts += of_file(results)
    return "\n".join([*parts, predicted(every)])


def of_file(results: Results) -> list[str]:
    peers = ", ".join(f"{k} {v}" for k, v in results.machine["peers"].items())
    parts = [f"Measured on {machine(results)}; {results.made}. {peers}.\n"]
    parts += [make(results) for make, needs in SECTIONS.items() if results.of(needs)]
    if any(info["refused"] for info in results.of(*CONTESTS)):
        parts.append(refused(results))
    return parts


# ---- files --------------------------------------------------------------------------------------


def files(every: Sequence[Results], root: Path) -> dict[Path, str]:
    readme, distributed = root / "README.md", root / "docs/distributed.md"
    first = root / "docs/index.md"
    return {
        root / "docs/performance.md": page(every),
        readme: inside(readme, "performance", block(every)),
        first: inside(first, "start", start(every)),
        distributed: inside(distributed, "ratios", of_ranks(json.loads(RATIOS.read_text()))),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, help="default: all in bench/results")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to write into")
    args = parser.parse_args()
    found = args.results or sorted(set(ROOT.glob("bench/results/*.json")) - {RATIOS})
    every = [Results(file) for file in found]
    if not every:
        parser.error("bench/results holds no JSON")
    wanted = files(every, args.root)
    plotted = [results for results in every if results.of("bench_beside_dense")]
    images = [args.root / "docs" / image(results) for results in plotted]
    if args.check:
        stale = [f for f, text in wanted.items() if not f.exists() or f.read_text() != text]
        stale += [f for f in images if not f.exists()]
        for file in stale:
            print(
                f"{file.relative_to(args.root)} differs from what bench/report.py makes",
                file=sys.stderr,
            )
        return bool(stale)
    import plots  # here, so that --check needs no matplotlib

    for file, text in wanted.items():
        file.write_text(text)
    for results, file in zip(plotted, images, strict=True):
        plots.draw(results, file)
    for results in every:
        print(targets.table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
