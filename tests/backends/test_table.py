"""Who serves a call: a look-up of times by size, and the files that they are read from."""

import json
import logging
import math
import re
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from contrastloss.backends import Operands, PairCall, SortCall, machine, table
from contrastloss.backends.choose import BACKENDS, choose, preference
from contrastloss.backends.machine import Stamp, sources, stamp
from contrastloss.backends.table import Entry, Question, Table, Time
from contrastloss.channel import INDEX, LSE, MAX, SUM, differing, differs, form, row_weight
from contrastloss.program import Program

CPU = torch.device("cpu")
#: of some process
NOW = stamp(CPU, "cpu")
ASKED = Question("softmax", False, "float32", 1024**2, 128)


def time(seconds, rows=1024, cols=1024, dim=128, kind="softmax", symmetric=False, dtype="float32"):
    return Time(kind, symmetric, dtype, rows, cols, dim, seconds)


def entries(failure=None, **times):
    """An entry for each backend, of this machine."""
    found = {}
    for name, values in times.items():
        now = stamp(CPU, name)
        found[name] = Entry(name, now, now, failure, tuple(values))
    return found


# ---- the look-up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"reference": 1.0, "cuda": 0.9}, "cuda"),  # 1.11 times as fast
        ({"reference": 1.0, "cuda": 0.92}, "reference"),  # 1.09 times
        ({"reference": 1.0, "cuda": 0.8, "triton": 0.7}, "triton"),
        ({"reference": 1.0, "triton": 2.0}, "reference"),
        ({"cuda": 3.0, "triton": 2.0}, "triton"),  # the default ran out of memory
    ],
)
def test_a_backend_has_to_gain_a_tenth(seconds, expected):
    known = Table(entries(**{name: [time(s)] for name, s in seconds.items()}).values())
    assert known.fastest(ASKED, "reference", ("cuda", "triton", "reference")) == expected


def test_only_those_that_can_serve_are_compared():
    known = Table(entries(reference=[time(1.0)], cuda=[time(0.5)], triton=[time(0.6)]).values())
    assert known.fastest(ASKED, "reference", ("triton", "reference")) == "triton"


def test_the_nearest_size_in_log_scale_decides():
    """Times of 64 and 1,024 rows, D = 128, and of 64 rows, D = 512."""
    sizes = [(64, 128), (1024, 128), (64, 512)]
    slow, fast = [3.0, 1.0, 1.0], [1.0, 3.0, 3.0]  # cuda wins only at 64 rows, D = 128
    known = Table(
        entries(
            reference=[time(s, n, n, d) for s, (n, d) in zip(slow, sizes, strict=True)],
            cuda=[time(s, n, n, d) for s, (n, d) in zip(fast, sizes, strict=True)],
        ).values()
    )

    def wins(pairs, dim):
        asked = ASKED._replace(pairs=pairs, dim=dim)
        return known.fastest(asked, "reference", ("cuda", "reference")) == "cuda"

    assert wins(1, 1)
    assert wins(255 * 255, 128)  # sqrt(64 * 1024) = 256 rows are in the middle
    assert not wins(257 * 257, 128)
    assert wins(16 * 4096 - 1, 128)  # only the number of pairs counts
    assert wins(64 * 64, 255)
    assert not wins(64 * 64, 257)
    assert wins(0, 0)


@pytest.mark.parametrize(
    "other", [{"kind": "sums"}, {"symmetric": True}, {"dtype": "bfloat16"}], ids=str
)
def test_without_times_of_its_kind_a_call_gets_the_default(other):
    known = Table(entries(reference=[time(1.0)], cuda=[time(0.1)]).values())
    asked = ASKED._replace(**other)
    assert known.fastest(asked, "reference", ("cuda", "reference")) == "reference"


def paired(*channels, dtype=torch.float32, lead=(), symmetric=False, rows=(), cols=()):
    x, y = torch.empty(*lead, 6, 5), None if symmetric else torch.empty(*lead, 7, 5)
    return PairCall(Operands(x=x, y=y), Program(channels, rows, cols), False, dtype)


