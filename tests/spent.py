"""CPU seconds of the tests of each directory, compared with a budget: ``tests/budget.json``.

With ``--budget`` a run fails if a directory takes more than twice its budget; the factor of two is
for slow machines. Tests marked ``extra`` do not count. Child processes count while they run, on
Linux; elsewhere once they have ended, even if another test began them.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUDGET = json.loads((HERE / "budget.json").read_text())
ROOM = 2.0
SPENT = pytest.StashKey[Counter]()


def now():
    """CPU seconds of this process and of its descendants."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(map(running, children("self")))


def children(process):
    """The numbers of the processes that a process has started."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    except OSError:  # it has ended meanwhile
        return []
    return " ".join(lists).split()


def running(process):
    """CPU seconds of a process and of its descendants; 0 if it has ended meanwhile."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0.0
    ticks = text.rpartition(")")[2].split()[11:15]  # user, system, and the same of ended children
    own = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(running, children(process)))


def directory(item):
    return item.path.parent.relative_to(HERE.parent).as_posix()


def most(name):
    """The CPU seconds that a directory may take."""
    return ROOM * BUDGET.get(name, 0)


def over(config):
    """A line for every directory that took too many."""
    if not config.getoption("--budget"):
        return []
    return [
        f"{name}: {seconds:.0f} CPU seconds, {most(name):.0f} are allowed"
        for name, seconds in sorted(config.stash[SPENT].items())
        if seconds > most(name)
    ]


def pytest_addoption(parser):
    parser.addoption(
        "--budget", action="store_true", help="fail if a directory takes too many CPU seconds"
    )


def pytest_configure(config):
    config.stash[SPENT] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    before = now()
    found = yield
    if item.get_closest_marker("extra") is None:
        item.config.stash[SPENT][directory(item)] += now() - before
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Runs in the controlling process, which starts the workers: adds up their seconds."""
    node.config.stash[SPENT].update(node.workeroutput.get("spent", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["spent"] = dict(config.stash[SPENT])
    elif over(config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    spent = sorted(config.stash[SPENT].items())
    shown = ", ".join(f"{name} {seconds:.0f} of {most(name):.0f}" for name, seconds in spent)
    total = sum(seconds for _, seconds in spent)
    terminalreporter.write_line(f"CPU seconds: {shown}; {total:.0f} in all")
    for line in over(config):
        terminalreporter.write_line(f"OVER BUDGET {line}", red=True)
