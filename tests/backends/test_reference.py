"""The memory of the reference backend, and the choice of a backend."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from oracle import differences, problem

from contrastloss.backends import available, choose
from contrastloss.backends.choose import BACKENDS
from contrastloss.backends.reference import block
from contrastloss.channel import COL, INDEX, LSE, differs
from contrastloss.ops import pair_stats

# Blocks are visited one after another, so their number does not matter: 2,048 rows against 65,536
# columns give blocks of the same size as 65,536 rows.
MEMORY = """
import resource, torch
from contrastloss.channel import COL, INDEX, LSE, differs
from contrastloss.ops import pair_stats

torch.set_num_threads(2)
M, N, D = 2048, 65536, 128

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def step(x, y):
    channels = (LSE(pairs=(differs(INDEX),)), LSE(axis=COL, pairs=(differs(INDEX),)))
    rows, cols = pair_stats(x, y, channels, scale=10.0, cosine=True, backend="reference")
    (rows.sum() + cols.sum()).backward()

step(torch.randn(8, D).requires_grad_(), torch.randn(8, D).requires_grad_())  # code, threads
x, y = torch.randn(M, D).requires_grad_(), torch.randn(N, D).requires_grad_()
held = [torch.ones_like(t) for t in (x, y, x, y)]  # normalised copies and gradients
before = peak()
del held
step(x, y)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_is_bounded():
    """At most 128 MB beyond inputs, normalised copies and gradients at N = 65,536, D = 128, where
    one N x N matrix takes 16 GB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300
    )
    extra = float(done.stdout)
    assert extra <= 128, f"{extra:.0f} MB"


@pytest.mark.parametrize("elements", [1, 100, 10**9])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_size_of_a_block_changes_nothing(monkeypatch, device, elements, symmetric):
    monkeypatch.setattr(block, "block_elements", lambda device: elements)
    channels = (LSE(pairs=(differs(INDEX),)), LSE(axis=COL))
    call = problem(channels, m=11, n=13, d=4, device=device, symmetric=symmetric)
    assert not differences(lambda **c: pair_stats(**c, backend="reference"), call)


class Call:
    """The attributes of a call that :func:`block.blocks` reads."""

    x = torch.empty(0)

    def __init__(self, batch, rows, columns):
        self.batch, self.rows, self.columns = batch, rows, columns

    def length(self, axis):
        return self.rows if axis == "row" else self.columns


@pytest.mark.parametrize("batch", [0, 1, 3, 4096])
@pytest.mark.parametrize(("m", "n"), [(1000, 50_000), (50_000, 3), (1, 70_000), (1, 1), (512, 0)])
def test_blocks_cover_every_pair_once_and_bound_what_is_live(batch, m, n):
    """No block has more scores than allowed, whatever the numbers of rows and columns."""
    spans = list(block.blocks(Call(batch, m, n)))
    sizes = [(i.stop - i.start) * (j.stop - j.start) for i, j in spans]
    assert max(sizes, default=0) * batch <= block.block_elements(Call.x.device)
    assert sum(sizes) == m * n
    assert len({(i.start, j.start) for i, j in spans}) == len(spans)


# ---- choose --------------------------------------------------------------------------------------


class Fake:
    """A backend that is missing, declines or waits for times, according to its arguments."""

    def __init__(self, missing=None, why_not=None, is_open=True):
        self.missing = lambda: missing
        self.why_not = lambda call: why_not
        self.OPEN = is_open

    def pair_stats_forward(self, call):
        return []


@pytest.fixture
def table(monkeypatch):
    """BACKENDS, restored after the test."""
    copy = dict(BACKENDS)
    for name in copy:
        monkeypatch.delitem(BACKENDS, name)
    BACKENDS.update(copy)
    yield BACKENDS
    BACKENDS.clear()
    BACKENDS.update(copy)


def put_first(table, name, backend):
    rest = dict(table)
    table.clear()
    table.update({name: backend, **rest})


def test_an_unknown_name_lists_the_known(table):
    with pytest.raises(
        ValueError, match=r"^backend: got 'tpu', expected None or one of .*reference"
    ):
        choose(None, "pair_stats_forward", "tpu")


def test_a_missing_backend_says_why(table):
    put_first(table, "fake", Fake(missing="nobody built it"))
    with pytest.raises(RuntimeError, match=r"^backend: 'fake' cannot serve .*: nobody built it"):
        choose(None, "pair_stats_forward", "fake")
    assert available()["fake"] == "nobody built it"


def test_a_backend_that_declines_says_why(table):
    put_first(table, "fake", Fake(why_not="it does not serve MAX"))
    with pytest.raises(RuntimeError, match=r"'fake' cannot serve this call: it does not serve MAX"):
        choose(None, "pair_stats_forward", "fake")


def test_a_backend_without_times_serves_when_asked(table):
    fake = Fake(is_open=False)
    put_first(table, "fake", fake)
    assert choose(None, "pair_stats_forward", "fake") == fake.pair_stats_forward


#: what automatic choice reads of a call for which nothing was timed
CALL = SimpleNamespace(x=torch.empty(0))


@pytest.mark.parametrize(
    "options", [{"missing": "m"}, {"why_not": "w"}, {"is_open": False}], ids=str
)
def test_automatic_choice_passes_on(table, options):
    table.clear()
    reference = Fake()
    table.update({"fake": Fake(**options), "reference": reference})
    assert choose(CALL, "pair_stats_forward") == reference.pair_stats_forward


def test_automatic_choice_takes_the_first(table):
    table.clear()
    first, second = Fake(), Fake()
    table.update({"one": first, "two": second})
    assert choose(CALL, "pair_stats_forward") == first.pair_stats_forward


def test_the_reference_is_always_there():
    assert available()["reference"] is None


def test_a_named_backend_is_the_one_that_runs(monkeypatch):
    ran = []
    forward = BACKENDS["reference"].pair_stats_forward
    monkeypatch.setattr(
        BACKENDS["reference"], "pair_stats_forward", lambda call: ran.append(1) or forward(call)
    )
    pair_stats(torch.randn(3, 2), None, (LSE(),), backend="reference")
    assert ran == [1]