@pytest.mark.parametrize(
    ("call", "function", "expected"),
    [
        (paired(LSE(pairs=(differs(INDEX),))), "pair_stats_forward", ("softmax", False, 42)),
        (paired(SUM(), MAX(), symmetric=True), "pair_stats_backward", ("softmax", True, 36)),
        (paired(SUM("softplus"), lead=(3,)), "pair_stats_forward", ("sums", False, 126)),
        (paired(SUM(weight=(row_weight("u"),))), "pair_stats_forward", ("sums", False, 42)),
        (paired(LSE(pairs=(differs("id"),))), "pair_stats_forward", ("labels", False, 42)),
        (paired(SUM(weight=(differing("a"),))), "pair_stats_forward", ("labels", False, 42)),
        (paired(SUM(weight=(form("t"),))), "pair_stats_forward", ("labels", False, 42)),
        (paired(MAX()), "pair_topk", ("pair_topk", False, 42)),
        (paired(), "gather_scores_backward", ("gather_scores", False, 42)),
    ],
)  # fmt: skip
def test_what_a_call_asks(call, function, expected):
    kind, symmetric, pairs = expected
    assert table.question(call, function) == (kind, symmetric, "float32", pairs, 5)


def test_what_other_calls_ask():
    narrow = paired(SUM(), dtype=torch.bfloat16)
    assert table.question(narrow, "pair_stats_forward").dtype == "bfloat16"
    sort = SortCall(
        torch.empty(6, 9), torch.empty(1, 0, 9), torch.ones(6), 0.25, "bitonic", "optimal"
    )
    asked = table.question(sort, "sort_network_forward")
    assert asked == ("sort_network", False, "float32", 6, 9)


# ---- automatic choice ----------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch):
    """A function that replaces what is known of the CPU."""

    def learn(found):
        monkeypatch.setattr(table, "_TABLES", {CPU: Table(found.values())})

    learn({})
    return learn


@pytest.fixture
def closed():
    """A backend before all others, which serves every call once it was timed."""
    every = dict(BACKENDS)
    fake = SimpleNamespace(missing=lambda: None, why_not=lambda call: None, OPEN=False)
    fake.pair_stats_forward = lambda call: []
    BACKENDS.clear()
    BACKENDS.update(fake=fake, **every)
    yield fake
    BACKENDS.clear()
    BACKENDS.update(every)


CALL = paired(LSE())
FORWARD = "pair_stats_forward"


def served(call=CALL):
    chosen = choose(call, FORWARD)
    (name,) = (n for n, b in BACKENDS.items() if getattr(b, FORWARD, None) == chosen)
    return name


def test_a_backend_is_closed_until_it_was_timed(known, closed):
    usual = served()
    assert usual in ("cpu", "reference")
    known(entries(reference=[time(1.0)], cpu=[time(1.0)], fake=[]))  # checked only
    assert served() == usual
    known(entries(reference=[time(1.0)], cpu=[time(1.0)], fake=[time(0.5)]))
    assert served() == "fake"
    known(entries(reference=[time(0.4)], cpu=[time(1.0)], fake=[time(0.5)]))
    assert served() == "reference"


def test_a_backend_that_failed_is_not_chosen(known, closed):
    fine = entries(reference=[time(2.0)], cpu=[time(1.0)])
    known(fine | entries("crash", fake=[time(0.5)]))
    assert served() == ("cpu" if BACKENDS["cpu"].missing() is None else "reference")
    known(fine | entries("lies", cpu=[]))
    assert served() == "reference"
    known(entries("lies", cpu=[], reference=[]))  # the specification always serves
    assert served() == "reference"


