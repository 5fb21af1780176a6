"""On devices without fp64 (MPS), fp32 inputs lead to no fp64 tensor, and results stay close to
those of fp64."""

import pytest
import torch
import torch.distributed as dist
from test_ambient import inputs, run, tensors
from torch.utils._python_dispatch import TorchDispatchMode

from contrastloss import metrics, ops, sorting
from contrastloss.backends import Operands, PairCall, call
from contrastloss.backends.reference import block
from contrastloss.channel import COL, EXPECT, LSE, SUM
from contrastloss.losses import LOSSES
from contrastloss.program import Program


class Forbidden(TorchDispatchMode):
    """Raises if any operator returns an fp64 tensor."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        for value in tensors(results):
            assert value.dtype != torch.float64, operator
        return results


@pytest.fixture
def device_without(monkeypatch, device, inside):
    """The suite's device, treated as one without fp64."""
    monkeypatch.setattr(call, "WITHOUT_FP64", {device.type})
    return device


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_makes_fp64_of_fp32(name, device_without):
    cls = LOSSES[name]
    loss, given = cls(backend="reference"), inputs(cls, device_without)
    with Forbidden():
        run(loss, given)


def test_the_mode_sees_what_operators_do(device):
    """The mode detects the fp64 sums that the reference uses on devices with fp64."""
    x = torch.randn(4, 3, device=device)
    call = PairCall(Operands(x), Program((LSE(),)), False, x.dtype, "reference")
    with pytest.raises(AssertionError, match=r"aten\."), Forbidden():
        ops.PairStats.apply(call, *call.operands.flat())


def test_sums_over_many_blocks(device_without, monkeypatch):
    """fp32 sums over 20,000 columns in a hundred blocks stay accurate, relative to the norms."""
    monkeypatch.setattr(block, "block_elements", lambda device: 1 << 13)
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 8, generator=g).to(device_without) for n in (40, 20_000))
    channels = (LSE(), LSE(axis=COL), EXPECT(), SUM("softplus"), SUM("id"))

    def call(x, y, scale):
        found = ops.pair_stats(x, y, channels, scale=scale, backend="reference")
        return [v for r in found for v in (r if isinstance(r, tuple) else [r])]

    scale = torch.tensor(0.7, device=device_without)
    got = run(call, (x, y, scale))
    want = run(call, (x.double(), y.double(), scale.double()))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        error = torch.linalg.vector_norm(a.double() - b) / torch.linalg.vector_norm(b)
        assert error < 2e-6, error


@pytest.mark.parametrize("function", [sorting.soft_rank, sorting.soft_sort])
@pytest.mark.parametrize("regularization", ["l2", "kl"])
def test_soft_ranks_of_a_thousand(function, regularization, device_without):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 1000, generator=g).to(device_without)
    options = {"regularization": regularization, "strength": 0.01}
    with Forbidden():
        got = run(lambda x: function(x, **options), (x,))
    want = run(lambda x: function(x, **options), (x.double(),))
    error = torch.linalg.vector_norm(got[0].double() - want[0]) / torch.linalg.vector_norm(want[0])
    assert error < 1e-6, error


def test_metrics(device_without):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=g).to(device_without)
    labels = torch.arange(40, device=device_without) % 7
    calls = [
        metrics.recall_at_k, metrics.mean_reciprocal_rank, metrics.mean_average_precision,
        metrics.mean_similarities, metrics.similarity_histogram, metrics.knn_accuracy,
    ]  # fmt: skip
    calls.append(lambda x, labels, **o: (metrics.alignment(x, x * x), metrics.uniformity(x, **o)))
    for metric in calls:
        given = {"labels": labels, "backend": "reference"}
        with Forbidden():
            got = tensors(metric(x, **given))
        for a, b in zip(got, tensors(metric(x.double(), **given)), strict=True):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-6)


def test_sums_over_ranks(device_without):
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        loss = LOSSES["clip"](backend="reference", group=dist.group.WORLD, return_stats=True)
        given = inputs(LOSSES["clip"], device_without)
        with Forbidden():
            got = run(loss, given)
        want = run(LOSSES["clip"](backend="reference", return_stats=True), given)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)
    finally:
        dist.destroy_process_group()
