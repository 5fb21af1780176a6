"""The benchmarks of bench/: adapters of other libraries, targets, and a section for each chip."""

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from compat import solo

from contrastloss.bench import peers, timing

BENCH = Path(__file__).parent.parent / "bench"
FILES = [path.stem for path in BENCH.glob("*.py")]


@pytest.fixture
def bench(monkeypatch):
    """The modules of bench/, which import each other by their bare names."""
    pytest.importorskip("pytest_benchmark")
    before = {name: sys.modules.pop(name) for name in FILES if name in sys.modules}
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for name in FILES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


# ---- results that are made up --------------------------------------------------------------------


def run(name, case, times, ours=None):
    problem, rows, d, dtype = case
    return {
        "name": name,
        "extra_info": {
            "case": {"problem": problem, "rows": rows, "d": d, "dtype": dtype},
            "times": {n: {"seconds": s, "ratio": s / times[ours]} for n, s in times.items()},
            "errors": {}, "refused": {}, "floor": 1.0, "gemm": 1.0,
        },
        "stats": {"median": times[ours]},
    }  # fmt: skip


def small(rows, others, d=128):
    times = {peers.OURS: 1.0, **others}
    return run(f"bench_small[{rows}]", ("clip", rows, d, "float32"), times, peers.OURS)


def write(file, *runs, **machine):
    about = {
        "device": "cpu", "processor": "abacus", "gpu": None, "threads": 2, "system": "Linux",
        "python": "3.11", "torch": "2.13", "contrastloss": "0.2", "backends": [], "peers": {},
    } | machine  # fmt: skip
    data = {
        "machine_info": about, "commit_info": {"id": "abc", "dirty": False}, "benchmarks": runs,
        "datetime": "2026-11-29T12:00:00",
    }  # fmt: skip
    file.write_text(json.dumps(data))
    return file


def reached(bench, tmp_path, *runs):
    results = bench("results").Results(write(tmp_path / "cpu.json", *runs))
    return {what: (want, got, ok) for what, want, got, ok in bench("targets").lines(results)}


@pytest.mark.parametrize(
    ("rows", "others", "least", "ok"),
    [
        (32, {"dense": 0.96, "open_clip": 5.0}, 0.97, False),
        (64, {"dense": 0.98, "open_clip": 5.0}, 0.97, True),
        (128, {"dense": 1.5, "open_clip": 1.19}, 1.2, False),
        (512, {"dense": 1.21, "open_clip": 1.3, "gemm": 0.1, "compiled": 0.1}, 1.2, True),
        (1024, {"dense": 1.01}, 1.0, True),
    ],
)
def test_small_batches_are_held_against_the_fastest_other(rows, others, least, ok, bench, tmp_path):
    others.setdefault("open_clip", 9.0)
    (found,) = reached(bench, tmp_path, small(rows, others, 512)).items()
    fastest = min(others["dense"], others["open_clip"])
    assert found == (f"clip {rows} x 512 float32: others", (least, fastest, ok))


