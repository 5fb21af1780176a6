"""How the blocks of a CUDA grid share tiles, by the code that the library has."""

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CXX = shlex.split(os.environ.get("CXX", "")) or ["c++"]
PROBE = """
#include "cuda/grid.h"
extern "C" void spread(long concurrent, long rows, long cols, long batch, int* found) {
  const auto g = contrastloss::cuda::spread(concurrent, rows, cols, batch);
  found[0] = g.across, found[1] = g.down, found[2] = g.batch;
}
"""


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    (folder / "probe.cpp").write_text(PROBE)
    command = [*CXX, "-std=c++17", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}", "probe.cpp"]
    subprocess.run([*command, "-o", "probe.so"], cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "probe.so"))

    def call(concurrent, rows, cols, batch=1):
        found = (ctypes.c_int * 3)()
        library.spread(*map(ctypes.c_long, (concurrent, rows, cols, batch)), found)
        return tuple(found)

    return call


def path(rows, cols, across, down):
    """How many tiles the busiest block has."""
    return -(-rows // across) * -(-cols // down)


@pytest.mark.parametrize("concurrent", [1, 2, 6, 108, 132, 148, 216, 264, 296, 528])
def test_all_blocks_run_at_once_and_none_is_much_longer_than_the_mean(spread, concurrent):
    sizes = [1, 2, 3, 5, 8, 11, 12, 13, 16, 31, 64, 128, 130, 256, 512]
    for rows in sizes:
        for cols in sizes:
            across, down, batch = spread(concurrent, rows, cols)
            assert batch == 1
            assert 1 <= across <= rows
            assert 1 <= down <= cols
            assert across * down <= concurrent
            longest = path(rows, cols, across, down)
            best = min(
                path(rows, cols, a, max(1, min(cols, concurrent // a)))
                for a in range(1, min(rows, concurrent) + 1)
            )
            assert longest == best
            # no fewer slices would do: one block less on either side is longer
            if across > 1:
                assert path(rows, cols, across - 1, down) > longest
            if down > 1:
                assert path(rows, cols, across, down - 1) > longest


def test_those_of_large_problems(spread):
    """CLIP of 16,384 rows on 132 multiprocessors: no third wave, and nearly even."""
    across, down, _ = spread(132, 128, 128)
    assert {across, down} == {16, 8}
    assert path(128, 128, across, down) * 132 <= 1.04 * 128 * 128
    assert spread(264, 128, 128, 4) == (*spread(66, 128, 128)[:2], 4)
    assert spread(132, 4, 4, 1000) == (1, 1, 1000)
