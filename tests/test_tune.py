"""``python -m contrastloss tune``: what it checks, times and writes, with backends that have
faults."""

import re
import sys
import threading

import pytest
import torch

pytest.importorskip("rich", reason="tune needs it")

import faulty
from served import serves

import contrastloss
from contrastloss.__main__ import main
from contrastloss.backends import cuda, table
from contrastloss.backends.choose import BACKENDS
from contrastloss.backends.machine import stamp
from contrastloss.backends.table import Entry, Time
from contrastloss.info import info
from contrastloss.tune import cases, check, command, file, worker
from contrastloss.tune.cases import KINDS, Case
from contrastloss.tune.report import Outcome

CPU = torch.device("cpu")
TINY = [
    Case(kind, symmetric, "float32", 20, 20 if symmetric else 23, 9)
    for kind in KINDS
    for symmetric in (False, True)
    if not (symmetric and kind == "sort_network")
]
OF_PAIRS = ("softmax", "labels", "sums")


def label(case):
    return case.kind + "-symmetric" * case.symmetric


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """The user's file, which does not exist yet; nothing has been read from it."""
    path = tmp_path / "cache" / "tuned.json"
    monkeypatch.setenv("CONTRASTLOSS_TUNED", str(path))
    monkeypatch.setattr(table, "_TABLES", {})
    return path


# ---- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TINY, ids=label)
def test_a_backend_without_fault_passes(case, backend, device):
    operator = "pair_stats" if case.kind in OF_PAIRS else case.kind
    if serves(backend, operator, device):
        assert check.check(case, backend, device) is None


@pytest.mark.parametrize("case", TINY, ids=label)
def test_calls_of_the_kind_of_a_case_find_its_times(case, monkeypatch, device):
    choose, asked = sys.modules["contrastloss.backends.choose"], []
    known = choose.choose

    def chosen(call, function, name):
        asked.append(table.question(call, function))
        return known(call, function, "reference")

    monkeypatch.setattr(choose, "choose", chosen)
    cases.results(case, case.inputs(device), None)
    pairs = 20 if case.kind == "sort_network" else case.rows * case.cols
    assert asked[0] == (case.kind, case.symmetric, "float32", pairs, 9)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", OF_PAIRS)
def test_a_fault_is_found(kind, symmetric, dtype, monkeypatch):
    case = Case(kind, symmetric, dtype, 130, 130 if symmetric else 150, 17)
    for fault, said in (
        ("differs", "two runs of the same call differ"),
        ("lies", r"wrong: \d.* times the error that rounding allows"),
    ):
        monkeypatch.setitem(BACKENDS, fault, faulty.FAULTS[fault])
        assert re.fullmatch(said, check.check(case, fault, CPU) or "nothing")


@pytest.mark.parametrize("kind", cases.LOSSES)
@pytest.mark.parametrize("cols", [130, 127, 135, None])
def test_a_fault_of_the_one_pass_is_found(kind, cols, monkeypatch):
    """Also of other numbers of columns than of rows; None: with itself."""
    if BACKENDS["cpu"].missing() is not None:
        pytest.skip("only the C++ backend has one pass")
    case, whole = Case(kind, cols is None, "float32", 130, cols or 130, 17), BACKENDS["cpu"].scale
    assert check.check(case, "cpu", CPU) is None
    monkeypatch.setattr(BACKENDS["cpu"], "scale", lambda grad, units: whole(1.01 * grad, units))
    assert check.check(case, "cpu", CPU).startswith("wrong: ")


def test_a_result_that_is_not_a_number_is_wrong(monkeypatch):
    monkeypatch.setitem(BACKENDS, "lacks", faulty.like_reference(pair_stats_forward=faulty.nan))
    with pytest.raises(AssertionError, match="not finite"):
        check.check(TINY[0], "lacks", CPU)


