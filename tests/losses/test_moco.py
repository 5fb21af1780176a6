from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor

from contrastloss import EmbeddingQueue, InfoNCELoss, MoCoLoss
from contrastloss.functional import moco
from contrastloss.testing import Subject


class Queued(MoCoLoss):
    """With a partly filled queue."""

    @staticmethod
    def example(n, d, generator):
        x, y = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        return x, x + 5.0 * y

    def forward(self, query, key, **overrides):
        return super().forward(query, key, queue_for(query), **overrides)

    @staticmethod
    def reference(query, key, *, scale, bias):
        return MoCoLoss.reference(query, key, rows_of(queue_for(query)), scale=scale, bias=bias)


@every_check
@pytest.mark.parametrize("cls", [MoCoLoss, Queued])
def test_properties(check, cls, device, backend):
    queue_for(torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    check(Subject(cls, {}, device, backend, thorough=cls is MoCoLoss))


@pytest.fixture
def queue(device):
    """Three of four slots are filled: e1, e2 and -e1, with instances 0, 1 and 2."""
    queue = EmbeddingQueue(4, 2, ids=True, dtype=torch.float64, device=device)
    rows = tensor(E1, E2, [-1, 0], device=device)
    queue.enqueue(rows, ids=torch.arange(3, device=device))
    return queue


def test_by_hand(queue, device, backend):
    # positive scores 0 and 1; queue scores 1, 0, -1 and 0, 1, 0; the zero vector of the unfilled
    # slot would score 0
    query, key = tensor(E1, E2, device=device), tensor(E2, E2, device=device)
    rows = moco(query, key, queue, temperature=1.0, reduction="none", backend=backend)
    close(rows, [log(1 + e + 1 + 1 / e), log(e + 1 + e + 1) - 1])
    loss = MoCoLoss(1.0, backend=backend)
    close(loss(query, key, queue), rows.mean())
    close(loss(query, key, rows_of(queue)), rows.mean())


def test_own_instance_is_not_a_negative(queue, device, backend):
    query, key = tensor(E1, E2, device=device), tensor(E2, E2, device=device)
    loss = MoCoLoss(1.0, reduction="none", backend=backend)
    ids = torch.tensor([0, 7], device=device)  # 7 is not stored
    close(loss(query, key, queue, ids=ids), [log(1 + 1 + 1 / e), log(e + 1 + e + 1) - 1])


def test_it_is_info_nce_with_given_negatives(device, backend):
    query, key, queue = Subject(MoCoLoss, device=device).inputs()
    options = {"reduction": "none", "backend": backend}
    want = InfoNCELoss(0.07, in_batch_negatives=False, **options)(query, key, queue)
    close(MoCoLoss(**options)(query, key, queue), want)


def test_an_empty_queue_is_zero(device, backend):
    query = torch.randn(3, 2, device=device, requires_grad=True)
    loss = MoCoLoss(backend=backend)(query, query.detach() + 1, EmbeddingQueue(5, 2, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, query)[0].any()


@pytest.mark.parametrize("ids", [False, True])
def test_statistics(ids, queue, device, backend):
    query, key = tensor(E1, E2, device=device), tensor(E2, E2, device=device)
    options = {"ids": torch.tensor([0, 1], device=device)} if ids else {}
    loss = MoCoLoss(1.0, return_stats=True, backend=backend)
    _, stats = loss(query, key, queue, **options)
    close(stats["positive"], 0.5)
    if ids:  # positives 0 and 1, negative scores 0, -1 and 0, 0
        close(stats["hardest_negative"], 0.0)
        close(stats["accuracy"], 0.5)
        close(stats["lse"], (log(2 + 1 / e) + log(2 + e)) / 2)
    else:  # negative scores 1, 0, -1 and 0, 1, 0
        close(stats["hardest_negative"], 1.0)
        close(stats["accuracy"], 0.0)
        close(stats["lse"], (log(e + 2 + 1 / e) + log(2 * e + 2)) / 2)


def test_gradients_of_query_and_key_only(queue, device, backend):
    query, key = (torch.randn(4, 2, device=device).double().requires_grad_() for _ in range(2))
    loss = MoCoLoss(backend=backend)
    dense = rows_of(queue)
    got = gradients(loss(query, key, queue), query, key)
    want = gradients(loss(query, key, dense), query, key)
    close(got[0], want[0])
    close(got[1], want[1])
    assert not loss(query.detach(), key.detach(), queue).requires_grad


def test_a_key_may_be_enqueued_before_the_backward_pass(queue, device, backend):
    query, key = (torch.randn(3, 2, device=device).double().requires_grad_() for _ in range(2))
    loss, ids = MoCoLoss(backend=backend), torch.arange(3, device=device)
    want = gradients(loss(query, key, queue, ids=ids), query, key)
    value = loss(query, key, queue, ids=ids)
    queue.enqueue(key, ids=ids + 3)
    for got, expected in zip(gradients(value, query, key), want, strict=True):
        close(got, expected)
    assert not queue.embeddings.requires_grad


def test_a_step_is_one_graph(queue, device, backend):
    query, key = (torch.randn(3, 2, device=device).double() for _ in range(2))
    query.requires_grad_()
    loss, ids = MoCoLoss(backend=backend), torch.arange(3, device=device)

    def step(query, key):
        value = loss(query, key, queue, ids=ids)
        queue.enqueue(key, ids=ids)
        return value

    start = {name: value.clone() for name, value in queue.state_dict().items()}
    want = [step(query, key) for _ in range(3)]
    wanted, grads = queue.state_dict(keep_vars=False), [gradients(w, query)[0] for w in want]
    wanted = {name: value.clone() for name, value in wanted.items()}
    queue.load_state_dict(start)
    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for value, grad in zip(want, grads, strict=True):
        got = compiled(query, key)
        close(got, value)
        close(gradients(got, query)[0], grad)
    for name, value in wanted.items():
        assert torch.equal(queue.state_dict()[name], value), name


def test_errors(queue):
    x, loss = torch.randn(4, 2, dtype=torch.float64), MoCoLoss()
    for bad, kind, message in (
        ([E1], TypeError, "got list, expected an EmbeddingQueue"),
        (EmbeddingQueue(3, 2), TypeError, "got dtype torch.float32, expected query's torch.fl"),
        (EmbeddingQueue(3, 5, dtype=x.dtype), ValueError, r"got shape \(3, 5\), expected \(K, 2\)"),
        (torch.ones(3, 5).double(), ValueError, r"got shape \(3, 5\), expected \(K, 2\)"),
        (torch.ones(2).double(), ValueError, r"got shape \(2,\), expected \(N, D\)"),
        (torch.ones(3, 2), TypeError, "got dtype torch.float32, expected query's torch.float64"),
        (EmbeddingQueue(3, 2, dtype=x.dtype, device="meta"), ValueError, "got device meta, exp"),
    ):
        with pytest.raises(kind, match=f"^queue: {message}"):
            loss(x, x, bad)
    with pytest.raises(ValueError, match=r"^key: got shape \(3, 2\), expected query's \(4, 2\)"):
        loss(x, x[:3], queue)
    with pytest.raises(ValueError, match=r"^ids: got shape \(3,\), expected \(4,\)"):
        loss(x, x, queue, ids=torch.arange(3))
    for other in (EmbeddingQueue(3, 2, dtype=x.dtype), x):
        with pytest.raises(
            ValueError, match=r"^ids: got a value, expected None: queue .* (ids=True|without)"
        ):
            loss(x, x, other, ids=torch.arange(4))
    queue.embeddings[1] = torch.nan
    with pytest.raises(ValueError, match=r"^queue: got NaN or infinity in 1 of 4 rows"):
        MoCoLoss(validate=True)(x, x, queue)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_tie_is_not_a_correct_prediction(normalized, device, backend):
    """A key and its copy in the queue have equal scores, in spite of rounding."""
    generator = torch.Generator().manual_seed(0)
    loss = MoCoLoss(0.2, normalize=normalized, return_stats=True, backend=backend)
    for _ in range(10):
        query = torch.randn(40, 24, generator=generator).to(device)
        key = query + 0.1 * torch.randn(40, 24, generator=generator).to(device)
        assert loss(query, key, key[:25].clone())[1]["accuracy"] == 15 / 40
        assert loss(query, key, -key)[1]["accuracy"] == 1
