"""The memory of one forward and backward pass in addition to its inputs and gradients.

On the CPU it is measured in a new process, since freed memory is not always returned:

    python bench/memory.py '{"problem": "clip", "name": "contrastloss", "rows": 8192, "d": 128,
                             "dtype": "float32", "device": "cpu", "threads": 2}'

prints a JSON object: ``extra`` bytes at the peak and the ``value`` of the loss; or ``asked``, the
bytes of the allocation that failed. The process may address at most :data:`LIMIT` bytes, so that no
process swaps or is killed because it asks for too much.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

LIMIT = 16 << 30
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: glibc returns larger blocks at once, so that no new block hides in memory freed earlier
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
UNITS = {"bytes": 1, "MiB": 1 << 20, "GiB": 1 << 30}


def probe(**what: Any) -> dict[str, Any]:
    if what["device"] == "cuda":  # its allocator counts, and can be reset, without a new process
        return measure(**what)
    command = [sys.executable, __file__, json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | MALLOC)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"memory probe of {what}: exit {done.returncode}, {last}")
    return json.loads(done.stdout.splitlines()[-1])


def field(name: str) -> int:
    """``VmRSS`` or ``VmHWM`` (its highest value) of this process, in bytes."""
    return int(re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)[1]) << 10


def reset_peak(device: str) -> int:
    """Forget earlier peaks; bytes in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    CLEAR.write_text("5")
    return field("VmRSS")


def peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else field("VmHWM")


def limit(device: str) -> None:
    if device == "cpu":  # CUDA reserves far more addresses than it uses
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


def asked(error: Exception) -> int | None:
    """The size of an allocation that failed."""
    found = re.search(r"allocate ([\d.]+) (bytes|MiB|GiB)", str(error))
    return int(float(found[1]) * UNITS[found[2]]) if found else None


def measure(
    *, problem: str, name: str, rows: int, d: int, dtype: str, device: str, threads: int
) -> dict[str, Any]:
    from contrastloss.bench.peers import COMPILED, PROBLEMS
    from contrastloss.bench.timing import step

    torch.set_num_threads(threads)
    limit(device)
    subject, kind = PROBLEMS[problem], getattr(torch, dtype)
    loss = subject.load(name)
    inputs = subject.inputs(rows, d, kind, device)
    # the first call loads libraries and starts threads; code is compiled for each shape
    step(loss, inputs if name == COMPILED else subject.inputs(128, d, kind, device))()
    run = step(loss, inputs)
    before = reset_peak(device)
    try:
        value, grads = run()
    except RuntimeError as error:
        if (size := asked(error)) is None:
            raise
        return {"asked": size}
    given = sum(grad.nbytes for grad in grads)
    return {"extra": peak(device) - before - given, "value": value.item()}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
