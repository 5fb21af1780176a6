"""The loss of prefixes: the weighted sum of the loss of each of them."""

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from contrastloss import CLIPLoss, EmbeddingQueue, InfoNCELoss, MatryoshkaLoss, NTXentLoss
from contrastloss.losses import LOSSES
from contrastloss.testing import Subject

DIMS, WEIGHTS = (5, 2, 11), (0.5, 2.0, 1.0)


def rows(n, d=11, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 7, 33, 130])
def test_values_and_gradients(backend, n):
    """Against the dense formula."""
    x, y = rows(n).requires_grad_(), rows(n, seed=1).requires_grad_()
    found = MatryoshkaLoss(CLIPLoss(0.2, backend=backend), DIMS, WEIGHTS)(x, y)
    want, own = 0, torch.arange(n)
    for d, weight in zip(DIMS, WEIGHTS, strict=True):
        s = normalize(x[:, :d]) @ normalize(y[:, :d]).mT / 0.2
        want = want + weight * (cross_entropy(s, own) + cross_entropy(s.mT, own)) / 2
    torch.testing.assert_close(found, want)
    grads = [torch.autograd.grad(value, (x, y)) for value in (found, want)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


NAMES = [  # losses of scores, of other sizes than D, and of several views
    "info_nce", "supcon", "soft_supcon", "nspt", "gist", "moco", "dino", "multi_modal", "koleo",
    "vicreg", "cacr", "mv_info_nce",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_loss(name):
    loss = LOSSES[name]()
    inputs = Subject(LOSSES[name]).inputs(n=12, d=8)
    inputs = [v.detach() if isinstance(v, Tensor) else v for v in inputs]
    torch.manual_seed(0)
    found = MatryoshkaLoss(loss, [8, 3])(*inputs)
    torch.manual_seed(0)
    width = inputs[0].shape[-1]
    specs = [loss.inputs.get(n.lstrip("*"), "K D") for n in loss.positional]
    specs += [specs[-1]] * len(inputs)
    short = [
        v[..., :3] if s.endswith("D") and v.shape[-1] == width else v
        for s, v in zip(specs, inputs, strict=False)
    ]
    want = loss(*inputs) + loss(*short)
    torch.testing.assert_close(found, want)
    assert not torch.equal(loss(*short), loss(*inputs))


def test_keywords_and_queues():
    x, y, negatives = rows(6), rows(6, seed=1), rows(4, seed=2)
    queue = EmbeddingQueue(5, 11, dtype=torch.float64)
    queue.enqueue(rows(3, seed=3))
    short = EmbeddingQueue(5, 4, dtype=torch.float64)
    short.enqueue(rows(3, seed=3)[:, :4])
    loss, weight = InfoNCELoss(), torch.linspace(0, 1, 6, dtype=torch.float64)
    found = MatryoshkaLoss(loss, [4])(
        x, y=y, negatives=negatives, memory=queue, row_weight=weight, logit_scale=torch.tensor(3.0)
    )
    want = loss(
        x[:, :4], y[:, :4], negatives[:, :4], memory=short, row_weight=weight, logit_scale=3.0
    )
    torch.testing.assert_close(found, want)
    assert queue.embeddings.shape == (5, 11)
    assert queue.dim == 11


def test_prefixes_are_views():
    """Of a callable, whose embeddings are the tensors as long as the first one's."""
    x, labels, other = rows(4), torch.arange(4), rows(4, 3)
    seen = []

    def loss(*args, **kwargs):
        seen.append([*args, *kwargs.values()])
        return args[0].sum()

    found = MatryoshkaLoss(loss, [2, 11])(x, labels, other=other, y=x)
    torch.testing.assert_close(found, x[:, :2].sum() + x.sum())
    assert [[tuple(v.shape) for v in part] for part in seen] == [
        [(4, 2), (4,), (4, 3), (4, 2)],
        [(4, 11), (4,), (4, 3), (4, 11)],
    ]
    assert {part[0].data_ptr() for part in seen} == {x.data_ptr()}
    assert seen[0][3].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_statistics_and_rows():
    x, y = rows(6), rows(6, seed=1)
    value, stats = MatryoshkaLoss(CLIPLoss(return_stats=True), [8, 3])(x, y)
    for d in (8, 3):
        _, want = CLIPLoss(return_stats=True)(x[:, :d], y[:, :d])
        torch.testing.assert_close(stats[d], want)
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = CLIPLoss(reduction="none")
    by_row, by_col = MatryoshkaLoss(loss, [8, 3], [1, 2])(x, y, x_ids=ids, y_ids=ids)
    parts = [loss(x[:, :d], y[:, :d], x_ids=ids, y_ids=ids) for d in (8, 3)]
    torch.testing.assert_close(by_row, parts[0][0] + 2 * parts[1][0])
    torch.testing.assert_close(by_col, parts[0][1] + 2 * parts[1][1])
    assert value.ndim == 0


def test_drawn_lengths():
    """Every length in turn, the same ones for equal numbers of calls, also after a restart."""
    x, y = rows(6), rows(6, seed=1)
    loss = MatryoshkaLoss(NTXentLoss(), [8, 3, 5], [1.0, 10.0, 100.0], n_dims_per_step=2)
    single = [
        w * NTXentLoss()(x[:, :d], y[:, :d]) for d, w in zip((8, 3, 5), (1, 10, 100), strict=True)
    ]
    sums = {round((sum(single) - one).item(), 9) for one in single}
    found = [round(loss(x, y).item(), 9) for _ in range(12)]
    assert set(found) == sums
    other = MatryoshkaLoss(NTXentLoss(), [8, 3, 5], [1.0, 10.0, 100.0], n_dims_per_step=2)
    for value in found[:5]:
        assert round(other(x, y).item(), 9) == value
    third = MatryoshkaLoss(NTXentLoss(), [8, 3, 5], [1.0, 10.0, 100.0], n_dims_per_step=2)
    third.load_state_dict(other.state_dict())
    assert [round(third(x, y).item(), 9) for _ in range(7)] == found[5:]


def test_copies_and_compiling():
    x, y = rows(6).requires_grad_(), rows(6, seed=1)
    loss = MatryoshkaLoss(CLIPLoss(), [8, 3])
    want = torch.autograd.grad(loss(x, y), x)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(torch.autograd.grad(other(x, y), x), want)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x, y), x), want)
    assert "dims=(8, 3), weights=(1.0, 1.0)" in repr(loss)


