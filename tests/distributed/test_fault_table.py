"""If ranks disagree or a group breaks, every rank raises an error that names the rank. No rank
returns a wrong number, and none waits longer than the group's timeout."""

import math
import multiprocessing
import tempfile

import pytest
from faults import DISAGREEMENTS, LOST, REFUSALS, SOUND, agreeing, all_lost, dying, sound
from ranks import WORLD, FailedError

#: the timeout of the groups that break; all of them break at once
SECONDS = 8
#: seconds within which an immediate error has to arrive, on a busy machine
AT_ONCE = 10


def settled(ranks, table, name):
    """The message that each rank raised. The group must still work afterwards."""
    found = ranks.run(agreeing, 3, table, name)
    assert found[0][2] == found[1][2] == found[2][2] > 0
    assert max(seconds for _, seconds, _ in found) < AT_ONCE
    return [message for message, _, _ in found]


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_that_disagree_are_named_on_every_rank(ranks, name):
    for message in settled(ranks, "disagreement", name):
        assert str(message).startswith(f"ValueError: {DISAGREEMENTS[name][1]}"), message


@pytest.mark.parametrize("name", REFUSALS)
def test_what_one_rank_refuses_all_of_them_hear(ranks, name):
    error = REFUSALS[name][1]
    first, odd, last = settled(ranks, "refusal", name)
    assert odd.startswith(error), odd
    for message in (first, last):
        assert message.startswith(f"ValueError: group: rank 1 raised {error}"), message


@pytest.mark.parametrize("how", SOUND)
def test_what_is_no_fault(ranks, how):
    found = ranks.run(sound, 3, how)
    if how == "nan":
        assert all(map(math.isnan, found))
    else:
        assert found[0] == found[1] == found[2]
        assert (found[0] == 0) == (how == "all empty")


@pytest.fixture(scope="module")
def found(ranks):
    return ranks.run(all_lost, WORLD, SECONDS)


@pytest.mark.parametrize("name", LOST)
def test_a_rank_that_does_not_answer_is_named(found, name):
    for rank in (0, 2):
        message, seconds = found[rank][name]
        expected = f"RuntimeError: group: rank 1 did not answer rank {rank}: "
        assert str(message).startswith(expected), message
        assert seconds < SECONDS + 2 * AT_ONCE
    assert found[1][name][1] < 2 * SECONDS + 2 * AT_ONCE


def test_a_rank_that_dies_is_named():
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=dying, args=(rank, 3, folder, 20, results)) for rank in range(3)
        ]
        for process in processes:
            process.start()
        answers = dict(results.get(timeout=60) for _ in range(2))
        for process in processes:
            process.kill()
            process.join()
    assert sorted(answers) == [0, 2]
    for rank, outcomes in answers.items():
        for name, (message, seconds) in outcomes.items():
            expected = f"RuntimeError: group: rank 1 did not answer rank {rank}: "
            assert str(message).startswith(expected), (name, message)
            assert seconds < AT_ONCE


def test_failed_ranks_are_reported(ranks):
    """Tests the test harness: an exception on a rank reaches the test."""
    answer = ranks.answers(sound, 1)[0]
    assert isinstance(answer, FailedError)
    assert "missing 1 required positional argument" in answer.args[0]
