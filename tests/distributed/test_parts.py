"""What ranks hold apart: the rows of SwAV's queues, and the mixtures of SupReMix."""

import pytest
import torch
from ranks import compare
from spread import supremix_step, swav_step

from contrastloss import EmbeddingQueue, SupReMixLoss, SwAVLoss

SIZES = {1: [5], 2: [5, 4], 3: [4, 0, 6]}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_codes_of_all_ranks(ranks, world):
    sizes, d = SIZES[world], 6
    n = sum(sizes)
    inputs = [
        torch.randn(*shape, dtype=torch.float64) for shape in ((n, d), (n, d), (n, 3, d), (8, d))
    ]
    # 3 rows in the first rank's queues, then 4: slots are empty, and of other numbers
    stored = [torch.randn(2, 3 + rank, d, dtype=torch.float64) for rank in range(world)]
    leaves = [v.clone().requires_grad_() for v in inputs]
    queues = [EmbeddingQueue(20, d, dtype=torch.float64) for _ in range(2)]
    for k, queue in enumerate(queues):
        queue.enqueue(torch.cat([rows[k] for rows in stored]))
    x, y, crops, prototypes = leaves
    value = SwAVLoss(constant_norms=True)(x, y, prototypes, crops=crops, queues=queues)
    want = value.detach(), torch.autograd.grad(value, leaves), {}
    found = ranks.run(swav_step, world, inputs, stored, sizes)
    compare(found, want, world, "swav")


@pytest.mark.parametrize("world", [2, 3])
def test_mixtures_of_each_rank(ranks, world):
    """SupReMix compares a row with the rows of all ranks, and with mixtures of its own rank's."""
    sizes = SIZES[world]
    z = torch.randn(sum(sizes), 6, dtype=torch.float64)
    labels = torch.randint(0, 6, (sum(sizes),)).double()
    made, first = [], 0
    for n in sizes:
        own = SupReMixLoss.mixtures(labels[first : first + n], negatives=4, positives=3)
        made.append((own, first))
        first += n
    parts = [torch.cat([own[k] for own, _ in made]) for k in range(5)]
    for k in range(2):
        parts[k] = torch.cat([torch.where(own[k] < 0, -1, own[k] + at) for own, at in made])
    leaf = z.clone().requires_grad_()
    value = SupReMixLoss(0.2, separate_maxima=True)(leaf, labels, mixtures=parts)
    want = value.detach(), torch.autograd.grad(value, [leaf]), {}
    found = ranks.run(supremix_step, world, z, labels, [own for own, _ in made], sizes)
    compare(found, want, world, "supremix")
