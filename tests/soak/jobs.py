"""What is run: single steps of losses, and short trainings with a queue, a memory and a scale."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from fuzz.draws import borders
from golden.cases import cases
from golden.record import digest, output
from torch import nn

import contrastloss
from contrastloss.backends import available
from contrastloss.losses import LOSSES

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
#: the most instances of a step; larger batches would leave time for few passes
MOST = 600


@dataclass(frozen=True)
class Job:
    """Named, so that a failure can be repeated; ``run`` returns a hash of all numbers."""

    name: str
    run: Callable[[], str]


def draw(seed: int, count: int) -> list[Job]:
    """``count`` steps and every training. The draw depends on the seed only."""
    rng = random.Random(seed)
    drawn = [step(rng) for _ in range(count)]
    return drawn + [Job(f"training {train.__name__}", train) for train in TRAININGS]


def step(rng: random.Random) -> Job:
    """A loss with one option or argument changed, of a random size, width, dtype and backend."""
    case = rng.choice(list(cases(rng.choice(sorted(LOSSES)))))
    n = rng.choice([rng.randint(1, 40), rng.choice(borders(MOST, 1))])
    d = rng.choice([rng.randint(2, 40), rng.choice(borders(160, 2))])
    dtype = rng.choice(DTYPES)
    backend = rng.choice([name for name in ("cpu", "cpu", "reference") if not available()[name]])

    def run() -> str:
        inputs, more = case.inputs(dtype, n, d)
        loss = case.cls(**case.options, backend=backend)
        return str(output(loss, inputs, more)[0])

    return Job(f"{case.name}, {case.what}, {n} x {d}, {dtype}, {backend}", run)


# ---- trainings ----------------------------------------------------------------------------------


def batches(steps: int = 12) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Two views and labels, of sizes on both sides of the borders of tiles."""
    g = torch.Generator().manual_seed(0)
    for k in range(steps):
        n = 61 + k % 5
        x = torch.randn(n, 48, generator=g)
        yield x, x + 0.3 * torch.randn(n, 48, generator=g), torch.randint(9, (n,), generator=g)


def encoder() -> nn.Module:
    """The same weights at each call."""
    g = torch.Generator().manual_seed(1)
    made = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 32))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=g))
    return made


def train(module: nn.Module, loss_of: Callable[..., Any]) -> str:
    """A hash of the losses and of the weights after some steps."""
    optimiser, losses = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9), []
    for batch in batches():
        loss = loss_of(*batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return digest([*losses, *(p.detach() for p in module.parameters())])


def moco() -> str:
    online = encoder()
    momentum = contrastloss.MomentumEncoder(online, momentum=0.9)
    queue, loss = contrastloss.EmbeddingQueue(100, 32), contrastloss.MoCoLoss()

    def of(x: torch.Tensor, y: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        key = momentum(y)
        value = loss(online(x), key, queue)
        queue.enqueue(key)
        momentum.update(online)
        return value

    return train(online, of)


def cross_batch() -> str:
    model = encoder()
    memory = contrastloss.CrossBatchMemory(contrastloss.SupConLoss(), 200, 32)
    return train(model, lambda x, y, labels: memory(model(x), labels))


def clip() -> str:
    model, scale = encoder(), contrastloss.LogitScale()
    both, loss = nn.ModuleList([model, scale]), contrastloss.CLIPLoss()
    return train(both, lambda x, y, labels: loss(model(x), model(y), logit_scale=scale()))


TRAININGS = (moco, cross_batch, clip)
