"""A group that disagrees or breaks: every rank raises and names who it was; none has a number."""

import multiprocessing
import tempfile

import pytest
from ranks import FailedError
from spread import faulty, mismatched

SECONDS = 3


MESSAGES = {
    "D": "D: got 4 on ranks 0, 2; 5 on rank 1; expected the same on every rank of the group",
    "dtype": "dtype: got torch.float32 on ranks 0, 2; torch.float64 on rank 1",
    "channels": "channels: got variant 1 on ranks 0, 2; variant 2 on rank 1",
    "strategy": "strategy: got variant 1 on ranks 0, 2; variant 2 on rank 1",
    "requires_grad": "requires_grad: got variant 1 on ranks 0, 2; variant 2 on rank 1",
}


@pytest.mark.parametrize("strategy", ["gather", "ring"])
@pytest.mark.parametrize("what", MESSAGES)
def test_ranks_that_differ_are_named_on_every_rank(ranks, what, strategy):
    for answer in ranks.answers(mismatched, 3, what, strategy):
        assert isinstance(answer, FailedError), answer
        assert answer.args[0].startswith("ValueError: " + MESSAGES[what])
    fine = ranks.run(mismatched, 3, "nothing", strategy)  # the group is as good as before
    assert fine[0] == fine[1] == fine[2] > 0


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_lost_rank_is_named_within_the_timeout(how):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=faulty, args=(rank, 3, folder, how, SECONDS, results))
            for rank in range(3)
        ]
        for process in processes:
            process.start()
        found = [results.get(timeout=60) for _ in range(2)]
        for process in processes:
            process.kill()
            process.join()
    assert sorted(rank for rank, _, _ in found) == [0, 2]
    for rank, message, seconds in found:
        assert message.startswith(f"group: rank 1 did not answer rank {rank}"), message
        assert seconds < SECONDS + 2