def test_one_line_of_the_log_names_the_command(known, closed, caplog, monkeypatch):
    monkeypatch.setattr(sys.modules["contrastloss.backends.choose"], "_SAID", set())
    monkeypatch.delitem(BACKENDS, "cpu")  # as on a GPU, where only the reference is open
    with caplog.at_level(logging.WARNING, "contrastloss"):
        closed.why_not = lambda call: "it does not serve LSE"
        assert served() == "reference"
        assert caplog.records == []  # nothing would be faster
        closed.why_not = lambda call: None
        assert [served(), served()] == ["reference", "reference"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{FORWARD} on cpu: the reference backend serves; run ")
    assert "`python -m contrastloss tune`, which checks and times fake" in record.getMessage()


def test_the_environment_forces_a_backend(known, closed, monkeypatch):
    module = sys.modules["contrastloss.backends.choose"]
    monkeypatch.setattr(module, "FORCED", "reference")
    assert served() == "reference"
    assert choose(CALL, FORWARD, "fake") == closed.pair_stats_forward  # a call may name another
    monkeypatch.setattr(module, "FORCED", "fake")
    assert served() == "fake"
    with pytest.raises(RuntimeError, match=r"^CONTRASTLOSS_BACKEND: 'fake' cannot serve this call"):
        choose(CALL, "pair_topk")
    monkeypatch.setattr(module, "FORCED", "tpu")
    with pytest.raises(ValueError, match=r"^CONTRASTLOSS_BACKEND: got 'tpu', expected None or one"):
        served()


def test_ranks_that_know_the_same_prefer_the_same(known, monkeypatch):
    assert preference(None) == preference(CPU) == 0
    numbers = []
    for seconds, failure in ((1.0, None), (1.0, None), (2.0, None), (1.0, "lies")):
        known(entries(failure, reference=[time(seconds)]))
        numbers.append(preference(CPU))
    assert numbers[0] == numbers[1]
    assert len({0, *numbers}) == 4
    assert max(numbers) < 2**63  # a number of the ranks' header
    monkeypatch.setattr(sys.modules["contrastloss.backends.choose"], "FORCED", "cuda")
    assert preference(CPU) == preference(None) == 1 + [*BACKENDS].index("cuda")


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture
def write(monkeypatch, tmp_path):
    """A function that writes the user's file."""
    path = tmp_path / "tuned.json"
    monkeypatch.setenv("CONTRASTLOSS_TUNED", str(path))

    def found(given):
        path.write_text(given if isinstance(given, str) else table.text(given))
        monkeypatch.setattr(table, "_TABLES", {})
        return path

    return found


def test_a_file_returns_what_was_written(write):
    given = (
        Entry("cpu", NOW, NOW._replace(torch="2.10.0"), None, (time(0.25), time(1e-7, rows=3))),
        Entry("cuda", NOW._replace(name='"GPU"'), NOW, "hängt", ()),
    )
    assert table.read(write(given)) == given
    assert table.read(write(given).with_name("none.json")) == ()


def broken(change):
    data = json.loads(table.text([Entry("cpu", NOW, NOW, None, (time(0.25),))]))
    change(data[0])
    return json.dumps(data)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("{", "it is no JSON: Expecting"),
        ("{}", "entries: got {}, expected a list"),
        ("[3]", "entries[0]: got 3, expected an object of backend, checked, measured"),
        (broken(lambda e: e.pop("failure")), "entries[0]: got {'backend': 'cpu', "),
        (broken(lambda e: e.update(more=1)), "entries[0]: got {'backend': 'cpu', "),
        (broken(lambda e: e.update(backend=1)), "entries[0].backend: got 1, expected str"),
        (broken(lambda e: e.update(failure=1)), ".failure: got 1, expected str or NoneType"),
        (broken(lambda e: e["checked"].update(torch=2)), ".checked.torch: got 2, expected str"),
        (broken(lambda e: e["times"][0].update(rows=8.0)), ".times[0].rows: got 8.0, expected int"),
        (broken(lambda e: e["times"][0].update(dim=0)), "got 0, expected a positive number"),
        (broken(lambda e: e["times"][0].update(seconds=math.nan)), ".seconds: got nan, expected"),
        (broken(lambda e: e["times"][0].update(symmetric=1)), ".symmetric: got 1, expected bool"),
    ],
)
def test_a_file_that_does_not_fit_is_ignored_with_its_path(write, given, reason):
    path = write(given)
    with pytest.warns(UserWarning, match=re.escape(f"{path} is ignored: ")) as found:
        known = table.of(CPU)
    assert reason in str(found[0].message)
    assert not known
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once in a process
        assert table.of(CPU) is known


def test_entries_of_other_machines_are_passed_over(write):
    other = NOW._replace(name="another CPU")
    write([Entry("cpu", other, other, None, (time(1.0),))])
    assert not table.of(CPU)


