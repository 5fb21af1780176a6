"""Fixtures of the C++ and CUDA backends' tests."""

import pytest
import torch

from contrastloss.backends import cpu, cuda
from contrastloss.channel import LSE
from contrastloss.ops import pair_stats


@pytest.fixture(params=cpu.ISAS)
def isa(request, monkeypatch):
    monkeypatch.setattr(cpu, "ISA", request.param)
    try:
        pair_stats(torch.ones(1, 1), None, (LSE(),), backend="cpu")
    except RuntimeError as error:
        if "not supported here" not in str(error):
            raise
        pytest.skip(f"this CPU has no {request.param}")
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def cuda_backend(device):
    """Its kernels run here."""
    reason = cuda.missing()
    if reason is None and device.type != cuda.DEVICE:
        reason = f"it serves tensors on {cuda.DEVICE}: --device cuda, or --cuda-host"
    if reason is not None:
        pytest.skip(f"cuda: {reason}")
