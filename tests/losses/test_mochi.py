from math import e, exp, log, sqrt

import pytest
import torch
from properties import close, every_check, gradients, queue_for, rows_of, tensor
from torch.utils._python_dispatch import TorchDispatchMode

from contrastloss import EmbeddingQueue, MoCHiLoss, MoCoLoss
from contrastloss.losses import mochi
from contrastloss.testing import Subject
from contrastloss.testing.checks import check_gradients, check_low_precision

NUMBERS = torch.rand(1, 3 * 7 + 2 * 5, generator=torch.Generator().manual_seed(0))


class Drawn(MoCHiLoss):
    """Draws the same numbers in every call and for every query."""

    hardest: int = 9
    mixed: int = 7
    mixed_with_query: int = 5

    def draw(self, count, device):
        return NUMBERS.to(device).expand(count, -1)

    @staticmethod
    def reference(query, key, queue, **options):
        numbers = NUMBERS.to(query.device).expand(len(query), -1)
        return MoCHiLoss.reference(query, key, queue, uniform=numbers, **options)


class Queued(Drawn):
    """With a partly filled queue, with fewer keys than ``hardest``."""

    hardest: int = 1024

    @staticmethod
    def example(n, d, generator):
        x, y = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        return x, x + 5.0 * y

    def forward(self, query, key, **overrides):
        return super().forward(query, key, queue_for(query), **overrides)

    @staticmethod
    def reference(query, key, **options):
        return Drawn.reference(query, key, rows_of(queue_for(query)), **options)


pytestmark = pytest.mark.operators("pair_stats", "pair_topk")


