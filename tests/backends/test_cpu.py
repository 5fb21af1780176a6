"""Features of the C++ backend only: instruction sets, tiles, threads, memory, malformed
programs."""

import itertools
import math
import subprocess
import sys
import threading

import pytest
import torch
from instructions import using
from oracle import VECTORS, differences, evaluate, problem
from selection import every_fifth, part

from contrastloss import CLIPLoss
from contrastloss.backends import cpu
from contrastloss.backends.encode import encode
from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs, row_weight, same
from contrastloss.ops import pair_stats
from contrastloss.program import Program

if cpu.missing() is not None:
    pytest.skip(f"cpu: {cpu.missing()}", allow_module_level=True)

CLIP = (
    LSE(pairs=(differs(INDEX),)),
    LSE(pairs=(differs(INDEX),), axis=COL),
    SUM("id", pairs=(same(INDEX),)),
)
#: programs that use the fused pass, the general pass, and both orientations of a tile
PROGRAMS = {
    "clip": CLIP,
    "plain": (LSE(), LSE(axis=COL)),
    "rows": (LSE(pairs=(differs("i"),)),),
    "mixed": (LSE(2.0), EXPECT(axis=COL), MAX(pairs=(same("i"),)), SUM("softplus", sign=-1.0)),
    "weights": (LSE(weight=(row_weight("u"),)), SUM("square", shift="margin", axis=COL)),
}
#: several ragged tiles in both directions; a row of tiles; more than one block of rows; one pair
SIZES = [(433, 811, 33), (3, 900, 130), (2500, 70, 5), (1, 1, 1), (192, 384, 64)]
ANY_CPU = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def call_cpu(**call):
    return pair_stats(**call, backend="cpu")


@pytest.fixture(autouse=True)
def on_cpu(device):
    if device.type != "cpu":
        pytest.skip("the tensors are on another device")


# ---- values ------------------------------------------------------------------------------------


@every_fifth
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_instruction_set(isa, dtype, fifth):
    sizes = SIZES[: 3 if dtype == torch.float32 else 1]
    for case in itertools.product(PROGRAMS, sizes, ((), ("scale",), VECTORS), (False, True)):
        name, (m, n, d), vectors, symmetric = case
        if part((isa, dtype, case)) == fifth:
            call = problem(
                PROGRAMS[name], m=m, n=n, d=d, dtype=dtype, symmetric=symmetric,
                vectors=vectors, cosine=True,
            )  # fmt: skip
            assert not differences(call_cpu, call), case


@pytest.mark.parametrize("name", ["amx", "sse"])
def test_an_instruction_set_that_this_cpu_lacks(name, monkeypatch):
    monkeypatch.setattr(cpu, "instruction_sets", lambda: ("avx2", "generic"))
    with (
        using(name),
        pytest.raises(
            ValueError,
            match=f"^CONTRASTLOSS_ISA: got '{name}', expected one of avx2, generic, which this CPU",
        ),
    ):
        pair_stats(torch.ones(1, 1), None, (LSE(),), backend="cpu")


@pytest.mark.parametrize(("m", "n", "d"), SIZES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sizes_and_ranges(isa, m, n, d, scale):
    """At scale 100 the scores spread too far for one shift per tile."""
    for symmetric in (False, True):
        call = problem(CLIP, m=m, n=n, d=d, symmetric=symmetric, cosine=True, dtype=torch.float32)
        call["scale"] = torch.tensor(scale)
        assert not differences(call_cpu, call, rtol=2e-5 * max(1.0, scale / 10)), symmetric


def test_scores_of_bf16_are_not_rounded(isa):
    """Two products, 257 and 256, that round to the same bf16 number."""
    x = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)
    y = torch.tensor([[256.0, 1.0], [256.0, 0.0]], dtype=torch.bfloat16)
    (value,) = call_cpu(x=x, y=y, channels=(LSE(),))
    assert value.item() == pytest.approx(257 + math.log1p(math.exp(-1)), abs=1e-4)


def test_special_values_stay_in_their_rows(isa):
    """NaN and infinity affect only their own row, also within a tile."""
    for bad in (math.nan, math.inf):
        x, y = torch.randn(2, 70, 40)
        (clean,) = call_cpu(x=x, y=y, channels=(LSE(),))
        x[50, 3] = bad
        (value,) = call_cpu(x=x, y=y, channels=(LSE(),))
        keep = torch.arange(70) != 50
        assert torch.equal(value[keep], clean[keep])
        assert not value[50].isfinite()


# ---- determinism ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_repeats_bit_for_bit_at_any_number_of_threads(threads, dtype, symmetric, count):
    threads(count)
    call = problem(CLIP, m=700, n=650, d=40, dtype=dtype, symmetric=symmetric, cosine=True)
    assert not differences(call_cpu, call)
    values, grads = evaluate(call_cpu, call)
    for _ in range(3):
        again, more = evaluate(call_cpu, call)
        assert all(torch.equal(a, b) for a, b in zip(values, again, strict=True))
        assert all(torch.equal(grads[name], more[name]) for name in grads)


