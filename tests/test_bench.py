"""``python -m contrastloss bench``: the gate, tables of made-up results, and one tiny run."""

import getpass
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from contrastloss.__main__ import main
from contrastloss.bench import cases, dense, peers, timing
from contrastloss.bench.results import Results

ROOT = Path(__file__).parent.parent
MACHINE = {
    "device": "cpu", "processor": "abacus", "gpu": None, "threads": 2, "system": "Linux x86_64",
    "python": "3.11.7", "torch": "2.13.0", "contrastloss": "0.1.0",
    "backends": ["cpu", "reference"], "peers": {"lightly": "1.6.0"},
}  # fmt: skip


@pytest.fixture
def command():
    """The module of the command, whose packages may be missing."""
    pytest.importorskip("pytest_benchmark")
    pytest.importorskip("rich")
    from contrastloss.bench import command

    return command


def run(name, ours, dense, refused=None, **more):
    """What the file says of a case: its floor takes 0.2 s at the rate of the products."""
    problem, rows, d, dtype = name.partition("[")[2].rstrip("]").split("-")
    times = {
        peers.OURS: {"seconds": ours, "ratio": 1.0},
        peers.DENSE: {"seconds": dense, "ratio": dense / ours},
        **({timing.GEMM: {"seconds": 0.1, "ratio": 0.1 / ours}} if int(rows) >= 2048 else {}),
    }
    info = {
        "case": {"problem": problem, "rows": int(rows), "d": int(d), "dtype": dtype},
        "times": times,
        "errors": {n: {"value": 1e-9, "gradient": 2e-7} for n in times if n != timing.GEMM},
        "refused": refused or {},
        "floor": 4e9,
        "gemm": 2e9,
    }
    return {"name": name, "extra_info": info | more, "stats": {"median": ours}}


def write(file, *runs, **machine):
    data = {
        "machine_info": MACHINE | machine, "commit_info": {}, "benchmarks": runs,
        "datetime": "2026-11-29T12:00:00",
    }  # fmt: skip
    file.write_text(json.dumps(data))
    return file


def lines(parts):
    """What the terminal shows: the words of each line."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=80, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


# ---- cases and contestants ----------------------------------------------------------------------


def test_the_repository_measures_the_cases_of_the_package():
    spec = importlib.util.spec_from_file_location("bench_losses", ROOT / "bench/bench_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.bench_large is cases.bench_large
    assert module.bench_small is cases.bench_small
    assert module.compare is cases.compare


@pytest.mark.parametrize("problem", peers.PROBLEMS)
def test_a_wrong_program_is_refused(problem, monkeypatch):
    """Twice the loss has twice the gradient: a relative error of 1."""
    subject = peers.PROBLEMS[problem]
    plain = partial(subject.dense, **subject.options)
    wrong = peers.Library(lambda ours: lambda *inputs: 2 * plain(*inputs))
    absent = peers.Library(lambda ours: peers.module("no_such_library"))
    monkeypatch.setitem(subject.libraries, "wrong", wrong)
    monkeypatch.setitem(subject.libraries, "absent", absent)
    names = [peers.OURS, peers.DENSE, "wrong", "absent"]
    inputs = subject.inputs(32, 8, torch.float32, "cpu")
    steps, errors, refused = timing.admit(problem, names, inputs)
    assert list(steps) == [peers.OURS, peers.DENSE]
    assert max(errors[peers.OURS].values()) < 1e-5
    assert refused == {
        "wrong": "relative error of the value is 1.0e+00",
        "absent": "No module named 'no_such_library'",
    }
    with pytest.raises(ArithmeticError, match="error of the value"):  # if it is ours
        timing.admit(problem, ["wrong", peers.OURS], inputs)


CHUNKED = [
    (name, problem)
    for name in (peers.LINEAR, peers.LINEAR_BLOCKS)
    for problem in ("clip", "info_nce")
]


@pytest.mark.parametrize(("name", "problem"), CHUNKED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("error")  # of what torch does not do in chunks
def test_chunked_losses_of_torch(name, problem, dtype):
    """More rows than the chunks of one contestant have."""
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        pytest.skip("torch has it from 2.13 on")
    admitted(problem, name, dtype, rows=peers.BLOCK + 76)


@pytest.mark.parametrize("problem", ["clip", "info_nce"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cached_losses_of_sentence_transformers(problem, dtype):
    pytest.importorskip("sentence_transformers")
    admitted(problem, peers.CACHED, dtype, rows=peers.BLOCK + 76)


def admitted(problem, name, dtype, rows=48):
    """A contestant passes the gate, and its gradients are scaled by those that come in."""
    inputs = peers.PROBLEMS[problem].inputs(rows, 8, dtype, "cpu")
    steps, errors, refused = timing.admit(problem, [peers.OURS, name], inputs)
    assert not refused
    assert list(steps) == [peers.OURS, name]
    assert max(errors[name].values()) < {2: 0.2, 4: 1e-5, 8: 1e-12}[dtype.itemsize]


class Stable:
    """memeff's losses: by default, gradients are multiplied by a number."""

    def __init__(self, plain, temperature, stable=True, margin=0.1):
        self.plain, self.scale, self.stable, self.margin = plain, 1 / temperature, stable, margin

    def __call__(self, x, y):
        value = self.plain(x, y, scale=self.scale)
        return value + 3 * (value - value.detach()) if self.stable else value


