"""Results of this folder name the commit that was measured."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.utils import get_commit_info


@pytest.hookimpl(tryfirst=True)  # before the package's
def pytest_benchmark_generate_commit_info() -> dict[str, Any]:
    found = get_commit_info()
    return {"id": found["id"], "dirty": found["dirty"]}
