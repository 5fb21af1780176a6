"""The long run finds a result that changes and memory that grows; a few passes of it find none."""

import itertools

import pytest

from soak import __main__ as long_run
from soak.jobs import Job, draw
from soak.memory import Readings


def test_equal_results_in_every_setting():
    soak = long_run.Soak(draw(seed=1, count=12), seed=1)
    for threads, callers in [*long_run.SETTINGS, *long_run.SETTINGS]:
        assert soak.passed(threads, callers) == []
    results = [found for found in soak.first.values() if ": " not in found]
    assert len(results) >= 24


def test_a_result_that_changes_is_named():
    turns = itertools.count()
    jobs = [Job("steady", lambda: "a"), Job("changing", lambda: f"{next(turns) >= 2}")]
    soak = long_run.Soak(jobs, seed=0)
    assert soak.passed(1, 1) == []
    assert soak.passed(2, 1) == []  # a result belongs to a number of threads
    assert soak.passed(1, 1) == ["changing, 1 threads: True, at first False"]


def test_an_error_of_a_job_that_refuses_nothing_ends_the_run():
    def fails():
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        long_run.Soak([Job("faulty", fails)], seed=0).passed(1, 2)


@pytest.mark.parametrize(("per_pass", "flat"), [(0.0, True), (0.01, True), (0.2, False)])
def test_memory_that_grows_is_found(per_pass, flat):
    readings = Readings()
    for k in range(100):
        readings.take(k / 10, 400 + 60 * min(k, 20) / 20 + per_pass * k)  # warm-up, then growth
    assert readings.growth == pytest.approx(50 * per_pass)
    assert readings.flat is flat
