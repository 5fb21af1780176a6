"""All tests of this folder share one set of processes, so one xdist worker runs all of them."""

from pathlib import Path

import pytest
from ranks import Ranks

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.xdist_group("ranks"))


@pytest.fixture(scope="package")
def ranks():
    found = Ranks()
    yield found
    found.close()
