"""Fixtures of the C++ backend's tests."""

import pytest
import torch

from contrastloss.backends import cpu
from contrastloss.channel import LSE
from contrastloss.ops import pair_stats


@pytest.fixture(params=cpu.ISAS)
def isa(request, monkeypatch):
    monkeypatch.setattr(cpu, "ISA", request.param)
    try:
        pair_stats(torch.ones(1, 1), None, (LSE(),), backend="cpu")
    except RuntimeError as error:
        if "not supported here" not in str(error):
            raise
        pytest.skip(f"this CPU has no {request.param}")
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
