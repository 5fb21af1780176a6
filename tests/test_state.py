"""State: what a compiler, a checkpoint, an interrupt or another way of loading makes of it."""

import copy

import torch
from properties import gradients
from torch import nn

from contrastloss import (
    CrossBatchMemory,
    DINOLoss,
    EmbeddingQueue,
    InfoNCELoss,
    LearnableTemperature,
    MoCHiLoss,
    MoCoLoss,
    MomentumEncoder,
    SupConLoss,
)

# ---- torch.compile -------------------------------------------------------------------------------

N, D, SLOTS = 6, 4, 13


class Queued(nn.Module):
    """MoCo, with the momentum encoder's step and the enqueue in the same graph."""

    def __init__(self, loss, before=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D), nn.Sigmoid())
        self.key_encoder = MomentumEncoder(self.encoder, 0.5)
        self.loss, self.queue, self.before = loss, EmbeddingQueue(SLOTS, D, ids=True), before

    def forward(self, x, ids):
        key = self.key_encoder(x.detach() + 0.1)
        if self.before:
            self.queue.enqueue(key, ids=ids)
        value = self.loss(self.encoder(x), key, self.queue, ids=ids)
        value = value + (x.sum(1) * 0.9 ** self.queue.ages[:N].to(x.dtype)).mean()
        if not self.before:
            self.queue.enqueue(key, ids=ids)
        self.key_encoder.update(self.encoder)
        return value


class Centred(nn.Module):
    """DINO, its centre and the teacher's prototypes moving in the same graph."""

    def __init__(self):
        super().__init__()
        self.loss, self.prototypes = DINOLoss(), nn.Parameter(torch.randn(5, D))
        self.register_buffer("centre", torch.zeros(5))
        self.register_buffer("teacher", torch.randn(5, D))
        self.temperature = LearnableTemperature(0.5, max_scale=1.5)

    def forward(self, x, ids):
        teacher, scale = x.detach() + 0.1, self.temperature()
        value = self.loss(
            x * scale, teacher, self.prototypes, center=self.centre, teacher_prototypes=self.teacher
        )
        with torch.no_grad():
            self.centre.lerp_(DINOLoss.center(teacher, self.teacher), 0.5)
            self.teacher.lerp_(self.prototypes, 0.5)
        return value


class Seen(MoCHiLoss):
    """Which draws the same numbers, compiled or not."""

    def draw(self, count, device):
        total = 3 * self.mixed + 2 * self.mixed_with_query
        return torch.linspace(0.01, 0.99, count * total, device=device).view(count, total)


class Labelled(nn.Module):
    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x, ids):
        return self.memory(x, ids % 3, **({} if self.memory.queue.ids is None else {"ids": ids}))


class Paired(Labelled):
    def forward(self, x, ids):
        return self.memory(
            x, x.roll(1, 1), **({} if self.memory.queue.ids is None else {"ids": ids})
        )


PARTS = {
    "moco": lambda: Queued(MoCoLoss()),
    "moco-before": lambda: Queued(MoCoLoss(), before=True),
    "mochi": lambda: Queued(Seen(hardest=3, mixed=4, mixed_with_query=2)),
    "supcon": lambda: Labelled(CrossBatchMemory(SupConLoss(), SLOTS, D)),
    "supcon-ids": lambda: Labelled(CrossBatchMemory(SupConLoss(), SLOTS, D, ids=True)),
    "info_nce": lambda: Paired(CrossBatchMemory(InfoNCELoss(), SLOTS, D)),
    "info_nce-ids": lambda: Paired(CrossBatchMemory(InfoNCELoss(), SLOTS, D, ids=True)),
    "dino": Centred,
}


class Together(nn.ModuleDict):
    """All in one graph, since every graph is compiled for half a minute; each has rows of its own."""

    def forward(self, x, ids):
        return torch.stack([part(rows, ids) for part, rows in zip(self.values(), x, strict=True)])


def test_state_under_the_default_compiler(device):
    module = Together({name: part() for name, part in PARTS.items()}).to(device)
    twin = copy.deepcopy(module)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True)
    for step in range(3):
        x = torch.randn(len(PARTS), N, D, device=device, requires_grad=True)
        ids = (torch.arange(N, device=device) + 2 * step) % 7
        found = []
        for run, of in ((compiled, module), (twin, twin)):
            value = run(x, ids)
            learned = {n: p for n, p in of.named_parameters() if p.requires_grad}
            grads = gradients(value.sum(), x, *learned.values())
            found.append([dict(zip(PARTS, v, strict=True)) for v in (value, grads[0])])
            found[-1] += [dict(zip(learned, grads[1:], strict=True)), of.state_dict()]
        torch.testing.assert_close(*found)