@every_check
@pytest.mark.parametrize("cls", [Drawn, Queued])
def test_properties(check, cls, device, backend):
    if check is check_gradients:
        pytest.skip("mixtures are constants to the gradient and not to a difference quotient")
    if check is check_low_precision and cls is Queued:
        pytest.skip("scores of its few different keys tie in bf16, and ties are ranked by rounding")
    queue_for(torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    check(Subject(cls, {}, device, backend, thorough=False))


def test_gradcheck_without_constants_of_the_query(device, backend):
    """Mixtures of two keys depend on the query through their scores only."""

    class Keys(MoCHiLoss):
        def draw(self, count, device):
            return NUMBERS[:, :21].to(device).expand(count, -1)

    query, key, queue = (v.detach() for v in Subject(Drawn, device=device).inputs(n=4, d=3))
    query.requires_grad_()
    loss = Keys(0.5, 5, 7, 0, backend=backend)
    assert torch.autograd.gradcheck(lambda q: loss(q, key, queue), query)


class Chosen(MoCHiLoss):
    """Mixes the two hardest keys, and the hardest key and the query, in equal shares."""

    hardest: int = 2
    mixed: int = 1
    mixed_with_query: int = 1

    def draw(self, count, device):
        # ranks 0 and 1, and 0 again; alpha, and twice beta
        return torch.tensor([[0.0, 0.9, 0.0, 0.5, 1.0]], device=device).expand(count, -1)


def test_a_zero_query_scores_0_against_every_mixture(device, backend):
    query, key, queue = Subject(Drawn, device=device).inputs(n=3, d=5)
    value = Drawn(backend=backend)(query * 0, key, queue)
    close(value, log(1 + len(queue) + 7 + 5))


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_by_hand(length, device, backend):
    # q = e1. The keys n = (0.6, 0.8) and n' = (0.6, -0.8) score 0.6; (-1, 0) is not among the
    # hardest. h = (0.6, 0) / 0.6 scores 1; q + n = (1.6, 0.8) has the length 0.8 sqrt(5)
    query, key = tensor([1, 0], device=device), tensor([0, 1], device=device)
    queue = tensor([-1, 0], [0.6, 0.8], [0.6, -0.8], device=device)
    loss = Chosen(1.0, backend=backend)
    want = log(1 + exp(-1) + 2 * exp(0.6) + exp(1) + exp(2 / sqrt(5)))
    close(loss(query * length, key, queue * length), want)


def test_the_gradient_by_hand(device, backend):
    # q = e1 and n = (0.6, 0.8) twice: n, n and h = n score 0.6; h' = (2, 1) / sqrt(5). The
    # gradient is their softmax mean minus the positive; with cosines, its part orthogonal to q
    query = tensor([1, 0], device=device, grad=True)
    key, queue = tensor([0, -1], device=device), tensor([0.6, 0.8], [0.6, 0.8], device=device)
    loss = Chosen(1.0, normalize=False, backend=backend)
    (dq,) = gradients(loss(query, key, queue), query)
    total = 1 + 3 * exp(0.6) + exp(2 / sqrt(5))
    want = -key[0] + (key[0] + exp(0.6) * 3 * queue[0]) / total
    want += exp(2 / sqrt(5)) * tensor([2, 1], device=device)[0] / sqrt(5) / total
    close(dq[0], want)
    loss = Chosen(1.0, backend=backend)
    close(gradients(loss(query, key, queue), query)[0][0], [0.0, want[1]])


def test_without_mixtures_it_is_moco(device, backend):
    inputs = Subject(MoCoLoss, device=device).inputs()
    want = MoCoLoss(0.2, backend=backend)(*inputs)
    close(MoCHiLoss(mixed=0, mixed_with_query=0, backend=backend)(*inputs), want)


def test_the_seed_determines_the_mixtures(device):
    inputs, loss = Subject(MoCHiLoss, device=device).inputs(), MoCHiLoss(hardest=16)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(loss(*inputs))
    assert values[0] == values[1] != values[2]
    assert (torch.stack(values) > MoCoLoss(0.2)(*inputs)).all()


def test_the_default_draws_cover_the_hardest_evenly(device):
    """Each of four keys is each parent in a quarter of the mixtures."""
    uniform = MoCHiLoss().draw(50, device)
    assert uniform.shape == (50, 3 * 1024 + 2 * 128)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = (uniform * 4).long().flatten().bincount(minlength=4) / uniform.numel()
    assert (counts - 0.25).abs().max() < 0.01


def test_own_instance_is_not_mixed(device, backend):
    query, key, keys = Subject(Drawn, device=device).inputs(n=6, d=5)
    queue = EmbeddingQueue(20, 5, ids=True, dtype=keys.dtype, device=device)
    queue.enqueue(keys, ids=torch.arange(len(keys), device=device) % 6)
    loss, ids = Drawn(reduction="none", backend=backend), torch.arange(6, device=device)
    rows = loss(query, key, queue, ids=ids)
    for k in range(6):
        others = keys[torch.arange(len(keys), device=device) % 6 != k]
        close(rows[k], loss(query[k : k + 1], key[k : k + 1], others)[0])


def test_nothing_to_mix(device, backend):
    query = torch.randn(3, 2, device=device, requires_grad=True)
    key = query.detach() + 1
    for queue in (EmbeddingQueue(5, 2, device=device), torch.zeros(0, 2, device=device)):
        value = Drawn(backend=backend)(query, key, queue)
        assert value.item() == 0.0
        assert not gradients(value, query)[0].any()


def test_opposite_keys_cancel(device, backend):
    """Their midpoint has no direction: scores are finite, and no cosine exceeds 1 by more than
    rounding."""
    query = torch.randn(4, 3, device=device, requires_grad=True)
    direction = torch.randn(1, 3, device=device)
    queue = torch.cat([direction, -direction])
    rows = Chosen(1.0, reduction="none", backend=backend)(query, query.detach(), queue)
    assert rows.isfinite().all()
    assert (rows < log(5 * e)).all()
    assert gradients(rows.sum(), query)[0].isfinite().all()


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor created."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return made


def test_mixtures_are_not_materialised(device):
    n, d, mixed = 64, 256, 512  # all mixtures together would have 8 million elements
    query = torch.randn(n, d, device=device, requires_grad=True)
    queue = torch.randn(1000, d, device=device)
    with Largest() as largest:
        MoCHiLoss(hardest=100, mixed=mixed)(query, query.detach(), queue).backward()
    assert largest.elements <= 1 << 22 < n * d * mixed


@pytest.mark.parametrize("per_row", [False, True])
def test_chunks_give_the_same_result(monkeypatch, device, backend, per_row):
    """Chunks of rows, recomputed in the backward pass, use the same random numbers."""
    query, key = (torch.randn(9, 6, device=device).double() for _ in range(2))
    queue = torch.randn(20, 6, device=device).double()
    temperature = torch.linspace(0.2, 0.5, 9, device=device).double() if per_row else 0.2
    found = []
    for held in (mochi._HELD, 40):
        monkeypatch.setattr(mochi, "_HELD", held)
        leaf = query.clone().requires_grad_()
        loss = Drawn(temperature=temperature, reduction="none", backend=backend)
        rows = loss(leaf, key, queue)
        found.append((rows, gradients(rows.sum(), leaf)[0]))
    for whole, parts in zip(*found, strict=True):
        close(parts, whole)
