"""The memory of a call of the Triton backend beyond its inputs and returned gradients: for half a
million and a million rows from the sizes of all tensors, without data, and for a small call as
allocated."""

import itertools
import weakref

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrastloss import ops
from contrastloss.backends import Operands, PairCall, Selection, SortCall, h_blocks, triton
from contrastloss.channel import COL, INDEX, LSE, MAX, SUM, differs, same
from contrastloss.functional import clip
from contrastloss.program import Program

if triton.missing():
    pytest.skip("needs triton", allow_module_level=True)

from contrastloss.backends.triton import backward, config, forward, rows, shares, sort, topk

CLIP = Program(
    (
        LSE(pairs=(differs(INDEX),)),
        LSE(pairs=(differs(INDEX),), axis=COL),
        SUM("id", pairs=(same(INDEX),)),
    ),
    (),
    (),
)
#: in units of the bytes of x and y
LIMIT = 1.5


class Live(TorchDispatchMode):
    """The bytes of all living storages that operators returned, and their peak."""

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, storage._cdata)
                    self.peak = max(self.peak, sum(self.sizes.values()))
        return found


class Unlaunched:
    """Replaces a kernel that is not launched."""

    def __getitem__(self, grid):
        return lambda *args, **options: None


def test_half_a_million_rows(monkeypatch):
    """Workspaces of library products are not counted."""
    for module, *kernels in (
        (rows, "norms_kernel", "finish_kernel"),
        (forward, "forward_kernel", "merge_kernel"),
        (shares, "range_kernel", "shares_kernel"),
        (backward, "h_block_kernel"),
    ):
        for name in kernels:
            monkeypatch.setattr(module, name, Unlaunched())
    monkeypatch.setattr(h_blocks, "add_product", lambda total, h, v, fresh: None)
    monkeypatch.setattr(config, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(config, "processors", lambda device: 132)
    with FakeTensorMode(), Live() as live:
        x, y = (torch.empty(1 << 19, 512, dtype=torch.bfloat16) for _ in range(2))
        inputs = live.peak
        assert inputs == x.nbytes + y.nbytes
        call = PairCall(Operands(x, y, torch.ones(())), CLIP, True, x.dtype)
        outputs = triton.pair_stats_forward(call)
        assert live.peak <= (1 + LIMIT / 3) * inputs
        found = triton.pair_stats_backward(call, outputs, outputs, {"x", "y", "scale"})
        assert (found.x.dtype, found.y.shape) == (x.dtype, y.shape)
        assert live.peak - found.x.nbytes - found.y.nbytes <= (1 + LIMIT) * inputs


def test_the_best_of_many_columns(monkeypatch):
    """One panel of candidates at a time, and results of O(N k). No value is read on the host."""
    for name in ("candidates_kernel", "ignore_kernel"):
        monkeypatch.setattr(topk, name, Unlaunched())
    with FakeTensorMode(), Live() as live:
        x, y = (torch.empty(1 << 16, 512, dtype=torch.bfloat16) for _ in range(2))
        lists = torch.empty(len(x) + 1, dtype=torch.int64), torch.empty(9, dtype=torch.int64)
        inputs = live.peak
        call = PairCall(Operands(x, y, torch.ones(())), Program((MAX(),)), False, x.dtype)
        values, index = triton.pair_topk(call, Selection(100, ignore=lists))
        assert index.shape == (1 << 16, 100)
        panel, results = 8 * topk.CANDIDATES, values.nbytes + index.nbytes
        assert live.peak <= inputs + results + 1.1 * panel


@pytest.mark.parametrize("n", [16, 128, 512])
def test_a_million_rows_sorted(monkeypatch, n):
    """The results of comparators are kept for the running blocks only, not for all rows."""
    monkeypatch.setattr(sort, "processors", lambda device: 132)
    for name in ("forward_kernel", "backward_kernel"):
        monkeypatch.setattr(sort, name, Unlaunched())
    sort.partners("odd_even", n, torch.device("cpu"))
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        x, t = torch.empty(1 << 20, n), torch.empty(1, 1, n)
        call = SortCall(x, t, torch.empty(1 << 20), 0.25, "odd_even", "cauchy")
        inputs = live.peak
        values, mass = triton.sort_network_forward(call)
        assert live.peak <= inputs + values.nbytes + mass.nbytes + sort.SCRATCH
        before = sum(live.sizes.values())
        (dx, *_) = triton.sort_network_backward(call, values, mass, [True, False, False])
        assert live.peak <= before + dx.nbytes + sort.SCRATCH


def allocated(run):
    """The peak of the CPU allocator's allocations minus its releases."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(sizes))


@pytest.mark.skipif(not triton.interpreted(), reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize("what", ["operator", "loss"])
def test_a_small_call(monkeypatch, what):
    monkeypatch.setattr(h_blocks, "ROWS", 32)
    monkeypatch.setattr(h_blocks, "ELEMENTS", 32 * 64)
    x, y = (torch.randn(384, 256, dtype=torch.float16, requires_grad=True) for _ in range(2))

    def run():
        if what == "loss":
            total = clip(x, y, backend="triton")
        else:
            found = ops.pair_stats(x, y, CLIP.channels, cosine=True, backend="triton")
            total = sum(v.sum() for v in found)
        torch.autograd.grad(total, (x, y))

    assert allocated(run) <= (1 + LIMIT) * (x.nbytes + y.nbytes)
