"""Fixtures of the C++ and CUDA backends' tests."""

import pytest
import torch
from instructions import present, using

from contrastloss.backends import cpu, cuda


@pytest.fixture(params=cpu.ISAS)
def isa(request):
    if request.param not in present():
        pytest.skip(f"this CPU has no {request.param}")
    with using(request.param):
        yield request.param


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