def test_errors():
    x = rows(4)
    with pytest.raises(ValueError, match=r"dims: got 12, expected at most x's 11"):
        MatryoshkaLoss(CLIPLoss(), [12, 3])(x, x)
    with pytest.raises(ValueError, match=r"dims: got 12, expected at most args\[0\]'s 11"):
        MatryoshkaLoss(lambda x: x, [12, 3])(x)
    with pytest.raises(TypeError, match="inputs: got no embeddings, expected floating tensors"):
        MatryoshkaLoss(lambda x: x, [12, 3])("x")
    for options, error, text in (
        ({"dims": []}, ValueError, r"dims: got \[\], expected different numbers, at least one"),
        ({"dims": [3, 3]}, ValueError, r"dims: got \[3, 3\], expected different numbers"),
        ({"dims": [0]}, ValueError, "dims: got 0, expected an integer of at least 1"),
        ({"dims": 3}, TypeError, "dims: got int, expected a sequence of integers"),
        ({"weights": [1.0]}, ValueError, "weights: got 1 numbers, expected 2"),
        ({"weights": []}, ValueError, "weights: got 0 numbers, expected 2"),
        ({"weights": [1.0, "2"]}, TypeError, "weights: got str"),
        ({"n_dims_per_step": 3}, ValueError, "n_dims_per_step: got 3, expected -1, or from 1 to 2"),
        ({"n_dims_per_step": 0}, ValueError, "n_dims_per_step: got 0, expected -1"),
        ({"loss": 3}, TypeError, "loss: got int, expected a callable"),
    ):
        with pytest.raises(error, match=text):
            MatryoshkaLoss(**{"loss": CLIPLoss(), "dims": [4, 2], **options})
