"""Top-k and gathering in C++: instruction sets, threads, splits, memory, and operators called
without the Python layer."""

import subprocess
import sys

import pytest
import torch

from contrastloss.backends import cpu
from contrastloss.backends.encode import encode
from contrastloss.channel import INDEX, LSE, MAX, differs
from contrastloss.ops import gather_scores, pair_topk
from contrastloss.program import Program

if cpu.missing() is not None:
    pytest.skip(f"cpu: {cpu.missing()}", allow_module_level=True)

#: several blocks of rows; rows shared by threads; columns shared by threads; one pair
SIZES = [(2500, 300, 90), (1700, 500, 8), (5, 20_000, 17), (1, 1, 1)]


@pytest.fixture(autouse=True)
def on_cpu(device):
    if device.type != "cpu":
        pytest.skip("the tensors are on another device")


def whole(m, n, d, dtype):
    """Integers, whose products are exact, so that ties are broken in the same way."""
    return (torch.randint(-3, 4, (rows, d)).to(dtype) for rows in (m, n))


def best(s, k):
    k = min(k, s.shape[1])
    values, index = s.sort(dim=1, descending=True, stable=True)
    return values[:, :k], index[:, :k]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_instruction_set(isa, dtype):
    for m, n, d in SIZES:
        x, y = whole(m, n, d, dtype)
        values, index = best(x.double() @ y.double().mT, 30)
        found = pair_topk(x, y, 30, backend="cpu")
        assert torch.equal(found.indices[:, : index.shape[1]], index), (m, n, d)
        assert torch.equal(found.values[:, : index.shape[1]].double(), values)
        gathered = gather_scores(x, y, found.indices, backend="cpu")
        assert torch.equal(gathered, found.values)


def test_every_instruction_set_draws_the_same(isa):
    x, y = torch.zeros(20, 3), torch.zeros(5000, 3)
    found = pair_topk(x, y, 5000, sample=1.0, seed=99, backend="cpu")
    assert torch.equal(
        found.indices, pair_topk(x, y, 5000, sample=1.0, seed=99, backend="reference").indices
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_at_any_number_of_threads(threads, count, dtype):
    """Whatever the split of rows and columns, and whatever lists are cut in between."""
    for m, n, d in SIZES[:3]:
        x, y = torch.randn(m, d).to(dtype), torch.randn(n, d).to(dtype)
        threads(2)
        want = pair_topk(x, y, 64, cosine=True, backend="cpu")
        threads(count)
        found = pair_topk(x, y, 64, cosine=True, backend="cpu")
        assert torch.equal(found.indices, want.indices)
        assert torch.equal(found.values, want.values)


def test_lists_too_long_for_a_block_of_rows():
    """4,000 of 9,000 columns: a thread keeps lists for few rows at a time."""
    x, y = whole(700, 9000, 5, torch.float32)
    found = pair_topk(x, y, 4000, backend="cpu")
    values, index = best(x.double() @ y.double().mT, 4000)
    assert torch.equal(found.indices, index)
    assert torch.equal(found.values.double(), values)


def test_tiles_without_a_candidate_are_passed_over():
    """Sorted labels: nearly every tile has one class against another one, or only one class."""
    labels = torch.arange(1200) // 400
    x, y = whole(1200, 1200, 6, torch.float32)
    s = x.double() @ y.double().mT
    for test, mask in (
        (differs("label"), labels[:, None] != labels),
        (differs(INDEX), ~torch.eye(1200, dtype=torch.bool)),
    ):
        ids = {"rows": {"label": labels}, "cols": {"label": labels}} if test.name == "label" else {}
        found = pair_topk(x, y, 25, pairs=(test,), **ids, backend="cpu")
        assert torch.equal(found.indices, best(s.masked_fill(~mask, -torch.inf), 25)[1])


MEMORY = """
import resource, torch
from contrastloss.ops import pair_topk
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(2)
pair_topk(torch.randn(9, 8), torch.randn(99, 8), 3, backend="cpu")
x, y = torch.randn(2000, 64), torch.randn(60_000, 64)
before = peak()
pair_topk(x, y, 100, backend="cpu")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_lists_and_tiles():
    """2,000 x 60,000 scores would be 480 MB."""
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 40


# ---- without the Python layer --------------------------------------------------------------------


def arguments(program, **changes):
    x, y = torch.randn(3, 4), torch.randn(5, 4)
    found = {
        "lower": None, "upper": None, "ignore": [], "row_keys": None, "col_keys": None, **changes
    }  # fmt: skip
    code = encode(program.text).tensors
    return (x, y, *[None] * 5, [], [], *code, False, torch.float32, -1, 2, *found.values(), 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": torch.zeros(2)}, "lower: got 2 elements, expected 3"),
        ({"upper": torch.zeros(3).double()}, "upper: wrong dtype"),
        ({"ignore": [torch.zeros(4, dtype=torch.int64)]}, "expected offsets and columns"),
        ({"ignore": [torch.tensor([0, 9, 1, 1]), torch.tensor([0])]}, "offsets: not ascending"),
        ({"ignore": [torch.tensor([0, 2, 2, 2]), torch.tensor([4, 0])]}, "columns: not ascending"),
        ({"ignore": [torch.tensor([0, 0, 0, 7]), torch.tensor([0])]}, "offsets: expected 0 first"),
        ({"row_keys": torch.zeros(3, 2, dtype=torch.int32)}, "keys: got only row keys or only"),
        ({"row_keys": torch.zeros(2, dtype=torch.int32), "col_keys": torch.zeros(10).int()},
         "row_keys: got 2 elements, expected 6"),
    ],
)  # fmt: skip
def test_malformed_operands_are_errors(changes, message):
    with pytest.raises(RuntimeError, match=message):
        torch.ops.contrastloss.cpu_topk(*arguments(Program((MAX(),)), **changes))


def test_a_program_of_another_kind_is_an_error():
    with pytest.raises(RuntimeError, match="expected one MAX channel"):
        torch.ops.contrastloss.cpu_topk(*arguments(Program((LSE(),))))
