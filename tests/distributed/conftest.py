"""One set of processes for all tests of this folder, which one worker runs."""

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
