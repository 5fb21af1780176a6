"""One set of processes for all tests of this folder."""

import pytest
from ranks import Ranks


@pytest.fixture(scope="session")
def ranks():
    found = Ranks()
    yield found
    found.close()
