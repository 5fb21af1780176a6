"""Queues hold the same rows as a list; momentum encoders follow the formula; losses with a memory
equal dense losses over all columns."""

import copy
import io
from collections import deque
from math import e, log

import pytest
import torch
from properties import E1, E2, close, gradients, tensor
from torch import nn
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from contrastloss import (
    CLIPLoss,
    CMIMLoss,
    CoSTLoss,
    CrossBatchMemory,
    EmbeddingQueue,
    InfoNCELoss,
    MarginRankingLoss,
    MoCoLoss,
    MomentumEncoder,
    MVInfoNCELoss,
    SupConLoss,
)
from contrastloss.ops import check


class NoSync(TorchDispatchMode):
    """Raises at operators that synchronise the host: reads of values, data-dependent shapes."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition("::")[2].partition(".")[0]
        assert name not in self.FORBIDDEN, function.name()
        return function(*args, **(kwargs or {}))


# ---- EmbeddingQueue ------------------------------------------------------------------------------


def contents(queue):
    """The rows of a queue with their labels, ids and ages, oldest first."""
    filled = (queue.steps >= 0).nonzero()[:, 0].tolist()
    first = int(queue.written) % queue.size if len(filled) == queue.size else 0
    order = filled[first:] + filled[:first]
    columns = (queue.embeddings[:, 0], queue.labels, queue.ids, queue.ages)
    return [tuple(column[k].item() for column in columns) for k in order]


@pytest.mark.parametrize("size", [1, 5, 8])
def test_it_holds_the_newest_rows_in_order(size, device):
    queue = EmbeddingQueue(size, 3, labels=True, ids=True, device=device)
    expected, number = deque(maxlen=size), 0
    generator = torch.Generator().manual_seed(size)
    for step in range(40):
        n = int(torch.randint(0, 14, (), generator=generator))
        rows = torch.arange(number, number + n, device=device)
        queue.enqueue(rows[:, None].expand(n, 3).float(), labels=rows % 7, ids=rows + 100)
        expected.extend((r, r % 7, r + 100, step) for r in rows.tolist())
        number += n
        ages = [(*row, step - at) for *row, at in expected]
        assert contents(queue) == ages
        assert queue.count == len(expected) == (queue.steps >= 0).sum()
        assert (queue.ages[queue.steps < 0] == -1).all()
        assert queue.embeddings.eq(queue.embeddings[:, :1]).all()  # whole rows


def test_wrap_around_by_hand(device):
    queue = EmbeddingQueue(3, 1, device=device)
    queue.enqueue(torch.tensor([[1.0], [2.0]], device=device))
    assert queue.embeddings[:, 0].tolist() == [1, 2, 0]
    assert queue.ages.tolist() == [0, 0, -1]
    queue.enqueue(torch.tensor([[3.0], [4.0]], device=device))
    assert queue.embeddings[:, 0].tolist() == [4, 2, 3]
    assert queue.ages.tolist() == [0, 1, 0]
    queue.enqueue(torch.tensor([[5.0], [6.0], [7.0], [8.0], [9.0]], device=device))
    assert sorted(queue.embeddings[:, 0].tolist()) == [7, 8, 9]
    queue.enqueue(torch.tensor([[10.0]], device=device))
    assert sorted(queue.embeddings[:, 0].tolist()) == [8, 9, 10]
    queue.reset()
    assert queue.count == 0
    assert not queue.embeddings.any()


def test_copies_go_on_as_the_original_does(device):
    def filled():
        generator = torch.Generator().manual_seed(1)
        queue = EmbeddingQueue(5, 2, labels=True, device=device)
        for n in (3, 4):
            keys = torch.randn(n, 2, generator=generator).to(device)
            queue.enqueue(keys, torch.arange(n, device=device))
        return queue

    queue = filled()
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    loaded = EmbeddingQueue(5, 2, labels=True, device=device)
    loaded.load_state_dict(torch.load(file))
    assert set(queue.state_dict()) == {"embeddings", "steps", "labels", "written", "step"}
    for other in (copy.deepcopy(queue), loaded, nn.Sequential(filled()).to(device)[0]):
        keys = torch.randn(3, 2, device=device)
        original = filled()
        for one in (original, other):
            one.enqueue(keys, torch.arange(3, device=device))
        for name, value in original.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert contents_of(queue) == contents_of(filled()), "a copy shares its buffers"


def contents_of(queue):
    return {name: value.tolist() for name, value in queue.state_dict().items()}


def test_to_another_dtype_keeps_the_integers(device):
    queue = EmbeddingQueue(4, 2, ids=True, device=device)
    queue.enqueue(torch.full((3, 2), 1.5, device=device), ids=torch.tensor([7, 8, 1 << 40]))
    queue.to(torch.bfloat16)
    queue.enqueue(torch.full((2, 2), 2.5, device=device), ids=torch.tensor([9, 10]))
    assert queue.embeddings.dtype == torch.bfloat16
    assert queue.embeddings[:, 0].tolist() == [2.5, 1.5, 1.5, 2.5]
    assert queue.ids.tolist() == [10, 8, 1 << 40, 9]
    assert queue.written.dtype == queue.steps.dtype == torch.int64


def test_no_graph_is_kept(device):
    keys = torch.randn(2, 3, device=device, requires_grad=True)
    queue = EmbeddingQueue(4, 3, device=device)
    queue.enqueue(keys * 2)
    assert torch.equal(queue.embeddings[:2], keys.detach() * 2)
    assert not queue.embeddings.requires_grad
    assert queue.embeddings.grad_fn is None


def test_a_snapshot_is_a_copy_only_where_gradients_may_follow():
    queue = EmbeddingQueue(4, 3)
    with torch.no_grad():
        assert queue.snapshot().embeddings.data_ptr() == queue.embeddings.data_ptr()
    held = queue.snapshot()
    queue.enqueue(torch.ones(2, 3))
    assert not held.embeddings.any()
    assert held.steps.tolist() == [-1] * 4


def test_nothing_waits_for_a_device(device, inside, monkeypatch):
    """Enqueues, momentum updates and losses with a queue do not synchronise the host."""
    monkeypatch.setattr(check, "checks_values", lambda of: False)  # as on a GPU
    queue = EmbeddingQueue(5, 3, ids=True, device=device)
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).to(device)
    encoder = MomentumEncoder(module)
    x, ids = torch.randn(4, 3, device=device), torch.arange(4, device=device)
    memory = CrossBatchMemory(SupConLoss(), 5, 3, device=device)
    with NoSync():
        for _ in range(3):
            query, key = module(x), encoder(x)
            value = MoCoLoss()(query, key, queue, ids=ids) + memory(query, ids % 2)
            queue.enqueue(key, ids=ids)
            value.backward()
            encoder.update(module)
    assert queue.written.item() == 12
    with pytest.raises(AssertionError), NoSync():
        queue.written.item()


def test_queue_errors():
    for name, size, dim in (("size", 0, 3), ("size", 2.0, 3), ("dim", 4, -1), ("dim", 4, True)):
        with pytest.raises((ValueError, TypeError), match=f"^{name}: got .*, expected an int"):
            EmbeddingQueue(size, dim)
    with pytest.raises(TypeError, match=r"^dtype: got dtype torch.int32, expected one of"):
        EmbeddingQueue(4, 3, dtype=torch.int32)
    queue, keys = EmbeddingQueue(4, 3, labels=True), torch.ones(2, 3)
    labels = torch.zeros(2, dtype=torch.int64)
    for arguments, kind, message in (
        (([[1.0]], labels), TypeError, "keys: got list, expected a tensor"),
        ((keys.long(), labels), TypeError, "keys: got dtype torch.int64, expected one of"),
        ((keys[:, :2], labels), ValueError, r"keys: got shape \(2, 2\), expected \(N, 3\)"),
        ((keys[0], labels), ValueError, r"keys: got shape \(3,\), expected \(N, 3\)"),
        ((keys.to("meta"), labels), ValueError, "keys: got device meta, expected the queue's cpu"),
        ((keys,), ValueError, "labels: got None, expected integers: the queue .* labels=True"),
        ((keys, labels, labels), ValueError, "ids: got a value, expected None: .* ids=False"),
        ((keys, labels[:1]), ValueError, r"labels: got shape \(1,\), expected \(2,\)"),
        ((keys, labels.float()), TypeError, "labels: got dtype torch.float32, expected an int"),
        ((keys, [0, 1]), TypeError, "labels: got list, expected a tensor"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            queue.enqueue(*arguments)
    assert queue.written == queue.step == 0
    with pytest.raises(TypeError, match=r"^group: got int, expected a ProcessGroup"):
        queue.enqueue(keys, labels, group=1)


class Interrupted(TorchDispatchMode):
    """Raises KeyboardInterrupt instead of the k-th write."""

    def __init__(self, k):
        super().__init__()
        self.left = k

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().partition("::")[2].partition(".")[0]
        if name in ("index_copy_", "copy_"):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return function(*args, **(kwargs or {}))


def test_an_interrupted_enqueue_leaves_the_queue_as_it_was(device):
    queue = EmbeddingQueue(5, 2, labels=True, ids=True, device=device)
    rows = torch.arange(4, device=device)
    queue.enqueue(torch.randn(4, 2, device=device), rows, rows)
    before, keys = copy.deepcopy(queue.state_dict()), torch.randn(3, 2, device=device)
    for write in range(1, 7):
        with pytest.raises(KeyboardInterrupt), Interrupted(write):
            queue.enqueue(keys, rows[:3], rows[:3])
        for name, value in before.items():
            assert torch.equal(value, queue.state_dict()[name]), (write, name)
    with Interrupted(7):  # there are only six writes
        queue.enqueue(keys, rows[:3], rows[:3])
    assert queue.written == 7


def test_a_damaged_checkpoint_is_not_loaded():
    queue = EmbeddingQueue(5, 2, labels=True)
    for n in (3, 0, 4):
        queue.enqueue(torch.randn(n, 2), torch.arange(n))  # the last two rows are in slots 0 and 1
    good, other = queue.state_dict(), nn.Sequential(EmbeddingQueue(5, 2, labels=True))
    for name, value, message in (
        ("written", -3, "written: got -3, expected at least 0"),
        ("step", -1, "step: got -1, expected at least 0"),
        ("steps", [2, 2, 0, 2, 3], "steps: got 3, expected -1 to 2, as step is 3"),
        ("steps", [2, 2, -2, 2, 2], "steps: got -2, expected -1 to 2, as step is 3"),
        ("steps", [2, 2, -1, 2, 2], "steps: got 4 filled slots, expected the first 5, as written"),
        ("written", 4, "steps: got 5 filled slots, expected the first 4, as written is 4"),
        ("steps", [0, 2, 2, 2, 2], "steps: got a newer slot before an older one, from slot 2 on"),
        ("written", 8, "steps: got a newer slot before an older one, from slot 3 on"),
        ("steps", [2.0, 2.0, 0.0, 2.0, 2.0], "steps: got dtype torch.float32, expected an integer"),
        ("labels", [1.0] * 5, "labels: got dtype torch.float32, expected an integer one"),
        ("labels", [1] * 4, r"size mismatch for 0.labels"),
    ):
        damaged = {f"0.{n}": v for n, v in {**good, name: torch.tensor(value)}.items()}
        expected = message if message.startswith("size") else f"0.{message}"
        with pytest.raises(RuntimeError, match=expected):
            other.load_state_dict(damaged)
    other[0].load_state_dict(good)
    assert contents_of(other[0]) == contents_of(queue)


def test_the_dtype_is_the_default_one(device):
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            memory = CrossBatchMemory(SupConLoss(), 4, 3, device=device)
            z = torch.randn(4, 3, device=device)
        finally:
            torch.set_default_dtype(torch.float32)
        memory(z, torch.arange(4, device=device) % 2)
        assert torch.equal(memory.queue.embeddings, z)


# ---- MomentumEncoder -----------------------------------------------------------------------------


def test_update_by_hand(device):
    module = nn.Linear(1, 1, device=device)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(-2.0)
        encoder = MomentumEncoder(module, 0.75)
        module.weight.fill_(5.0)
    encoder.update(module)
    assert encoder.module.weight.item() == 0.75 * 1 + 0.25 * 5
    assert encoder.module.bias.item() == -2.0
    encoder.momentum = 0.0
    encoder.update(module)
    assert encoder.module.weight.item() == 5.0


def test_it_is_an_average_over_steps_and_buffers_are_copied(device):
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(device)
    encoder = MomentumEncoder(module, 0.9)
    want = [p.detach().clone() for p in module.parameters()]
    for _ in range(5):
        module(torch.randn(6, 3, device=device))  # moves the running statistics
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        encoder.update(module)
        want = [0.9 * w + 0.1 * p.detach() for w, p in zip(want, module.parameters(), strict=True)]
    for got, expected in zip(encoder.parameters(), want, strict=True):
        torch.testing.assert_close(got, expected)
    for got, expected in zip(encoder.buffers(), module.buffers(), strict=True):
        assert torch.equal(got, expected)
        assert got.data_ptr() != expected.data_ptr()
    assert encoder.module[1].num_batches_tracked == 5


def test_it_has_no_gradients(device):
    module = nn.Linear(3, 2, device=device)
    encoder = MomentumEncoder(module)
    assert not encoder(torch.ones(1, 3, device=device, requires_grad=True)).requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(p.requires_grad for p in module.parameters())
    encoder.update(module)
    assert all(p.grad_fn is None for p in encoder.parameters())


def test_tied_parameters_move_once_and_stay_tied(device):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
            self.second.weight = self.first.weight

    module = Tied().to(device)
    encoder = MomentumEncoder(module, 0.5)
    start = module.first.weight.detach().clone()
    with torch.no_grad():
        module.first.weight.zero_()
    encoder.update(module)
    assert encoder.module.first.weight is encoder.module.second.weight
    assert torch.equal(encoder.module.first.weight, start / 2)


def test_copies_of_an_encoder(device):
    module = nn.Linear(3, 2, device=device)
    encoder = MomentumEncoder(module, 0.5)
    twin = copy.deepcopy(encoder)
    other = MomentumEncoder(nn.Linear(3, 2, device=device), 0.5)
    other.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        module.weight.add_(1.0)
    start = encoder.module.weight.clone()
    for one in (encoder, twin, other):
        one.update(module)
        torch.testing.assert_close(one.module.weight, (start + module.weight.detach()) / 2)
    assert set(encoder.state_dict()) == {"module.weight", "module.bias"}


def test_a_wrapper_has_the_same_parameters(device):
    class Wrapper(nn.Module):  # like DDP and torch.compile
        def __init__(self, module):
            super().__init__()
            self.module = module

    module = nn.Linear(3, 2, device=device)
    encoder = MomentumEncoder(module, 0.0)
    nn.init.ones_(module.weight)
    encoder.update(Wrapper(module))
    assert encoder.module.weight.eq(1).all()


def test_encoder_errors():
    for bad in (-0.1, 1.1, "1", None):
        with pytest.raises((ValueError, TypeError), match=r"^momentum: got .*, expected a number"):
            MomentumEncoder(nn.Linear(1, 1), bad)
    encoder = MomentumEncoder(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"^module: got parameters of shapes \[\(3, 2\), \(3,\)\]"):
        encoder.update(nn.Linear(2, 3))
    encoder, other = (
        MomentumEncoder(nn.BatchNorm1d(2)),
        nn.BatchNorm1d(2, track_running_stats=False),
    )
    nn.init.zeros_(other.weight)
    with pytest.raises(ValueError, match=r"^module: got buffers of shapes"):
        encoder.update(other)
    assert encoder.module.weight.eq(1).all(), "the failed update changed the weights"


# ---- CrossBatchMemory ----------------------------------------------------------------------------


def dense_supcon(z, labels, stored, stored_labels, dropped=None):
    """SupCon 'out' at temperature 0.5, of the rows of z against the other rows and stored rows."""
    z, stored = normalize(z, dim=1), normalize(stored, dim=1)
    s = torch.cat([z @ z.T, z @ stored.T], 1) / 0.5
    positive = labels[:, None] == torch.cat([labels, stored_labels])
    gone = torch.zeros_like(positive)
    gone[:, : len(z)].fill_diagonal_(True)
    if dropped is not None:
        gone[:, len(z) :] = dropped
    positive &= ~gone
    log_p = s - s.masked_fill(gone, -torch.inf).logsumexp(1, keepdim=True)
    count = positive.sum(1)
    rows = -torch.where(positive, log_p, 0.0).sum(1) / count.clamp_min(1)
    return rows[count > 0].sum() / max(int((count > 0).sum()), 1)


@pytest.mark.parametrize("with_ids", [False, True])
def test_supcon_with_memory_is_dense_supcon_on_all_columns(with_ids, device, backend):
    n, size, generator = 5, 12, torch.Generator().manual_seed(3)
    memory = CrossBatchMemory(
        SupConLoss(0.5, backend=backend), size, 3, ids=with_ids, dtype=torch.float64, device=device
    )
    past = []
    for step in range(5):  # 0, 5, 10, 12, 12 rows are stored
        z = torch.randn(n, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_()
        labels = torch.randint(0, 3, (n,), generator=generator, dtype=torch.int32).to(device)
        ids = (torch.arange(n) + 3 * step).to(device) % 8
        value = memory(z, labels, **({"ids": ids} if with_ids else {}))
        rows = [torch.cat(part)[-size:] for part in zip(*past, strict=True)]
        stored, stored_labels, stored_ids = rows if rows else (z[:0].detach(), labels[:0], ids[:0])
        dropped = ids[:, None] == stored_ids if with_ids else None
        want = dense_supcon(z, labels, stored, stored_labels, dropped)
        close(value, want)
        close(gradients(value, z)[0], gradients(want, z)[0])  # although the batch is enqueued now
        past.append((z.detach(), labels, ids))


def test_by_hand(device, backend):
    # stored: e1 with label 0, e2 with label 1; row 0 scores 0 with row 1, 1 and 0 with stored rows
    memory = CrossBatchMemory(
        SupConLoss(1.0, backend=backend, reduction="none"), 4, 2, dtype=torch.float64, device=device
    )
    z, labels = tensor(E1, E2, device=device), torch.tensor([0, 1], device=device)
    close(memory(z, labels), [0.0, 0.0])  # no positive yet
    close(memory(z, labels), [log(2 + e) - 1] * 2)
    assert memory.queue.labels.tolist() == [0, 1, 0, 1]


def test_info_nce_with_memory_by_hand(device, backend):
    # positives score 1, other pairs of the batch 0; then also against the stored rows e2, e2
    memory = CrossBatchMemory(
        InfoNCELoss(1.0, backend=backend, reduction="none"), 3, 2, dtype=torch.float64,
        device=device,
    )  # fmt: skip
    x = tensor(E1, E2, device=device)
    close(memory(x, x), [log(1 + e) - 1] * 2)
    memory.queue.reset()
    memory.queue.enqueue(tensor(E2, E2, device=device))
    close(memory(x, x), [log(e + 3) - 1, log(3 * e + 1) - 1])
    assert memory.queue.embeddings.tolist() == [E2, E2, E1]
    assert memory.queue.count == 3


@pytest.mark.parametrize("cls", [CMIMLoss, MVInfoNCELoss])
def test_a_loss_of_one_input_with_memory(cls, device, backend):
    """The memory stores all rows of the embeddings, views too."""
    shape = (2, 4, 3, 5) if cls is MVInfoNCELoss else (2, 4, 5)
    first, second = torch.randn(shape, dtype=torch.float64, device=device)
    memory = CrossBatchMemory(
        cls(0.5, backend=backend), 20, 5, ids=True, dtype=torch.float64, device=device
    )
    ids = torch.tensor([0, 1, 2, 3], device=device)
    close(memory(first, ids=ids), memory.loss(first))
    queue = EmbeddingQueue(12, 5, ids=True, dtype=torch.float64, device=device)
    views = first.shape[1:-1].numel()
    queue.enqueue(first.flatten(0, -2), ids=ids.repeat_interleave(views))
    close(memory(second, ids=ids + 3), memory.loss(second, memory=queue, ids=ids + 3))


def test_statistics_are_of_batch_and_memory(device, backend):
    x, y = torch.randn(2, 4, 3, device=device, dtype=torch.float64)
    stored = torch.randn(6, 3, device=device, dtype=torch.float64)
    memory = CrossBatchMemory(
        InfoNCELoss(0.5, backend=backend, return_stats=True), 9, 3, dtype=x.dtype, device=device
    )
    memory.queue.enqueue(stored)
    _, stats = memory(x, y)
    s = normalize(x, dim=1) @ normalize(torch.cat([y, stored]), dim=1).T / 0.5
    hardest = s.clone().fill_diagonal_(-torch.inf).amax(1)
    close(stats["hardest_negative"], hardest.mean())
    close(stats["lse"], s.logsumexp(1).mean())
    close(stats["accuracy"], (s.diag() > hardest).double().mean())


def test_views_are_stored_as_rows(device, backend):
    z = torch.randn(4, 2, 3, device=device)
    labels, ids = torch.tensor([0, 1, 2, 0], device=device), torch.arange(4, device=device)
    memory = CrossBatchMemory(SupConLoss(backend=backend), 10, 3, ids=True, device=device)
    memory(z, labels, ids=ids)
    assert torch.equal(memory.queue.embeddings[:8], z.flatten(0, 1))
    assert memory.queue.labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, -1, -1]
    assert memory.queue.ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, -1, -1]


def test_a_view_does_not_meet_its_own_instance(device, backend):
    z, labels = torch.randn(1, 2, 3, device=device), torch.tensor([5], device=device)
    memory = CrossBatchMemory(SupConLoss(1.0, backend=backend), 10, 3, ids=True, device=device)
    memory(z, labels, ids=labels)
    assert memory(z, labels, ids=labels).abs() < 1e-6  # only the other view takes part
    assert memory(z, labels, ids=labels + 1) > 0.5  # four stored rows of another instance, too


def test_ids_of_views(device, backend):
    """Every view leaves out the stored rows of its own instance, and no other rows."""
    z = torch.randn(3, 2, 4, device=device, dtype=torch.float64)
    labels, ids = torch.tensor([0, 1, 0], device=device), torch.arange(3, device=device)
    memory = CrossBatchMemory(
        SupConLoss(0.5, backend=backend), 6, 4, ids=True, dtype=z.dtype, device=device
    )
    memory(z + 1, labels, ids=ids)
    rows, every = (z.flatten(0, 1), (z + 1).flatten(0, 1)), ids.repeat_interleave(2)
    repeated = labels.repeat_interleave(2)
    want = dense_supcon(rows[0], repeated, rows[1], repeated, every[:, None] == every)
    close(memory(z, labels, ids=ids), want)


def test_evaluation_reads_and_does_not_write(device):
    memory = CrossBatchMemory(SupConLoss(), 6, 3, device=device)
    z, labels = torch.randn(4, 3, device=device), torch.tensor([0, 1, 0, 1], device=device)
    memory(z, labels)
    memory.eval()
    value = memory(z + 1, labels)
    assert memory.queue.written == 4
    assert memory(z + 1, labels) == value != SupConLoss()(z + 1, labels)


def test_it_compiles(device):
    memory = CrossBatchMemory(SupConLoss(), 6, 3, device=device)
    twin = copy.deepcopy(memory)
    torch.compiler.reset()
    compiled = torch.compile(memory, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (4, 5):
        z, labels = torch.randn(n, 3, device=device, requires_grad=True), torch.arange(n) % 2
        got, want = compiled(z, labels.to(device)), twin(z, labels.to(device))
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradients(got, z), gradients(want, z))
    assert torch.equal(memory.queue.embeddings, twin.queue.embeddings)


def test_memory_errors():
    z, labels = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^loss: got CoSTLoss, expected one whose forward takes"):
        CrossBatchMemory(CoSTLoss(), 4, 3)
    with pytest.raises(TypeError, match=r"^loss: got CLIPLoss, which takes two queues, expected"):
        CrossBatchMemory(CLIPLoss(), 4, 3)
    with pytest.raises(
        ValueError, match=r"^ids: got a value, expected None: the memory .* ids=False"
    ):
        CrossBatchMemory(SupConLoss(), 4, 3)(z, labels, ids=labels)
    with pytest.raises(ValueError, match=r"^ids: got None, expected int.* memory .* ids=True"):
        CrossBatchMemory(SupConLoss(), 4, 3, ids=True)(z, labels)
    with pytest.raises(ValueError, match=r"^memory: got shape \(4, 2\), expected \(K, 3\)"):
        CrossBatchMemory(SupConLoss(), 4, 2)(z, labels)
    with pytest.raises(TypeError, match=r"^memory: got dtype torch.float32, expected z's torch.f"):
        CrossBatchMemory(SupConLoss(), 4, 3)(z.double(), labels)
    with pytest.raises(ValueError, match=r"^memory: got a queue without labels, expected one made"):
        SupConLoss()(z, labels, memory=EmbeddingQueue(4, 3))
    with pytest.raises(TypeError, match=r"^memory: got Tensor, expected an EmbeddingQueue"):
        SupConLoss()(z, labels, memory=z)
    with pytest.raises(
        TypeError, match=r"^memory: got EmbeddingQueue, expected two queues, of col"
    ):
        CLIPLoss()(z, z, memory=EmbeddingQueue(4, 3))
    with pytest.raises(ValueError, match=r"^memory: got some with symmetric=True, expected None"):
        MarginRankingLoss(symmetric=True)(z, z, memory=(EmbeddingQueue(4, 3),) * 2)