def test_times_are_medians_of_passes(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0, 30.0, 35.0, 40.0, 44.0])
    monkeypatch.setattr(check.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(check, "step", lambda *case: [])
    assert check.seconds(TINY[0], "reference", CPU) == 3.0  # of 1, 3, 2, 5 and 4


def test_a_worker_checks_then_times_and_skips_what_its_backend_declines(monkeypatch):
    def worked(check_only):
        job = worker.Job("declines", "cpu", ("float32",), (16,), (8,), check_only)
        return list(worker._messages(job))

    backend = faulty.like_reference(why_not=lambda call: "symmetric" if call.y is None else None)
    monkeypatch.setitem(BACKENDS, "declines", backend)
    monkeypatch.setattr(check, "SECONDS", 0.0)
    monkeypatch.setitem(cases.RAGGED, "cpu", ((20, 23, 9),))
    served = ["tries", "checked", "tries"] * 3  # the last is symmetric
    first, *steps, last = worked(check_only=True)
    assert (first.word, first.value[1], last.word) == ("started", 11, "done")
    assert [m.word for m in steps] == served + ["tries"] * 5
    _, *steps, last = worked(check_only=False)
    assert [m.value[:-1] for m in steps if m.word == "timed"] == [
        (kind, False, "float32", 16, 16, 8) for kind in OF_PAIRS
    ]
    assert last.word == "done"


# ---- the command ---------------------------------------------------------------------------------

ASKED = ("tune", "--device", "cpu", "--dtype", "float32", "--rows", "16", "--dim", "8")


@pytest.fixture
def some(monkeypatch):
    """A function that leaves only some backends, also those with faults."""
    every = dict(BACKENDS)

    def keep(*names):
        BACKENDS.clear()
        BACKENDS.update({k: v for k, v in {**every, **faulty.FAULTS}.items() if k in names})

    monkeypatch.setattr(command, "WORK", faulty.work)
    yield keep
    BACKENDS.clear()
    BACKENDS.update(every)


def test_faults_are_recorded_shown_and_not_chosen(some, tuned, capsys):
    """A crash and a hang end only their own process, and this one opens no GPU."""
    some("cpu", "reference", *faulty.FAULTS)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("is_available", "_lazy_init", "current_device", "get_device_properties"):
            patch.setattr(torch.cuda, name, lambda *a: pytest.fail("the parent opens a GPU"))
        assert main([*ASKED, "--timeout", "5"]) == 1

    entries = {e.backend: e for e in table.read(tuned)}
    assert entries.keys() == {"cpu", "reference", *faulty.FAULTS}
    case = "softmax, 34 x 39 x 17, float32"
    expected = {
        "crashes": f"{case}: its process ended by SIGABRT",
        "hangs": f"{case}: no answer in 5 seconds",
        "differs": f"{case}: two runs of the same call differ",
        "lies": f"{case}: wrong: ",
    }
    printed, told = capsys.readouterr().out, info()
    for name, reason in expected.items():
        assert entries[name].failure.startswith(reason)
        assert entries[name].times == ()
        assert f"{name}: FAILED, and is not chosen: {reason}" in printed
        assert f"not chosen: {reason}" in told
    for name in ("cpu", "reference"):
        assert entries[name].failure is None
        assert {t[:6] for t in entries[name].times} == {
            *((kind, s, "float32", 16, 16, 8) for kind in [*KINDS][:-1] for s in (False, True)),
            ("sort_network", False, "float32", 16, 1, 8),
        }
        assert entries[name].checked == entries[name].measured == entries["lies"].checked._replace(
            sources=entries[name].checked.sources
        )  # fmt: skip
    assert re.search(r"^softmax, with itself, 16 x 8, fp32 .* cpu *$", printed, re.MULTILINE)

    # the file serves other processes with as many threads
    mine = [
        e._replace(**dict.fromkeys(("checked", "measured"), stamp(CPU, e.backend)))
        for e in entries.values()
    ]
    assert table.Table(mine).failed == faulty.FAULTS.keys()
    assert table.Table(mine).timed == {"cpu", "reference"}


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_backend_for_gpus_is_opened(name, some, tuned, monkeypatch):
    """Emulated, or in Triton's interpreter: it serves CPU tensors once it was checked and timed."""
    if not serves(name, "pair_stats", CPU):
        pytest.skip("--cuda-host or TRITON_INTERPRET=1 make it serve CPU tensors")
    if name == "cuda":
        monkeypatch.setenv(faulty.EMULATION, str(cuda.LIBRARY))
    some(name, "reference")
    assert main([*ASKED]) == 0
    found = {e.backend: e for e in table.read(tuned)}
    kinds = {t.kind for t in found[name].times}
    assert kinds >= {"softmax", "labels", "sums", "gather_scores", "sort_network"}
    known = table.Table(found.values())
    assert known.timed == {name, "reference"}
    asked = table.Question("softmax", False, "float32", 16 * 16, 8)
    fast = {n: t.seconds for n in found for t in found[n].times if t[:3] == asked[:3]}
    best = name if fast["reference"] >= 1.1 * fast[name] else "reference"
    assert known.fastest(asked, "reference", (name, "reference")) == best


def test_a_device_that_is_not_there_is_an_error(some, tuned, capsys, monkeypatch):
    some("reference")
    monkeypatch.setattr(command, "ask", lambda job, *_: Outcome(job.backend, absent="no driver"))
    with pytest.raises(SystemExit) as stopped:
        main(["tune", "--device", "cuda:7"])
    assert stopped.value.code == 2
    assert (
        "error: argument --device: got cuda:7; the reference fails: no driver\n"
        in capsys.readouterr().err
    )
    assert table.read(tuned) == ()


def test_a_file_that_cannot_be_written_is_an_error_at_once(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTRASTLOSS_TUNED", str(tmp_path / "file" / "tuned.json"))
    with pytest.raises(SystemExit):
        main(["tune"])
    said = (
        f"CONTRASTLOSS_TUNED: got {tmp_path / 'file' / 'tuned.json'}, expected a file that can be"
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "tpu"], "argument --device: got tpu, expected cpu, cuda or cuda:0"),
        (["--timeout", "0"], "argument --timeout: got 0, expected an integer of 1"),
        (["--rows", "x"], "argument --rows: got x, expected an integer of 1"),
        ([], "environment variable RANK: got 3, expected 0: one process tunes"),
    ],
)
def test_wrong_arguments_are_usage_errors(words, message, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")  # as torchrun sets it
    with pytest.raises(SystemExit) as stopped:
        main(["tune", *words])
    assert stopped.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


# ---- entries and the file ------------------------------------------------------------------------

NOW = stamp(CPU, "cpu")
BEFORE = NOW._replace(torch="2.10.0")
TIME = Time("softmax", False, "float32", 16, 16, 8, 0.5)
OLD = Entry("cpu", BEFORE, BEFORE, None, (TIME,))


@pytest.mark.parametrize(
    ("found", "check_only", "expected"),
    [
        (Outcome("cpu", absent="not built"), False, None),
        (Outcome("cpu", stamp=NOW), False, None),  # it serves no call on this device
        (Outcome("cpu", None, NOW, 3, [TIME]), False, Entry("cpu", NOW, NOW, None, (TIME,))),
        (Outcome("cpu", None, NOW, 3, []), True, Entry("cpu", NOW, BEFORE, None, (TIME,))),
        (Outcome("cpu", None, NOW, 3, [], "lies"), True, Entry("cpu", NOW, NOW, "lies", ())),
        (Outcome("cpu", failure="crash"), False, Entry("cpu", NOW, NOW, "crash", ())),
    ],
)
def test_what_is_written_of_a_backend(found, check_only, expected):
    """Times of other versions stay if the checks pass, and say with what they were measured."""
    other = OLD._replace(checked=BEFORE._replace(name="another CPU"), times=())
    assert command.entry(found, NOW, check_only, [OLD, other]) == expected


def test_the_check_prefers_times_of_the_same_versions():
    mine = Entry("cpu", NOW, NOW, None, (TIME._replace(seconds=0.1),))
    assert command.entry(Outcome("cpu", None, NOW, 3), NOW, True, [mine, OLD]) == mine


def test_entries_replace_those_of_their_backend_and_stamp(tmp_path):
    path = tmp_path / "new" / "tuned.json"
    file.save(path, [OLD])
    now = Entry("cpu", NOW, NOW, None, (TIME,))
    file.save(path, [now])
    file.save(path, [OLD._replace(failure="lies", times=())])
    assert table.read(path) == (now, OLD._replace(failure="lies", times=()))
    path.write_text("{}")
    file.save(path, [now])
    assert table.read(path) == (now,)
    assert [p.name for p in path.parent.iterdir()] == ["tuned.json"]


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "tuned.json"
    entries = [OLD._replace(backend=f"b{k}") for k in range(8)]
    threads = [threading.Thread(target=file.save, args=(path, [e])) for e in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(table.read(path)) == entries


def test_a_lock_that_nobody_gives_back_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "PATIENCE", 0.1)
    lock = tmp_path / "tuned.json.lock"
    lock.touch()
    with pytest.raises(TimeoutError, match=re.escape(f"{lock} is held by another process")):
        file.save(tmp_path / "tuned.json", [OLD])
    assert not (tmp_path / "tuned.json").exists()


def test_losses_use_what_was_found(tuned):
    """From the file to the backend of a loss: the reference was faster at 16 x 8, and fails at no
    other dtype."""
    cpu, reference = (stamp(CPU, name) for name in ("cpu", "reference"))
    fast = TIME._replace(seconds=0.4)
    file.save(tuned, [Entry("cpu", cpu, cpu, None, (TIME,))])
    file.save(tuned, [Entry("reference", reference, reference, None, (fast,))])
    ran = []
    x = torch.eye(16, 8)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cpu", "reference"):
            whole = BACKENDS[name].pair_stats_forward
            patch.setattr(
                BACKENDS[name],
                "pair_stats_forward",
                lambda call, name=name, whole=whole: ran.append(name) or whole(call),
            )
        contrastloss.CLIPLoss()(x, x)
        contrastloss.CLIPLoss()(x.double(), x.double())
    assert ran == ["reference", "cpu"]
