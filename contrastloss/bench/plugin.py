"""A plugin of pytest: settings of every run of the benchmarks, and a JSON file that says on what
they were measured, but not where or by whom."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import torch

import contrastloss

from .. import backends
from ..backends import cpu
from ..backends.machine import processor
from . import peers

__all__ = [
    "device",
    "pytest_addoption",
    "pytest_benchmark_generate_commit_info",
    "pytest_benchmark_generate_machine_info",
    "pytest_benchmark_update_json",
    "pytest_configure",
    "seconds",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="the device to run on: cpu or cuda")
    parser.addoption("--threads", default=2, type=int, help="threads of torch, 2")
    parser.addoption(
        "--without-compiled", action="store_true", help="leave out rivals that compile for minutes"
    )
    parser.addoption("--seconds", default=10.0, type=float, help="time for one comparison, 10")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_functions", "bench_*")
    config.addinivalue_line("filterwarnings", "ignore:::torch")
    config.addinivalue_line("markers", "quick: benchmarks that take a minute in total")
    torch.set_num_threads(config.getoption("--threads"))
    if config.getoption("--without-compiled"):
        peers.LEFT_OUT.update((peers.COMPILED, peers.MASKED_COMPILED))


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return request.config.getoption("--device")


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    return request.config.getoption("--seconds")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark's own
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    device = config.getoption("--device")
    return {
        "device": device,
        "processor": processor(),
        "instructions": cpu.ISA or next(iter(cpu.instruction_sets()), "none"),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "contrastloss": contrastloss.__version__,
        "backends": [name for name, lacks in backends.available().items() if not lacks],
        "peers": peers.versions(),
    }


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark's own
def pytest_benchmark_generate_commit_info() -> dict[str, Any]:
    """An installed package has no commit, and that of the current folder is none of its business.
    In the repository, bench/conftest.py knows better."""
    return {}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Removes the samples: their statistics are enough."""
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)
        del benchmark["options"]
