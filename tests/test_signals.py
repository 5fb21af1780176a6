"""Ctrl-C, and other signals whose handlers raise, end a long call of the C++ backend."""

import _thread
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from contrastloss import ops
from contrastloss.backends import Operands, PairCall, cpu
from contrastloss.channel import COL, LSE
from contrastloss.program import Program

if cpu.missing() is not None:
    pytest.skip(f"cpu: {cpu.missing()}", allow_module_level=True)

N = 150_000


def long_forward():
    x = torch.zeros(N, 64)
    ops.pair_stats(x, x, (LSE(), LSE(axis=COL)), backend="cpu")


def long_one_pass():
    x = torch.zeros(40_000, 64, requires_grad=True)
    ops.pair_loss(x, x.detach(), (LSE(),), (ops.Part(0),), backend="cpu")


def long_topk():
    x = torch.zeros(N, 64)
    ops.pair_topk(x, x, 3, backend="cpu")


def long_gather():  # long rows, since a larger index would take gigabytes
    x, index = torch.zeros(2000, 16_384), torch.zeros(2000, 10_000, dtype=torch.int64)
    ops.gather_scores(x, x, index, backend="cpu")


def long_sort():
    ops.sort_network(torch.zeros(60_000, 600), backend="cpu")


def long_backward():
    x = torch.zeros(N, 64, requires_grad=True)
    statistics = torch.zeros(N)  # stands in for the results of a forward pass
    call = PairCall(Operands(x, x), Program((LSE(),)), False, x.dtype)
    cpu.pair_stats_backward(call, [statistics], [statistics], frozenset({"x"}))


@pytest.fixture(autouse=True)
def interrupts():
    """Enables interrupts: a shell ignores them for processes in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


CALLS = [long_forward, long_backward, long_one_pass, long_topk, long_gather, long_sort]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_is_answered_within_two_seconds(call, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    sent = []

    def interrupt():
        sent.append(time.monotonic())
        _thread.interrupt_main()

    timer = threading.Timer(0.5, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        answered = time.monotonic()
    finally:
        torch.set_num_threads(before)
        timer.join()
    assert answered - sent[0] < 2


def test_what_the_handler_raises_is_raised():
    class AlarmError(Exception):
        pass

    def alarm(*args):
        raise AlarmError("time is up")

    before = signal.signal(signal.SIGUSR1, alarm)
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGUSR1,))
    timer.start()
    try:
        with pytest.raises(AlarmError, match="time is up"):
            long_forward()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_returns_changes_nothing():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *args: seen.append(1))
    x = torch.randn(12_000, 64)
    want = ops.pair_stats(x, x, (LSE(),), backend="cpu")[0]
    timer = threading.Timer(0.05, signal.raise_signal, (signal.SIGUSR1,))
    timer.start()
    try:
        got = ops.pair_stats(x, x, (LSE(),), backend="cpu")[0]
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert torch.equal(got, want)
    assert seen == [1]


def _one_pass(x, y):
    loss = ops.pair_loss(x, y, (LSE(),), (ops.Part(0),), backend="cpu")[0]
    return [loss.detach(), *torch.autograd.grad(loss, (x, y))]


def _two_passes(x, y):
    lse = ops.pair_stats(x, y, (LSE(), LSE(axis=COL)), backend="cpu")
    return [v.detach() for v in lse] + [*torch.autograd.grad(sum(v.sum() for v in lse), (x, y))]


def _topk(x, y):
    return [*ops.pair_topk(x.detach(), y.detach(), 50, backend="cpu")]


@pytest.mark.parametrize("call", [_one_pass, _two_passes])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_handler_may_call_operators(call, dtype, monkeypatch):
    """The operator that it interrupts goes on with its own memory and registers."""
    g = torch.Generator().manual_seed(1)
    x, y = (v.requires_grad_() for v in torch.randn(2, 3000, 512, generator=g).to(dtype))
    others = [torch.full((2, n, 900), 3.0).to(dtype) for n in (20, 1200)]
    inside, interrupted, whole = [], [], cpu._run

    def noted(operator, *operands):
        inside.append(operator)
        try:
            return whole(operator, *operands)
        finally:
            inside.pop()

    @torch.enable_grad()
    def handler(*_):
        interrupted.extend(inside)
        for a, b in others:
            _one_pass(a.clone().requires_grad_(), b.clone().requires_grad_())
            _topk(a, b)
        signal.setitimer(signal.ITIMER_REAL, 0.02)  # again, once this one has returned

    want = call(x, y)
    monkeypatch.setattr(cpu, "_run", noted)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        for _ in range(50):
            got = call(x, y)
            for a, b in zip(got, want, strict=True):
                assert torch.equal(a, b)
            if interrupted:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted


def test_a_thread_of_others_does_not_wait_for_the_interpreter():
    """Nor does it run handlers: this thread has the interpreter, and waits for it."""
    code = """
import ctypes
from contrastloss import _C
c, thread, start = ctypes.PyDLL(None), ctypes.c_ulong(), ctypes.c_void_p(_C.signal_handlers())
assert c.pthread_create(ctypes.byref(thread), None, start, None) == 0
assert c.pthread_join(thread, None) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_next_call_is_as_good_as_before():
    with pytest.raises(KeyboardInterrupt):
        _interrupted()
    x = torch.randn(200, 16, dtype=torch.float64)
    got = ops.pair_stats(x, x, (LSE(),), backend="cpu")[0]
    torch.testing.assert_close(got, (x @ x.T).logsumexp(1))


def _interrupted():
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    try:
        long_forward()
    finally:
        timer.join()
