"""Queues and memories over ranks have equal contents on all ranks, and give the losses of one
process."""

import pytest
import torch
from ranks import FailedError
from spread import enqueued, moco_steps, supcon_steps

from contrastloss import CrossBatchMemory, EmbeddingQueue, MoCoLoss, SupConLoss

SIZES = {1: [[5], [4]], 2: [[3, 2], [1, 4]], 3: [[4, 0, 3], [1, 2, 9]]}


@pytest.mark.parametrize("world", SIZES)
def test_every_rank_enqueues_the_keys_of_all_in_rank_order(ranks, world):
    one = EmbeddingQueue(7, 2, labels=True, ids=True)
    batches, first = [], 0
    for sizes in SIZES[world]:
        rows = torch.arange(first, first + sum(sizes))
        first += sum(sizes)
        batches.append((sizes, rows[:, None].expand(-1, 2).float(), (rows % 3).int(), rows + 50))
        one.enqueue(*batches[-1][1:])
    for found in ranks.run(enqueued, world, 7, batches, False):
        for name, value in one.state_dict().items():
            assert torch.equal(found[name], value), name


def test_equal_parts_need_no_header(ranks):
    keys, numbers = torch.randn(6, 2), torch.arange(6)
    one = EmbeddingQueue(4, 2, labels=True, ids=True)
    one.enqueue(keys, numbers, numbers)
    for found in ranks.run(enqueued, 3, 4, [([2, 2, 2], keys, numbers, numbers)], True):
        assert torch.equal(found["embeddings"], one.embeddings)


def test_ranks_that_differ_are_named(ranks):
    keys, numbers = torch.randn(4, 2), torch.arange(4)
    batches = [([2, 2], keys, numbers, numbers)]
    for answer in ranks.answers(enqueued, 2, 4, batches, False, True):
        assert isinstance(answer, FailedError)
        assert answer.args[0].startswith("ValueError: queue: got EmbeddingQueue(4, 2,")


@pytest.mark.parametrize("world", SIZES)
def test_moco_over_ranks_is_that_of_one_process(ranks, world):
    steps = [
        (sizes, torch.randn(2, sum(sizes), 3, dtype=torch.float64), torch.arange(sum(sizes)))
        for sizes in SIZES[world]
    ] * 2
    queue, loss = EmbeddingQueue(11, 3, ids=True, dtype=torch.float64), MoCoLoss(0.3)
    want = []
    for _, (query, key), ids in steps:
        query = query.clone().requires_grad_()
        value = loss(query, key, queue, ids=ids)
        queue.enqueue(key, ids=ids)
        want.append((value, torch.autograd.grad(value, query)[0]))
    found = ranks.run(moco_steps, world, 11, steps)
    compare(found, want, world)
    assert want[1][0] > 0.3


@pytest.mark.parametrize("strategy", ["gather", "ring"])
@pytest.mark.parametrize("world", SIZES)
def test_a_memory_over_ranks_is_that_of_one_process(ranks, world, strategy):
    generator = torch.Generator().manual_seed(world)
    steps = [
        (
            sizes,
            torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (sum(sizes),), generator=generator),
        )
        for sizes in SIZES[world] * 2
    ]
    memory = CrossBatchMemory(SupConLoss(0.3), 11, 3, dtype=torch.float64)
    want = []
    for _, z, labels in steps:
        z = z.clone().requires_grad_()
        value = memory(z, labels)
        want.append((value, torch.autograd.grad(value, z)[0]))
    compare(ranks.run(supcon_steps, world, 11, steps, strategy), want, world)


def compare(found, want, world):
    """Values agree on every rank; gradients agree after the average over ranks."""
    for step, (value, grad) in enumerate(want):
        parts = [answer[step] for answer in found]
        for mine, _ in parts:
            torch.testing.assert_close(mine, value.detach(), rtol=1e-9, atol=1e-12)
        mean = torch.cat([part for _, part in parts]) / world
        torch.testing.assert_close(mean, grad, rtol=1e-9, atol=1e-11)
