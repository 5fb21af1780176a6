"""Tests are collected only for the backends that can run here. This test fails if one is missing
that should be able to."""

import os

import pytest
import torch
from served import CALLS, serving

try:
    from contrastloss._build import MISSING
except ImportError:  # a source tree that was never installed
    MISSING = dict.fromkeys(("_C", "_cpu", "_cuda"), "not built")


@pytest.mark.parametrize("operator", CALLS)
def test_all_that_was_built_and_can_run_here_serves(operator, device, request):
    gpu = device.type == "cuda"
    triton = gpu or os.environ.get("TRITON_INTERPRET") == "1"
    expected = {
        "reference": True,
        "cpu": not gpu and MISSING["_cpu"] is None,
        "triton": triton,
        "cuda": (gpu and MISSING["_cuda"] is None) or request.config.getoption("--cuda-host"),
    }
    found = serving(torch.device(device), (operator,))
    assert sorted(found) == sorted(name for name, here in expected.items() if here)
