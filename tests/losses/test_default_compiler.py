"""Compiles and exports every loss: values by the default compiler, and few graphs for all sizes."""

import inspect

import pytest
import torch
from losses.test_adjacency import Graph
from losses.test_mochi import Drawn
from torch.export import Dim

from contrastloss import functional
from contrastloss.losses import LOSSES
from contrastloss.options import declared
from contrastloss.testing import Subject
from contrastloss.testing.compare import assert_same
from contrastloss.testing.running import check_compile, check_export

#: a graph given as tensors, and random numbers given as an input
ADAPTED = {"adjacency_contrastive": Graph, "mochi": Drawn}
#: a size where nothing else has it, then others around it, and of one row more than two
SIZES = (24, 3, 33, 77, 5, 8, 16, 64, 23)
TEMPERATURES = [0.05 + 0.03 * k for k in range(10)]
#: losses whose loops, sizes or logarithms once became constants of a graph
OFTEN = {
    "alignment_uniformity", "clip", "cost", "hard_negative", "region_attribute", "smooth_ap",
    "vicreg",
}  # fmt: skip


def names():
    extra = pytest.mark.extra
    return [name if name in OFTEN else pytest.param(name, marks=extra) for name in sorted(LOSSES)]


def subject(name, device="cpu"):
    options = {"positives": 3} if name == "triplet" else {}
    return Subject(ADAPTED.get(name, LOSSES[name]), options, device)


def drawn(subject, n):
    return subject.inputs(n=n, dtype=torch.float32)


@pytest.mark.extra
@pytest.mark.parametrize("check", [check_compile, check_export], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_default_compiler(check, name, device):
    check(Subject(ADAPTED.get(name, LOSSES[name]), {}, device))


@pytest.mark.parametrize("name", names())
def test_three_graphs_serve_all_sizes_and_temperatures(name):
    """One of the first call, one of other sizes, and one of other temperatures."""
    loss, graphs = subject(name), torch._dynamo.utils.counters["stats"]
    warm = "temperature" in declared(loss.cls) and name not in ADAPTED
    function = getattr(functional, name) if warm else loss.loss()
    named = dict(loss.options) if warm else {}

    def call(*inputs, **more):
        return function(*inputs, **named, **more)

    torch.compiler.reset()
    graphs.clear()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for k in range(10):
        more = {"temperature": TEMPERATURES[k]} if warm else {}
        inputs = drawn(loss, SIZES[k % 9])
        got, want = loss.run(compiled, inputs, **more), loss.run(call, inputs, **more)
        assert_same(got, want, f"N = {SIZES[k % 9]}, {more}", 1e-5)
    assert 1 <= graphs["unique_graphs"] <= 3


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "loose"])
@pytest.mark.parametrize("name", names())
def test_an_exported_batch_is_dynamic(name, strict):
    """The program of one size gives the value of others."""
    loss, inputs = subject(name), drawn(subject(name), SIZES[0])
    other = drawn(loss, SIZES[1])
    sizes = [
        {
            d: Dim.DYNAMIC if size == SIZES[0] else Dim.AUTO
            for d, (size, changed) in enumerate(zip(v.shape, w.shape, strict=True))
            if size != changed
        }
        for v, w in zip(inputs, other, strict=True)
    ]
    last = list(inspect.signature(loss.cls.forward).parameters.values())[1]
    dynamic = (tuple(sizes),) if last.kind is last.VAR_POSITIONAL else tuple(sizes)
    module = loss.loss()
    program = torch.export.export(module, tuple(inputs), dynamic_shapes=dynamic, strict=strict)
    for n in SIZES:
        values = drawn(loss, n)
        assert_same(program.module()(*values), module(*values), f"N = {n}", 1e-5)
