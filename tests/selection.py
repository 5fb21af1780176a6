"""Selects the tests to run: the normal ones, or a third of them, and none, all or a share of the
extra ones.

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
    parser.addoption(
        "--third",
        default="all",
        metavar="all|COMMIT",
        help="of the tests selected otherwise: all, or the third that a commit's hash chooses",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "extra: runs in `make test-all`, a share of it in CI")
    for option, words in (("--extra", ("none", "all")), ("--third", ("all",))):
        chosen = config.getoption(option)
        if chosen not in words:
            try:
                int(chosen, 16)
            except ValueError:
                expected = ", ".join(words)
                raise pytest.UsageError(
                    f"{option}: got {chosen!r}, expected {expected} or a commit's hash"
                ) from None


def pytest_collection_modifyitems(config, items):
    extra, third = config.getoption("--extra"), config.getoption("--third")

    def runs(item):
        if third != "all" and part(item.nodeid, 3) != int(third, 16) % 3:
            return False
        if extra == "all" or item.get_closest_marker("extra") is None:
            return True
        return extra != "none" and part(item.nodeid, SHARES) == int(extra, 16) % SHARES

    left = [item for item in items if not runs(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if runs(item)]
