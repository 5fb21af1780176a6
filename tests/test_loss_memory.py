"""No loss stores an N x N matrix. Limits for the peak memory of forward and backward at N = 4,096,
where the scores alone would take 64 MB, and at N = 16,384, where they would take 1,024 MB."""

import os
import subprocess
import sys

import pytest

from contrastloss.losses import LOSSES, TwoViewLoss

#: MB, by the number of rows; for two views, the rows of both
LIMITS = {4096: 60, 16_384: 200}
#: fewer rows for losses that would take too long (ranks of every positive, a network for every
#: pair), and for losses with several rows per instance
FEWER = {
    "recall_at_k": 2048, "smooth_ap": 2048, "ada_meow": 2048,
    "hierarchical_contrastive": 8192, "cost": 4096, "mv_info_nce": 8192,
}  # fmt: skip
OPTIONS = {"mochi": {"hardest": 32, "mixed": 32, "mixed_with_query": 8}}

MEASURE = """
import re, sys
import torch
from contrastloss.losses import LOSSES
from contrastloss.testing import example

def status(key):
    with open("/proc/self/status") as file:
        return int(re.search(key + r":\\s*(\\d+)", file.read())[1]) / 1024

def floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()

def peak(cls, options, n):
    inputs = example(cls, n, 8, torch.Generator().manual_seed(0))
    inputs = [v.float().requires_grad_() if floating(v) else v for v in inputs]
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    cls(**options)(*inputs).backward()
    return status("VmHWM") - before

torch.set_num_threads(1)
for name, (n, options) in eval(sys.argv[1]).items():
    peak(LOSSES[name], options, 64)  # loads everything that is loaded once
    print(name, round(peak(LOSSES[name], options, n)), flush=True)
"""


def peaks(rows):
    """MB by loss, measured in a separate process whose heap returns freed memory at once."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system cannot reset the peak of a process")
    wanted = {
        name: (
            min(FEWER.get(name, rows), rows // (1 + issubclass(cls, TwoViewLoss))),
            OPTIONS.get(name, {}),
        )
        for name, cls in LOSSES.items()
    }
    command = [sys.executable, "-c", MEASURE, repr(wanted)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=290)
    assert done.returncode == 0, done.stderr
    return {name: int(size) for name, size in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("rows", [4096, pytest.param(16_384, marks=pytest.mark.extra)])
def test_no_loss_holds_the_pairs(rows, device):
    if device.type != "cpu":
        pytest.skip("the peak of a process is its CPU memory")
    found = peaks(rows)
    assert found.keys() == LOSSES.keys()
    assert {name: size for name, size in found.items() if size > LIMITS[rows]} == {}
    assert max(found.values()) > 1  # something was measured
