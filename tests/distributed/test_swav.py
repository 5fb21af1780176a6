"""SwAV's codes are balanced over the batches and queues of all ranks."""

import pytest
import torch
from ranks import compare
from spread import swav_step

from contrastloss import EmbeddingQueue, SwAVLoss

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
