"""Fixtures for the tests of the C++ and CUDA backends."""

import pytest
from instructions import using

from contrastloss.backends import cpu, cuda


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", cpu.instruction_sets(), indirect=True)


@pytest.fixture
def isa(request):
    """The name of each instruction set of this CPU; the C++ backend uses it during the test."""
    with using(request.param):
        yield request.param


@pytest.fixture
def cuda_backend(device):
    """Skips the test unless the CUDA backend's kernels can run here."""
    reason = cuda.missing()
    if reason is None and device.type != cuda.DEVICE:
        reason = f"it serves tensors on {cuda.DEVICE}: --device cuda, or --cuda-host"
    if reason is not None:
        pytest.skip(f"cuda: {reason}")