def test_kernels_of_other_libraries_get_the_same_problem(monkeypatch):
    """On a CPU their classes are made of dense formulas."""
    fakes = {
        "memeff": SimpleNamespace(
            MemoryEfficientCLIPLoss=partial(Stable, dense.clip),
            MemoryEfficientQwen3Loss=partial(Stable, dense.info_nce),
        ),
        "siglip_kernel": SimpleNamespace(
            fused_siglip_loss=lambda x, y, log_scale, bias: dense.siglip(
                x, y, scale=log_scale.exp(), bias=bias
            )
        ),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    names = {"clip": peers.MEMEFF, "info_nce": peers.MEMEFF, "siglip": peers.SIGLIP_KERNEL}
    for problem, name in names.items():
        libraries = peers.PROBLEMS[problem].libraries
        if not torch.cuda.is_available():
            inputs = peers.PROBLEMS[problem].inputs(16, 8, torch.float32, "cpu")
            _, _, refused = timing.admit(problem, [peers.OURS, name], inputs)
            assert refused == {name: "its kernels need a GPU"}
        monkeypatch.setitem(libraries, name, replace(libraries[name], gpu=False))
        admitted(problem, name, torch.float32)
    loss = peers.memeff_info_nce(peers.PROBLEMS["info_nce"].ours)
    assert (loss.stable, loss.margin) == (False, 2.0)
    # as it comes it is wrong
    stable = peers.Library(lambda ours: Stable(dense.clip, ours.temperature))
    monkeypatch.setitem(peers.PROBLEMS["clip"].libraries, "stable", stable)
    inputs = peers.PROBLEMS["clip"].inputs(16, 8, torch.float32, "cpu")
    _, _, refused = timing.admit("clip", [peers.OURS, "stable"], inputs)
    assert refused == {"stable": "relative error of the gradient is 3.0e+00"}


def test_small_batches_have_a_rival():
    for problem, name in cases.RIVALS.items():
        assert name in peers.PROBLEMS[problem].libraries
    assert {case[0] for case in cases.SMALL} == set(cases.RIVALS)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no file /home/somebody/lib/x.so: /tmp/y", "no file x.so: y"),
        ("cannot load '/usr/lib/x.so'\nand more", "cannot load 'x.so'"),
        ("C:\\Users\\somebody\\x.dll is missing", "x.dll is missing"),
        ("rows/s and memory/row", "rows/s and memory/row"),
        ("", "RuntimeError"),
    ],
)
def test_a_reason_names_no_folder(message, expected):
    assert timing.reason(RuntimeError(message)) == expected


