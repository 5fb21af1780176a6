"""Row weights, corrections of sampling and label smoothing, of losses with one positive per row."""

from inspect import signature

import pytest
import torch
from properties import close
from torch.nn.functional import cross_entropy, normalize

from contrastloss import CLIPLoss, DCLLoss, InfoNCELoss, MoCoLoss, NTXentLoss, SupConLoss
from contrastloss.losses import LOSSES
from contrastloss.losses.base.label_loss import LabelLoss
from contrastloss.memory import EmbeddingQueue
from contrastloss.testing import Subject

WEIGHTED = [n for n, c in LOSSES.items() if "row_weight" in signature(c.forward).parameters]
CORRECTED = [n for n, c in LOSSES.items() if "log_q" in signature(c.forward).parameters]
N, D, TAU = 6, 5, 0.3


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def check(found, want, leaves):
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-11)
    got, expected = (torch.autograd.grad(v.sum(), leaves) for v in (found, want))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", WEIGHTED)
def test_row_weights(name, backend):
    """They multiply the rows of an instance; the mean divides by the number of rows that count."""
    cls, options = LOSSES[name], {"margin": 9.0} if name == "triplet" else {}
    given = Subject(cls).inputs(n=N, d=D)
    if issubclass(cls, LabelLoss):
        given[-1] = torch.arange(N) % 3
    given[0].requires_grad_()  # a loss with gradients takes another way
    weight = torch.linspace(0.0, 2.0, N, dtype=torch.float64).requires_grad_()

    def value(reduction="none", **more):
        torch.manual_seed(1)  # for the mixtures of MoCHi
        return cls(**options, reduction=reduction, backend=backend)(*given, **more)

    rows = value()
    many = weight.repeat(len(rows) // N)
    assert rows.any()
    close(value(row_weight=weight), many * rows)
    count = (value("sum") / value("mean")).round()
    leaves = [weight, given[0]]
    check(value("mean", row_weight=weight), (many * rows).sum() / count.detach(), leaves)
    low = [v.float() if v.is_floating_point() else v for v in given]
    assert cls()(*low, row_weight=weight).dtype == torch.float32


@pytest.mark.parametrize("name", ["supcon", "nt_xent"])
def test_row_weights_of_views(name, backend):
    weight = torch.rand(N, dtype=torch.float64)
    if name == "supcon":
        z, labels = leaf(N, 2, D), torch.arange(N) % 3
        loss = SupConLoss(reduction="none", backend=backend)
        close(loss(z, labels, row_weight=weight), weight[:, None] * loss(z, labels))
    else:
        x, y = leaf(2, N, D)
        loss = NTXentLoss(reduction="none", backend=backend)
        close(loss(x, y, row_weight=weight), weight.repeat(2) * loss(x, y))


@pytest.mark.parametrize("top_k", [None, 3])
def test_info_nce_and_given_negatives(top_k, backend):
    x, y, log_q, more, its = leaf(N, D), leaf(N, D), leaf(N), leaf(4, D), leaf(4)
    s = normalize(x) @ normalize(torch.cat([y, more])).mT / TAU - torch.cat([log_q, its])
    positive, negative = s.diagonal(), s.masked_fill(torch.eye(N, N + 4).bool(), -torch.inf)
    negative = negative if top_k is None else negative.topk(top_k).values
    want = cross_entropy(
        torch.cat([positive[:, None], negative], 1), torch.zeros(N).long(), reduction="none"
    )
    loss = InfoNCELoss(TAU, top_k=top_k, reduction="none", backend=backend)
    found = loss(x, y, more, log_q=log_q, negatives_log_q=its)
    check(found, want, [x, y, more, log_q, its])


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
def test_clip_in_both_directions(smoothing, backend):
    x, y, log_q, x_log_q, more = leaf(N, D), leaf(N, D), leaf(N), leaf(N), leaf(3, D)
    s, t = normalize(x) @ normalize(y).mT / TAU, normalize(y) @ normalize(more).mT / TAU
    options = {"reduction": "none", "label_smoothing": smoothing}
    rows = cross_entropy(s - log_q, torch.arange(N), **options)
    cols = cross_entropy(torch.cat([s.mT - x_log_q, t], 1), torch.arange(N), **options)
    loss = CLIPLoss(TAU, backend=backend, **options)
    found = loss(x, y, log_q=log_q, x_log_q=x_log_q, x_negatives=more)
    check(found, (rows + cols) / 2, [x, y, log_q, x_log_q, more])
    each = more.expand(N, 3, D)
    close(loss(x, y, log_q=log_q, x_log_q=x_log_q, x_negatives=each), found)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("queue", [False, True])
def test_smoothing_counts_what_takes_part(queue, ids, backend):
    """Stored columns too, and no pairs of equal ids."""
    x, y = leaf(N, D), leaf(N, D)
    number = torch.tensor([0, 1, 2, 0, 1, 5]) if ids else torch.arange(N)
    s = normalize(x) @ normalize(y).mT / TAU
    s = s.masked_fill((number[:, None] == number) & ~torch.eye(N).bool(), -torch.inf)
    more = {"ids": number} if ids else {}
    if queue:
        held = EmbeddingQueue(5, D, ids=ids, dtype=torch.float64)
        rows, names = torch.randn(3, D, dtype=torch.float64), torch.tensor([9, 0, 9])
        held.enqueue(rows, **({"ids": names} if ids else {}))
        t = normalize(x) @ normalize(rows).mT / TAU
        t = t.masked_fill((number[:, None] == names) & ids, -torch.inf)
        s, more = torch.cat([s, t], 1), {**more, "memory": held}
    log_p = s.log_softmax(1)
    there = s > -torch.inf
    mean = torch.where(there, log_p, 0.0).sum(1) / there.sum(1)
    loss = InfoNCELoss(TAU, label_smoothing=0.2, reduction="none", backend=backend)
    check(loss(x, y, **more), -0.8 * log_p.diagonal() - 0.2 * mean, [x, y])


@pytest.mark.parametrize("cls", [NTXentLoss, SupConLoss])
def test_views_and_labels(cls, backend):
    x, y, log_q, more, its = leaf(N, D), leaf(N, D), leaf(N), leaf(4, D), leaf(4)
    z, bias = torch.cat([x, y]), log_q.repeat(2)
    s = normalize(z) @ normalize(torch.cat([z, more])).mT / TAU - torch.cat([bias, its])
    s = s.masked_fill(torch.eye(2 * N, 2 * N + 4).bool(), -torch.inf)
    log_p = s.log_softmax(1)
    options = {"reduction": "none", "backend": backend}
    given = {"negatives": more, "negatives_log_q": its}
    if cls is NTXentLoss:
        i = torch.arange(2 * N)
        want = -log_p[i, i.roll(N)]
        found = cls(TAU, **options)(x, y, log_q=log_q, **given)
    else:
        labels = torch.arange(N).repeat(2) % 3
        same = (labels[:, None] == labels) & ~torch.eye(2 * N).bool()
        hit = torch.where(same, log_p[:, : 2 * N], 0.0).sum(1) / same.sum(1)
        mean = torch.where(s > -torch.inf, log_p, 0.0).sum(1) / (2 * N + 3)
        want = -0.7 * hit - 0.3 * mean
        smooth = cls(TAU, label_smoothing=0.3, **options)
        found = smooth(z, labels, log_q=bias, **given)
        views = torch.stack([x, y], 1)
        found_views = smooth(views, labels[:N], log_q=log_q, **given)
        close(found_views.T.flatten(), found)
    check(found, want, [x, y, log_q, more, its])


def test_moco(backend):
    q, k, more, its = leaf(N, D), leaf(N, D), leaf(3, D), leaf(3)
    queue = torch.randn(4, D, dtype=torch.float64)
    t = normalize(q) @ normalize(torch.cat([queue, more])).mT / TAU
    t = t - torch.cat([torch.zeros(4), its])
    s = torch.cat([(normalize(q) * normalize(k)).sum(1, keepdim=True) / TAU, t], 1)
    want = cross_entropy(s, torch.zeros(N).long(), reduction="none")
    loss = MoCoLoss(TAU, reduction="none", backend=backend)
    check(loss(q, k, queue, negatives=more, negatives_log_q=its), want, [q, k, more, its])


@pytest.mark.parametrize("name", CORRECTED)
def test_equal_probabilities_change_nothing(name, backend):
    cls = LOSSES[name]
    given = Subject(cls).inputs(n=N, d=D)
    log_q = torch.full((N,), -5.0)
    if "log_q" in cls.without:
        return
    got, stats = cls(return_stats=True, backend=backend)(*given, log_q=log_q)
    want, plain = cls(return_stats=True, backend=backend)(*given)
    close(got, want)
    close(stats["accuracy"], plain["accuracy"])
    close(stats["lse"] - plain["lse"], 5.0)


@pytest.mark.parametrize("name", ["row_weight", "log_q"])
def test_errors(name):
    x, loss = torch.randn(4, 3), InfoNCELoss()
    for value, error, message in (
        ([1.0] * 4, TypeError, "got list, expected a tensor"),
        (torch.arange(4), TypeError, "got dtype torch.int64, expected a floating dtype"),
        (torch.ones(3), ValueError, r"got shape \(3,\), expected \(4,\)"),
    ):
        with pytest.raises(error, match=f"^{name}: {message}"):
            loss(x, x, **{name: value})


def test_given_log_q_alone():
    x = torch.randn(4, 3)
    message = "^negatives_log_q: got a value, expected None without negatives"
    for loss in (InfoNCELoss(), CLIPLoss(), NTXentLoss()):
        with pytest.raises(ValueError, match=message):
            loss(x, x, negatives_log_q=torch.zeros(4))
    with pytest.raises(ValueError, match=r"^negatives_log_q: got shape \(2,\), expected \(3,\)"):
        InfoNCELoss()(x, x, torch.randn(3, 3), negatives_log_q=torch.zeros(2))
    assert "log_q" not in signature(DCLLoss.forward).parameters
    assert not issubclass(CLIPLoss, LabelLoss)