def test_targets_of_fewer_products(bench, tmp_path):
    def beside(d, siglip, info_nce):
        times = {"clip": 2.0, "siglip": siglip, "info_nce": info_nce}
        return run("bench_beside_clip", ("clip", 8192, d, "float32"), times, "clip")

    def other(name, case, **times):
        return run(name, case, {peers.OURS: 1.3, **times}, peers.OURS)

    products = bench("results").PRODUCTS
    runs = [
        beside(128, 1.6, 1.9), beside(512, 1.8, 1.6),
        other("bench_over_products[a]", ("clip", 8192, 512, "float32"), **{products: 0.1}),
        other("bench_over_products[b]", ("clip", 8192, 512, "bfloat16"), **{products: 1.04}),
        other("bench_shapes[a]", ("clip", 256, 4096, "bfloat16"), dense=1.3),
        other("bench_shapes[b]", ("clip", 32, 8192, "float32"), dense=1.0),
    ]  # fmt: skip
    found = reached(bench, tmp_path, *runs)
    assert {what: (want, round(got, 3), ok) for what, (want, got, ok) in found.items()} == {
        "siglip 8192 x 128: over CLIP": (0.85, 0.8, True),
        "info_nce 8192 x 128: over CLIP": (0.9, 0.95, False),
        "siglip 8192 x 512: over CLIP": (0.85, 0.9, False),
        "info_nce 8192 x 512: over CLIP": (0.85, 0.8, True),
        "clip 8192 x 512 bfloat16: over four products": (1.3, 1.25, True),
        "clip 256 x 4096 bfloat16: over dense": (1.1, 1.0, True),
        "clip 32 x 8192 float32: over dense": (1.1, 1.3, False),
    }
    results = bench("results").Results(tmp_path / "cpu.json")
    page = bench("sections").ratios(results) + bench("sections").shapes(results)
    for line in (
        "| 8,192 x 512 | 2 s | 0.90 | 0.80 |",
        "| clip, 8,192 x 512, bf16 | 1.3 s | 1.25 |",
        "| 256 rows, bf16 | 1.00 |  |",
        "| 32 rows, fp32 |  | 0.77 |",
    ):
        assert line in page


def test_every_class_of_chips_has_a_section(bench, tmp_path):
    """Two files of one chip share theirs."""
    kinds = ("cpu", "amx"), ("cpu-zen", "avx512"), ("libraries", "amx"), ("old", None)
    every = [
        bench("results").Results(
            write(
                tmp_path / f"{name}.json", small(64, {"dense": 1.0 + k}),
                **({"instructions": isa} if isa else {}),
            )
        )
        for k, (name, isa) in enumerate(kinds)
    ]  # fmt: skip
    page = bench("report").page(every)
    heads = [line for line in page.splitlines() if line.startswith("## ")]
    assert heads[:-1] == ["## abacus, AMX", "## abacus, AVX-512", "## abacus"]
    amx, zen = page.split("## abacus, ")[1:3]
    assert amx.count("### Small batches") == 2
    assert "| clip, D = 128, fp32 | 3.00 (1 s) |" in amx
    assert zen.count("| clip, D = 128, fp32 | 2.00 (1 s) |") == 1


def probe(rows, extra):
    made = run(f"bench_memory[{rows}]", ("clip", rows, 128, "float32"), {"ours": 1.0}, "ours")
    made["extra_info"] |= {"name": peers.OURS, "memory": {"extra": extra}}
    return made


def test_figures_of_other_pages_are_those_of_the_most_complete_results(bench, tmp_path):
    """A file of some benchmarks on another chip gets its section, and nothing else: its name comes
    first, and the figures that it has are left out."""

    def results(name, *runs, **machine):
        return bench("results").Results(write(tmp_path / name, *runs, **machine))

    def large(seconds):
        times = {peers.OURS: seconds, "dense": 3.0, "gemm": 0.1}
        case = ("clip", 8192, 128, "float32")
        names = "bench_large", "bench_beside_dense"
        return [run(f"{name}[a]", case, times, peers.OURS) for name in names]

    beside = run(
        "bench_beside_clip", ("clip", 8192, 128, "float32"), {"clip": 2.0, "siglip": 1}, "clip"
    )
    part = results("cpu-zen.json", small(64, {"dense": 7.0}), beside, instructions="avx512")
    full = results(
        "cpu.json", small(64, {"dense": 2.0}), *large(1.5), probe(4096, 5e6), instructions="amx"
    )
    blocks, page = bench("blocks"), bench("report").page([part, full])
    for make in (blocks.block, blocks.start):
        assert make([part, full]) == make([full]) != make([part])
        assert make([full]).count("Measured on abacus, AMX, 2 threads;") == 1
    assert "| 4,096 | 5 MB |  |" in blocks.start([full])
    assert "| 64 | 1 s | 2.00 |" in blocks.start([full])
    assert "CLIP at N = 4,096, D = 128 takes 5 MB" in blocks.block([full])
    assert "| clip, 8,192 x 128, fp32 | 1.5 s |" in blocks.block([full])
    zen = page.split("## abacus, AVX-512")[1].split("\n## ")[0]
    assert "### Losses beside each other" in zen
    assert "### Growth" not in zen

    # what the most complete results lack, others have
    lacking = results("cpu.json", small(64, {"dense": 2.0}), *large(1.5), instructions="amx")
    other = results("memory.json", probe(4096, 9e6), instructions="avx2")
    shown = blocks.start([part, other, lacking])
    places = [shown.index(what) for what in ("9 MB", "AVX2, 2 threads", "2.00", "AMX, 2 threads")]
    assert places == sorted(places)
    nothing = blocks.start([results("empty.json")])
    assert "Measured" not in nothing
    assert "|" not in nothing