def parse(command, *words):
    parser = ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_batches_are_all_combinations_of_what_is_given(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = parse(command, *["--loss", "clip", "nt_xent", "--rows", "5", "8", "--dtype", "float64"])
    assert command.selected(given) == ["bench_chosen"]
    assert command.Described(given).cases == [  # two views have an even number of rows
        ("clip", 5, 128, "float64"), ("clip", 8, 128, "float64"),
        ("nt_xent", 4, 128, "float64"), ("nt_xent", 8, 128, "float64"),
    ]  # fmt: skip


def test_the_default_cases_are_some_of_all_and_meet_every_loss(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    brief, every = (command.selected(parse(command, *words)) for words in ([], ["--all"]))
    assert set(brief) < set(every)
    assert len(every) == len(cases.LARGE) + len(cases.SMALL)
    for problem in peers.PROBLEMS:
        own = command.selected(parse(command, "--loss", problem))
        assert own == [name for name in brief if f"[{problem}-" in name] != []


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux only")
def test_a_program_that_asks_for_more_than_is_free_gets_an_error(command, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MEMORY", tmp_path / "meminfo")
    command.MEMORY.write_text(f"MemAvailable:   {1 << 20} kB\n")
    with command.limited("cpu"), pytest.raises(RuntimeError, match="memory"):
        torch.empty(2 << 30, dtype=torch.uint8)
    assert len(torch.empty(2 << 30, dtype=torch.uint8)) == 2 << 30


# ---- tables -------------------------------------------------------------------------------------

LARGE, SMALL = "bench_large[clip-2048-128-float32]", "bench_small[nt_xent-64-128-bfloat16]"


def test_table(command, tmp_path):
    made = run(LARGE, 0.4, 2.0, {"lightly": "No module named 'lightly'", "compiled": "[left out]"})
    also = run(SMALL, 0.001, 0.0005, {"compiled": "[left out]"})
    found = lines(command.measured(Results(write(tmp_path / "a.json", made, also))))
    for line in (
        "abacus, 2 threads; Linux x86_64, torch 2.13.0, Python 3.11.7",
        "backends: cpu, reference",
        "clip, 2,048 x 128, fp32",
        "contrastloss 400 ms 1.00 50% 2e-07",  # a floor of 0.2 s
        "dense 2 s 5.00 10% 2e-07",
        "nt_xent, 64 x 128, bf16",
        "contrastloss 1 ms 1.00 2e-07",
        "dense 0.5 ms 0.50 2e-07",
        "Not timed: lightly (clip): No module named 'lightly'",
        "Not timed: compiled (clip; nt_xent): [left out]",
    ):
        assert line in found


def test_a_program_refused_in_some_cases_of_a_loss(command, tmp_path):
    made = run(LARGE, 0.4, 2.0, {"inf-cl": "too long"}), run(LARGE.replace("8-f", "9-f"), 0.4, 2.0)
    found = lines(command.measured(Results(write(tmp_path / "a.json", *made))))
    assert "Not timed: inf-cl (clip, 2,048 x 128, fp32): too long" in found


def test_comparison(command, tmp_path):
    then = run(LARGE, 0.4, 2.0), run(SMALL, 0.001, 0.002)
    now = run(LARGE, 0.2, 1.6), run("bench_chosen[clip-8-4-float64]", 1.0, 1.0)
    old = write(tmp_path / "old.json", *then)
    changes = {"torch": "2.14.0", "threads": 4, "peers": {"faiss-cpu": "1.15.1"}}
    new = write(tmp_path / "new.json", *now, **changes)
    found = lines(command.compared(Results(old), Results(new)))
    assert found[0] == "Compared with old.json, 2026-11-29"
    # 0.2 / 0.4; 2.0 / 0.4 then and 1.6 / 0.2 now
    assert "clip, 2,048 x 128, fp32 400 ms 200 ms 0.50 5.00 8.00 1.60" in found
    assert not [line for line in found if line.startswith(("nt_xent", "clip, 8 x 4"))]
    assert [line for line in found if line.startswith("Not the same")] == [
        "Not the same: threads: 2 then, 4 now",
        "Not the same: torch: 2.13.0 then, 2.14.0 now",
        "Not the same: faiss-cpu: none then, 1.15.1 now",
        "Not the same: lightly: 1.6.0 then, none now",
    ]
    assert "1 of 2 cases are not in old.json." in found


def test_a_comparison_where_dense_pytorch_was_refused(command, tmp_path):
    then, now = run(LARGE, 0.4, 2.0), run(LARGE, 0.2, 1.6)
    del now["extra_info"]["times"][peers.DENSE]
    files = write(tmp_path / "old.json", then), write(tmp_path / "new.json", now)
    found = lines(command.compared(*map(Results, files)))
    assert "clip, 2,048 x 128, fp32 400 ms 200 ms 0.50 5.00" in found


def test_the_repository_s_results_can_be_compared_with(command):
    file = Results(ROOT / "bench/results/cpu.json")
    names = {name for name, _ in file.named}
    assert {"bench_large[clip-8192-128-float32]", "bench_small[clip-64-128-float32]"} < names
    assert not [line for line in lines(command.compared(file, file)) if "ot the same" in line]


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "tpu"], "argument --device: got tpu, expected cpu or cuda"),
        (["--rows", "1"], "argument --rows: got 1, expected an integer of 2"),
        (["--seconds", "0"], "argument --seconds: got 0, expected an integer of 1"),
        (["--loss", "none"], "argument --loss: invalid choice: 'none'"),
        (["--all", "--dim", "4"], "argument --all: got it with sizes, expected either --all or"),
        (["--json", "a.txt"], "argument --json: got a.txt, expected a name that ends in .json"),
        (["--plot", "a.txt"], "argument --plot: got a.txt, expected a name that ends in .png"),
        (["--compare", "no.json"], "got no.json, expected a JSON file that this command wrote: No"),
        (["--compare", "text.json"], "argument --compare: got text.json, expected a JSON file"),
        (["--compare", "list.json"], "its fields are not those of these benchmarks"),
        (["--compare", "plain.json"], "its fields are not those of these benchmarks"),
        (
            ["--compare", "bench.json"],
            "argument --json: got bench.json, expected another file than --compare's",
        ),
    ],
)
def test_wrong_arguments(words, message, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("words")
    Path("list.json").write_text("[]")
    plain = {"name": "test_x", "extra_info": {}, "stats": {"median": 1.0}}
    write(Path("plain.json"), plain)
    write(Path("bench.json"), run(LARGE, 0.4, 2.0))
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *words])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_run(command, tmp_path):
    """It takes no settings from the current folder, and its results do not tell where and by whom
    they were measured."""
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not for us')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option")
    name = "bench_chosen[info_nce-8-4-float32]"
    write(tmp_path / "old.json", run(name, 1000.0, 1000.0))
    before = {path.name for path in tmp_path.iterdir()}
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_XDIST_WORKER"}
    words = "--loss info_nce --rows 8 --dim 4 --seconds 1 --threads 1 --compare old.json"
    command = [sys.executable, "-m", "contrastloss", "bench", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} - before == {"bench.json", "bench.png"}
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "bench.json").read_text()
    for secret in (platform.node(), getpass.getuser(), str(tmp_path), str(ROOT), str(Path.home())):
        assert f'"{secret}"' not in text
        assert f"{secret}/" not in text
    results = Results(tmp_path / "bench.json")
    ((found, info),) = results.named
    assert (found, results.commit, results.machine["threads"]) == (name, {}, 1)
    assert {peers.OURS, peers.DENSE, peers.CHECKPOINTED} <= info["times"].keys()
    assert info["refused"][peers.COMPILED] == "left out of this run"
    assert 0 < info["times"][peers.OURS]["seconds"] < 1
    assert "info_nce, 8 x 4, fp32" in done.stdout
    assert "Compared with old.json, 2026-11-29" in done.stdout
    assert "Not the same: processor: abacus then" in done.stdout
