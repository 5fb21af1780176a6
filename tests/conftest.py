"""Settings for all tests: one device, fixed seeds, one thread, NaN in uninitialised memory."""

import os
import sys
from pathlib import Path

import pytest
import torch
from served import serving

from contrastloss.backends import cuda
from contrastloss.backends.choose import BACKENDS
from contrastloss.ops import check

#: no test reads the times of this machine's user
os.environ["CONTRASTLOSS_TUNED"] = str(Path(__file__).with_name("no-times.json"))

pytest_plugins = ("interpreted", "selection", "spent")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="the device that all tests run on")
    parser.addoption(
        "--cuda-host",
        choices=["plain", "thread", "address", "prototypes"],
        help="run the CUDA kernels on the CPU (tests/cuda_host): plain, with a sanitizer, or with "
        "what is not on by default",
    )
    parser.addoption("--site", help="the folder with the site that `make docs` has built")
    parser.addoption("--browser", help="what opens it; default: one that is found, if there is one")


def pytest_configure(config):
    if variant := config.getoption("--cuda-host"):
        from cuda_host.build import build, path

        if not hasattr(config, "workerinput"):  # only the controlling process builds
            build(variant)
        cuda.LIBRARY, cuda.DEVICE = path(variant), "cpu"


def pytest_generate_tests(metafunc):
    """Parametrises ``backend`` with the backends that can run ``pair_stats``, or the operators of
    the mark ``operators``, on the suite's device; the mark ``among`` limits the candidates."""
    given = {
        name for mark in metafunc.definition.iter_markers("parametrize")
        for name in str(mark.args[0]).replace(",", " ").split()
    }  # fmt: skip
    if "backend" in metafunc.fixturenames and "backend" not in given:
        operators = metafunc.definition.get_closest_marker("operators")
        among = metafunc.definition.get_closest_marker("among")
        names = serving(
            torch.device(metafunc.config.getoption("--device")),
            operators.args if operators else ("pair_stats",),
            among.args if among else tuple(BACKENDS),
        )
        metafunc.parametrize("backend", names)


def compiled(item):
    """None, or for a test that compiles: its function, check and classes. Options and backends are
    left out, since they hardly change what a compiler sees."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if getattr(given.get("check"), "__name__", "") not in ("check_compile", "check_export"):
        return None
    kept = [
        getattr(value, "cls", value)
        for name, value in sorted(given.items())
        if name != "backend" and not isinstance(value, dict)
    ]
    return item.path, item.originalname, *map(repr, kept)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests with several threads run one at a time. Normal runs compile a loss only with its first
    options and the first backend; the other combinations become extra tests."""
    seen = set()
    for item in items:
        if "threads" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("threads"))
        if what := compiled(item):
            if what in seen:
                item.add_marker(pytest.mark.extra)
            seen.add(what)


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session", autouse=True)
def poison():
    """``torch.empty`` returns NaN, so that a read of uninitialised memory shows in the result."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def threads():
    """A function that sets the number of threads for one test; all others use one thread."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def inside(monkeypatch):
    """A dispatch mode sees what happens inside operators: they run as the plain functions that they
    are without a mode."""
    plain = check.plain
    for name, module in [*sys.modules.items()]:
        if name.startswith("contrastloss.") and getattr(module, "plain", None) is plain:
            monkeypatch.setattr(module, "plain", lambda x: True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(20)