def test_a_stale_entry_does_not_serve_until_it_was_checked(write):
    now = stamp(CPU, "cpu")
    old = now._replace(torch="2.10.0", sources="0")
    path = write([Entry("cpu", old, old, None, (time(1.0),))])
    said = f"{path} does not serve, as it was written with torch 2.10.0, not {now.torch}, another "
    said += "version of its code (cpu): run `python -m contrastloss tune --check-only`"
    with pytest.warns(UserWarning, match=re.escape(said)) as found:
        assert not table.of(CPU)
    assert len(found) == 1
    write([Entry("cpu", old, old, None, ()), Entry("cpu", now, old, None, (time(1.0),))])
    with pytest.warns(UserWarning, match=r"serves with times that were measured with") as found:
        assert table.of(CPU).timed == {"cpu"}
    assert len(found) == 1


def test_the_table_of_a_capability_serves_where_the_user_has_none(write, monkeypatch, tmp_path):
    """Another GPU of the capability, with another driver; but only the code that was measured."""
    gpu, name = torch.device("cuda", 0), "cpu"
    here = Stamp("cuda", "GPU A", "9.0", "580.1", "2.13", "3.6", sources(name))
    monkeypatch.setattr(table, "stamp", lambda device, backend: here)
    monkeypatch.setattr(table, "SHIPPED", tmp_path)
    write([])
    assert not table.of(gpu)  # an unknown capability
    there = here._replace(name="GPU B", driver="570.2", torch="2.12")
    shipped = [Entry(name, there, there, None, (time(1.0),))]
    (tmp_path / "9.0.json").write_text(table.text(shipped))
    write([])
    assert table.of(gpu).timed == {name}
    mine = [Entry("triton", here, here, None, (time(1.0),))]
    write(mine)
    assert table.of(gpu).timed == {"triton"}
    changed = there._replace(sources="0")
    (tmp_path / "9.0.json").write_text(table.text([shipped[0]._replace(checked=changed)]))
    write([])
    assert not table.of(gpu)


def test_shipped_tables_are_whole():
    """Each is of one capability, and has times of the reference, which others are compared with."""
    for file in table.SHIPPED.glob("*.json"):
        found = table.read(file)
        assert {e.checked.capability for e in found} == {file.stem}
        assert "reference" in {e.backend for e in found if e.times}


def test_where_the_file_is(monkeypatch):
    monkeypatch.delenv("CONTRASTLOSS_TUNED")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert table.path().as_posix() == "/somewhere/contrastloss/tuned.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert table.path().as_posix() == "/home/me/.cache/contrastloss/tuned.json"


# ---- the stamp -----------------------------------------------------------------------------------


def test_a_stamp_names_device_versions_and_code(monkeypatch):
    now = stamp(CPU, "cpu")
    assert now.device == "cpu"
    assert now.name.endswith(f", {torch.get_num_threads()} threads")
    assert now.torch == torch.__version__
    assert stamp(CPU, "triton")._replace(sources=now.sources) == now
    assert stamp(CPU, "triton").sources != now.sources
    gpu = SimpleNamespace(name="GPU", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.version, "hip", None)
    assert stamp(torch.device("cuda", 0), "cpu")[:3] == ("cuda", "GPU", "9.0")


def test_sources_are_those_of_the_backend(monkeypatch, tmp_path):
    """Its module or package, and what its library was compiled from."""
    monkeypatch.setattr(machine, "_HERE", tmp_path)
    build = SimpleNamespace(SOURCES={"_one": "a"})
    monkeypatch.setitem(sys.modules, "contrastloss._build", build)

    def found(name):
        sources.cache_clear()
        return sources(name)

    (tmp_path / "one.py").write_text("x = 1")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "part.py").write_text("y = 1")
    before = found("one"), found("two")
    (tmp_path / "one.py").write_text("x = 2")
    assert (found("one") == before[0], found("two") == before[1]) == (False, True)
    (tmp_path / "one.py").write_text("x = 1")
    assert found("one") == before[0]
    build.SOURCES["_one"] = "b"
    assert found("one") != before[0]
    (tmp_path / "two" / "part.py").write_text("y = 2")
    assert found("two") != before[1]
    sources.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Th\nGCC", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Rel", "580.65.06"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_the_version_of_the_driver(text, expected, monkeypatch):
    monkeypatch.setattr(machine.Path, "read_text", lambda self: text)
    assert machine._driver() == expected