def test_a_frozen_input_changes_no_other_gradient():
    call = problem(CLIP, m=300, n=500, d=40, dtype=torch.float32, vectors=("scale",), cosine=True)
    _, everything = evaluate(call_cpu, call)
    for frozen in ("x", "y", "scale"):
        _, grads = evaluate(call_cpu, call, frozen=(frozen,))
        for name, grad in grads.items():
            torch.testing.assert_close(grad, everything[name], rtol=1e-5, atol=1e-6)


# ---- threads -------------------------------------------------------------------------------------


def test_serves_several_python_threads_at_once():
    calls = [problem(CLIP, m=300 + k, n=410, d=24, dtype=torch.float32, seed=k) for k in range(6)]
    want = [evaluate(call_cpu, call) for call in calls]
    got = [None] * len(calls)

    def work(k):
        for _ in range(5):
            got[k] = evaluate(call_cpu, calls[k])

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for (values, grads), (again, more) in zip(want, got, strict=True):
        for a, b in zip(values, again, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        for name in grads:
            torch.testing.assert_close(grads[name], more[name], rtol=1e-4, atol=1e-5)


def test_releases_the_gil():
    """Another Python thread keeps counting while a call runs."""
    x = torch.randn(6000, 64)
    call_cpu(x=x[:8], y=None, channels=(LSE(),))
    count, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            count[0] += 1

    worker = threading.Thread(target=tick)
    worker.start()
    before = count[0]
    call_cpu(x=x, y=None, channels=(LSE(3.0), LSE(2.0), LSE(1.5)))
    during = count[0] - before
    stop.set()
    worker.join()
    assert during > 1000


FRESH = """
import os, sys, torch
from contrastloss import CLIPLoss

def tasks():
    return len(os.listdir("/proc/self/task"))

def loss():
    torch.manual_seed(0)
    x = torch.randn(700, 32, requires_grad=True)
    value = CLIPLoss(backend="cpu")(x, torch.randn(700, 32))
    value.backward()
    return value.item(), x.grad.norm().item()
"""


def fresh(code):
    command = [sys.executable, "-c", FRESH + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@ANY_CPU
@pytest.mark.parametrize("count", [1, 2])
def test_starts_no_more_threads_than_torch_may(count):
    before, after = fresh(
        f"torch.set_num_threads({count}); torch.ones(1, requires_grad=True).sum().backward();"
        "before = tasks(); loss(); print(before, tasks())"
    )
    assert int(after) - int(before) <= count - 1


@ANY_CPU
def test_works_in_a_forked_child():
    """On one thread: OpenMP's worker threads do not survive a fork, and torch would wait for
    them."""
    (code,) = fresh(
        "torch.set_num_threads(2); here = loss(); pid = os.fork()\n"
        "near = lambda a, b: all(abs(u - v) < 1e-5 * abs(v) for u, v in zip(a, b))\n"
        "if pid == 0: os._exit(0 if near(loss(), here) else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert code == "0"


MEMORY = """
import resource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(4)
loss()
m, n, d = 1024, 65536, 128
x, y = torch.randn(m, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
held = [torch.ones_like(t) for t in (x, y)]  # gradients
from contrastloss.channel import COL, LSE
from contrastloss.ops import pair_stats
before = peak()
del held
rows, cols = pair_stats(x, y, (LSE(), LSE(axis=COL)), scale=10.0, cosine=True, backend="cpu")
(rows.sum() + cols.sum()).backward()
print(peak() - before)
"""


@ANY_CPU
def test_memory_does_not_grow_with_threads_times_columns():
    """Four threads and 65,536 columns of 128 features, where one N x D matrix takes 32 MB."""
    (extra,) = fresh(MEMORY)
    assert float(extra) <= 28


# ---- malformed programs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "values", "message"),
    [
        ([], [], "truncated"),
        ([1, 1, 0, 7, 7, 0], [], "no such operand: 7"),
        ([1, 1, 9, -1, -1, 0], [], "no such test: 9"),
        ([1, 0, 1, 9, 0, 1, -1, -1], [0.0], "no such weight: 9"),
        ([1, 0, 1, 0, 0, 1, -1, -1], [0.0], "a weight without its operand"),
        ([1, 0, 1, 4, 0, 1, -1, -1], [0.0], "a form without an operand"),
        (
            [1, 0, 1, 0, 0, 1 - (1 << 63), -1, -1],
            [0.0],
            "got a weight with -9223372036854775807 names",
        ),
        ([1, 0, 0, 1, 4, 0, 0, 0], [], "no such kind: 4"),
        ([1, 0, 0, 1, 1, 8, 0, 0], [], "no such psi: 8"),
        ([1, 0, 0, 1, 0, 0, 0, 1], [], "no such group: 1"),
        ([1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, -1, 5], [1.0], "a slot without a shift"),
        ([1, 0, 0, 1, 0, 0, 0, 0, 5, 0, -1, -1], [1.0], "no such value"),
    ],
)
def test_a_malformed_program_is_an_error(code, values, message):
    """A call that bypasses the Python layer reads no memory outside its tensors."""
    x = torch.randn(1, 3, 4)
    program = torch.tensor(code, dtype=torch.int64), torch.tensor(values, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.contrastloss.cpu_forward(
            x, None, None, None, None, None, None, [], [], *program, False, torch.float32, -1
        )


def raw_call(**changes):
    """A valid call of the registered operator, with some operands replaced."""
    found = {"x": torch.randn(2, 3, 4), "y": torch.randn(2, 5, 4), "isa": -1, **changes}
    code = encode(Program((LSE(),)).text).tensors
    return torch.ops.contrastloss.cpu_forward(
        found["x"], found["y"], *[None] * 5, [], [], *code, False, torch.float32, found["isa"]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": torch.randn(2, 5, 4).double()}, "y: wrong dtype"),
        ({"y": torch.randn(2, 5, 4).half()}, "y: wrong dtype"),
        ({"y": torch.randn(5, 4)}, "y: got 2 dimensions, expected 3"),
        ({"y": torch.randn(3, 5, 4)}, "y: expected the batch size of x"),
        ({"y": torch.randn(2, 5, 3)}, "y: got 3 features, expected 4"),
        ({"y": torch.randn(2, 4, 5).mT}, "y: not contiguous"),
        ({"x": torch.randn(2, 4, 3).mT}, "x: not contiguous"),
        ({"x": torch.randn(4)}, "x: got 1 dimensions"),
        ({"x": torch.randn(2, 3, 0), "y": None}, "x: got no features"),
        ({"x": torch.zeros(2, 3, 4, dtype=torch.int64), "y": None}, "dtype: expected float64"),
        ({"isa": 99}, "isa: got 99, expected an instruction set of this CPU"),
        ({"isa": -2}, "isa: got -2, expected an instruction set of this CPU"),
    ],
)
def test_malformed_embeddings_are_errors(changes, message):
    with pytest.raises(RuntimeError, match=message):
        raw_call(**changes)


def test_operands_on_another_device_are_errors():
    """The operators' fake kernels accept such tensors and return uninitialised memory."""
    with pytest.raises((RuntimeError, NotImplementedError), match="Meta"):
        raw_call(y=torch.randn(2, 5, 4, device="meta"))
    program = Program((LSE(),)).text
    settings = ([], [], program, False, torch.float32, None)
    x, y = torch.randn(3, 4), torch.randn(5, 4, device="meta")
    with pytest.raises(ValueError, match="y: got device meta, expected x's cpu"):
        torch.ops.contrastloss.pair_stats(x, y, *[None] * 5, *settings)
    index = torch.zeros(3, 2, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="index: got device meta, expected x's cpu"):
        torch.ops.contrastloss.gather_scores(x, x, *[None] * 5, *settings, index)


def test_an_exported_loss_checks_what_it_is_given():
    """An exported program's signature does not include the dtype of y."""
    example = torch.randn(6, 8), torch.randn(6, 8)
    exported = torch.export.export(CLIPLoss(), example).module()
    torch.testing.assert_close(exported(*example), CLIPLoss()(*example))
    with pytest.raises(RuntimeError, match="y: wrong dtype"):
        exported(example[0], example[1].double())


@pytest.mark.parametrize(
    ("outputs", "grads", "live", "message"),
    [
        ([], [], 0, "outputs: got 0 tensors, expected 1"),
        ([torch.zeros(2, 3)], [], 1, "grads: got 0, expected 1"),
        ([torch.zeros(2, 3)], [torch.zeros(2, 3)], 2, "live: got 2"),
        ([torch.zeros(2, 3)], [torch.zeros(2, 2)], 1, "grad: got 4 elements, expected 6"),
        ([torch.zeros(2, 2)], [torch.zeros(2, 3)], 1, "output: got 4 elements, expected 6"),
    ],
)
def test_malformed_gradients_are_errors(outputs, grads, live, message):
    x, code = torch.randn(2, 3, 4), encode(Program((LSE(),)).text).tensors
    with pytest.raises(RuntimeError, match=message):
        torch.ops.contrastloss.cpu_backward(
            x, None, *[None] * 5, [], [], *code, False, torch.float32, -1, outputs, grads, live, 1
        )


def test_an_operand_of_the_wrong_length_is_an_error():
    x, bias = torch.randn(1, 3, 4), torch.zeros(1, 2)
    code = encode(Program((LSE(),)).text).tensors
    with pytest.raises(RuntimeError, match="row_bias: got 2 elements, expected 3"):
        torch.ops.contrastloss.cpu_forward(
            x, None, None, None, None, bias, None, [], [], *code, False, torch.float32, -1
        )
