"""Selects the tests to run: the normal ones, and none, all or a share of the extra ones.

The mark ``extra`` is for tests that repeat a normal test with more sizes, instruction sets, losses
or schedules. A test of many cases splits them into fifths with ``every_fifth``."""

import zlib

import pytest

PARTS = 5
#: a run of CI takes one of so many shares of the extra tests
SHARES = 20

#: the first fifth runs always, the others are extra tests
every_fifth = pytest.mark.parametrize(
    "fifth", [0, *(pytest.param(k, marks=pytest.mark.extra) for k in range(1, PARTS))]
)


def part(label, parts=PARTS):
    """The fifth that a name belongs to, or another part: the same in every process."""
    return zlib.crc32(str(label).encode()) % parts


def pytest_addoption(parser):
    parser.addoption(
        "--extra",
        default="none",
        metavar="none|all|COMMIT",
        help="tests marked extra: none, all, or the share that a commit's hash chooses",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "extra: runs in `make test-all`, a share of it in CI")
    chosen = config.getoption("--extra")
    if chosen not in ("none", "all"):
        try:
            int(chosen, 16)
        except ValueError:
            raise pytest.UsageError(
                f"--extra: got {chosen!r}, expected none, all or a commit's hash"
            ) from None


def pytest_collection_modifyitems(config, items):
    chosen = config.getoption("--extra")
    if chosen == "all":
        return

    def runs(item):
        if item.get_closest_marker("extra") is None:
            return True
        if chosen == "none":
            return False
        return part(item.nodeid, SHARES) == int(chosen, 16) % SHARES

    left = [item for item in items if not runs(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if runs(item)]