def test_a_run_says_which_instructions_it_used(monkeypatch):
    pytest.importorskip("pytest_benchmark")
    from contrastloss.bench import plugin

    config = SimpleNamespace(getoption=lambda name: "cpu")
    monkeypatch.setattr(plugin.cpu, "ISA", "avx2")
    assert plugin.pytest_benchmark_generate_machine_info(config)["instructions"] == "avx2"
    monkeypatch.setattr(plugin.cpu, "ISA", None)
    monkeypatch.setattr(plugin.cpu, "instruction_sets", lambda: ("avx512", "avx2"))
    assert plugin.pytest_benchmark_generate_machine_info(config)["instructions"] == "avx512"


# ---- adapters ------------------------------------------------------------------------------------

RELEASED = {
    "simclr": {
        "simclr_loss_func": lambda x, y: solo.simclr_loss_func(
            torch.cat([x, y]), torch.arange(len(x)).repeat(2)
        )
    },
    "moco": {"moco_loss_func": solo.mocov2plus_loss_func},
    "barlow": {"barlow_loss_func": solo.barlow_loss_func},
    "vicreg": {"vicreg_loss_func": solo.vicreg_loss_func},
}


def adapted(adapters, name):
    """The errors of ours and theirs in fp32, relative to ours in fp64."""
    want = timing.step(adapters.loss(name, "ours"), adapters.inputs(name, 24, torch.float64))()
    steps = [
        timing.step(adapters.loss(name, which), adapters.inputs(name, 24))
        for which in ("ours", "theirs")
    ]
    return [timing.judge(run, want, torch.float32) for run in steps]


def test_solo_learn_s_functions_are_timed_beside_ours(bench, monkeypatch):
    """With the arguments of its release."""
    for name, functions in RELEASED.items():
        monkeypatch.setitem(sys.modules, f"solo.losses.{name}", SimpleNamespace(**functions))
    monkeypatch.setattr(peers, "find_spec", lambda name: ModuleSpec(name, None))
    for name in ("solo", "solo.losses"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))
    adapters = bench("adapters")
    names = [name for name in adapters.ADAPTERS if name.startswith("solo-learn")]
    assert len(names) == len(RELEASED)
    for name in names:
        for errors in adapted(adapters, name):
            assert max(errors.values()) < 1e-5, name


@pytest.fixture
def lightly(monkeypatch):
    """Its classes are imported without the packages around them, which other tests import."""
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "vision"))
    if importlib.util.find_spec("lightly") is None:
        pytest.skip("lightly is not installed")
    own = {name for name in sys.modules if name.partition(".")[0] == "lightly"}
    before = {name: sys.modules.pop(name) for name in own}
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightly"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_lightly_s_classes_are_timed_beside_ours(lightly, bench):
    adapters = bench("adapters")
    names = [name for name in adapters.ADAPTERS if name.startswith("lightly")]
    assert {name.split()[1] for name in names} == set(adapters.LIGHTLY)
    for name in names:
        for errors in adapted(adapters, name):
            assert max(errors.values()) < 1e-5, name


def test_a_library_that_is_missing_is_refused(bench, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    adapters = bench("adapters")
    for name in ("solo", "solo.losses", "solo.losses.simclr"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match="solo is not installed"):
        adapters.loss("solo-learn simclr_loss_func", "theirs")
