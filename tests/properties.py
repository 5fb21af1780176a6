"""Helpers shared by the tests of all losses."""

import pytest
import torch

from contrastloss.memory import EmbeddingQueue
from contrastloss.testing import CHECKS


def checks_but(*names):
    """Parametrises a test with ``check``: all properties of contrastloss.testing except the named
    ones, which the loss does not have. The first is part of the GPU smoke test."""
    left = {f"check_{name}" for name in names}
    assert left <= {check.__name__ for check in CHECKS}, names
    kept = [pytest.param(CHECKS[0], marks=pytest.mark.gpu_smoke), *CHECKS[1:]]
    kept = [c for c in kept if getattr(c, "__name__", "") not in left]
    return pytest.mark.parametrize("check", kept, ids=lambda check: check.__name__)


every_check = checks_but()

E1, E2 = [1.0, 0.0], [0.0, 1.0]


def tensor(*rows, device="cpu", grad=False):
    return torch.tensor(rows, dtype=torch.float64, device=device).requires_grad_(grad)


def close(got, want):
    """``got`` equals a value computed by hand, to all digits of fp64."""
    want = torch.as_tensor(want, dtype=torch.float64, device=got.device)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def gradients(value, *inputs):
    return torch.autograd.grad(value, inputs)


QUEUES = {}


def queue_for(x):
    """A queue of 11 slots, of which 9 are filled, for embeddings like x: always the same one. Its
    rows are unit vectors that are exact in every dtype. Its empty slots hold large values, which
    would show in a result."""
    d, key = x.shape[-1], (x.shape[-1], x.dtype, x.device)
    if key not in QUEUES:
        generator = torch.Generator().manual_seed(d)
        rows = torch.zeros(9, d, dtype=x.dtype)
        for row in rows:
            few = torch.randperm(d, generator=generator)[: 4 if d >= 4 else 1]
            row[few] = len(few) ** -0.5
        rows *= torch.randint(0, 2, (9, d), generator=generator) * 2 - 1
        queue = EmbeddingQueue(11, d, labels=True, dtype=x.dtype, device=x.device)
        queue.enqueue(rows.to(x.device), torch.arange(9, device=x.device) % 4)
        queue.embeddings[9:] = 100.0
        queue.labels[9:] = 1
        QUEUES[key] = queue
    return QUEUES[key]


def rows_of(queue):
    """The embeddings of the queue without the empty slots."""
    return queue.embeddings[queue.steps >= 0]
