"""Tests of :mod:`contrastloss.compat` beside the libraries themselves."""

import pytest
import torch
from ranks import Ranks

from compat import rivals

assert rivals.LIBRARY  # torchvision imports from here on


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("four ranks"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="package")
def world():
    """Four ranks, whose default group has all of them: other libraries know no other."""
    found = Ranks(4)
    yield found
    found.close()
