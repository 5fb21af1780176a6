"""One device for the whole suite, fixed seeds, two threads, and NaN in uninitialised memory."""

import pytest
import torch
from served import skip_unless_served

from contrastloss import ops
from contrastloss.backends import cuda
from contrastloss.backends.choose import BACKENDS
from contrastloss.channel import LSE


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="the device that all tests run on")
    parser.addoption(
        "--cuda-host",
        choices=["plain", "thread", "address"],
        help="run the CUDA kernels on the CPU (tests/cuda_host), under a sanitizer or none",
    )


def pytest_configure(config):
    if sanitizer := config.getoption("--cuda-host"):
        from cuda_host.build import build

        cuda.LIBRARY, cuda.DEVICE = build(sanitizer), "cpu"


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session", autouse=True)
def poison():
    """``torch.empty`` holds NaN: whoever reads what nobody wrote is found out."""
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture(params=BACKENDS)
def backend(request, device):
    """The name of each backend that is present and works on the suite's device."""
    x = torch.ones(2, 2, device=device)
    skip_unless_served(lambda: ops.pair_stats(x, None, (LSE(),), backend=request.param))
    return request.param


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(20)
