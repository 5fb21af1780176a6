"""Losses over several column blocks, compared with dense formulas over all columns at once."""

import math
from dataclasses import fields
from inspect import signature

import pytest
import torch
from properties import close, gradients
from torch.nn.functional import normalize

from contrastloss import InfoNCELoss, MarginRankingLoss, TripletLoss
from contrastloss.channel import EXPECT, INDEX, LSE, MAX, SUM, differs, same
from contrastloss.losses import LOSSES, CrossLoss, PairLoss, ScoreLoss, TwoViewLoss
from contrastloss.losses.base.blocks import BATCH, Block, Given, Own, Ragged, Stored
from contrastloss.losses.base.label_loss import LabelLoss
from contrastloss.losses.base.scores import Scores
from contrastloss.memory import EmbeddingQueue
from contrastloss.testing import Subject

REMEMBER = [
    name
    for name, cls in LOSSES.items()
    if issubclass(cls, PairLoss) and "memory" in signature(cls.forward).parameters
]


def queue_for(like, filled=7, *, labels=None):
    """A queue of nine slots; filled ones have instances 0, 1, 2, ... and labels 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(9, like.shape[-1], generator=generator, dtype=torch.float64)[:filled]
    queue = EmbeddingQueue(9, like.shape[-1], labels=True, ids=True, dtype=like.dtype)
    numbers = torch.arange(filled)
    queue.enqueue(rows.to(like), numbers % 3 if labels is None else labels[:filled], ids=numbers)
    return queue.to(like.device)


@pytest.mark.parametrize(
    ("name", "cls"), [(n, cls) for n, cls in LOSSES.items() if issubclass(cls, ScoreLoss)]
)
def test_every_loss_of_scores_takes_an_option_or_says_why_not(name, cls):
    taken = {field.name for field in fields(cls)} - cls.without.keys()
    if {"memory", "queue", "bank"} & signature(cls.forward).parameters.keys():
        taken.add("memory")
    for option in ("group", "memory", "return_stats"):
        assert (option in taken) != (option in cls.without), option
    others = {"log_q", "negatives_log_q", "label_smoothing"}
    assert cls.without.keys() <= {"group", "memory", "return_stats", *others}


# ---- the blocks --------------------------------------------------------------------------------

CHANNELS = (
    LSE(pairs=(differs("label"),)),
    LSE(2.0, pairs=(same("label"), differs("instance"))),
    SUM("one"),
    SUM("softplus", shift="shift", pairs=(differs("instance"),)),
    EXPECT(0.5, pairs=(differs("label"),)),
    MAX(pairs=(differs("instance"),)),
    MAX(-1.0, pairs=(same("label"),)),
)


def dense(s, kept, rows):
    """The values of every channel over dense scores; ``kept`` masks the pairs of each channel."""
    found = []
    for channel, mask in zip(CHANNELS, kept, strict=True):
        if isinstance(channel, LSE):
            found.append((channel.theta * s).masked_fill(~mask, -torch.inf).logsumexp(1))
        elif isinstance(channel, SUM):
            u = s if channel.shift is None else s - rows["shift"][:, None]
            value = torch.ones_like(u) if channel.psi == "one" else u.exp().log1p()
            found.append(torch.where(mask, value, 0.0).sum(1))
        elif isinstance(channel, EXPECT):
            p = (channel.theta * s).masked_fill(~mask, -torch.inf).softmax(1)
            found.append((torch.where(mask, p, 0.0) * s).sum(1))
        else:
            found.append((channel.sign * s).masked_fill(~mask, -torch.inf).amax(1))
    return found


@pytest.mark.parametrize("filled", [0, 7])
def test_channels_over_all_kinds_of_blocks(device, backend, filled):
    n, d = 6, 5
    x, y, given = (torch.randn(k, d, dtype=torch.float64, device=device) for k in (n, n, 4))
    own = torch.randn(n, 3, d, dtype=torch.float64, device=device)
    mask = torch.rand(n, 3, device=device) < 0.6
    leaves = [v.requires_grad_() for v in (x, y, given, own)]
    label = torch.arange(n, device=device) % 3
    instance, ids = torch.arange(n, device=device), torch.arange(n, device=device)
    queue = queue_for(x, filled)
    weight = torch.randn(4, dtype=torch.float64, device=device)
    rows = {"label": label, "instance": instance}
    rows["shift"] = torch.randn(n, dtype=torch.float64, device=device).requires_grad_()
    blocks = (
        BATCH,
        Stored(queue, ids=ids, labels="label"),
        Block(given, {"label": torch.arange(4, device=device)}, weight),
        Own(own, mask),
    )
    scores = Scores(x, y, scale=2.0, blocks=blocks, backend=backend)
    cols = {"label": label, "instance": instance}
    got = scores.stats(CHANNELS, rows, cols)

    stored = queue.embeddings[:filled]
    unit = [normalize(v, dim=-1) for v in (x, y, stored, given, own)]
    s = [2 * unit[0] @ v.mT for v in unit[1:4]] + [2 * (unit[0][:, None] * unit[4]).sum(2)]
    s[2] = s[2] + weight
    s = torch.cat(s, 1)
    of_label = [label, queue.labels[:filled], torch.arange(4, device=device)]
    alike = torch.cat([label[:, None] == v for v in of_label] + [torch.zeros_like(mask)], 1)
    there = torch.ones_like(alike)
    there[:, n : n + filled] = ids[:, None] != queue.ids[:filled]
    there[:, -3:] = mask
    itself = torch.zeros_like(alike)
    itself[:, :n] = torch.eye(n, dtype=torch.bool, device=device)
    kept = [~alike, alike & ~itself, torch.ones_like(alike), ~itself, ~alike, ~itself, alike]
    kept = [mask & there for mask in kept]
    want = dense(s, kept, rows)
    values = [v if isinstance(v, torch.Tensor) else v.value for v in got]
    for value, expected in zip(values, want, strict=True):
        close(value, expected)
    total, expected = (sum(v.square().sum() for v in part) for part in (values, want))
    for a, b in zip(gradients(total, *leaves, rows["shift"]),
                    gradients(expected, *leaves, rows["shift"]), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    starts = torch.tensor([0, n, n + 9, n + 9 + 4], device=device)  # a queue has all slots
    for found, mask in ((got[5], kept[5]), (got[6], kept[6])):
        sign = 1.0 if found is got[5] else -1.0
        place = (sign * s).masked_fill(~mask, -torch.inf).argmax(1)
        place = torch.where(place >= n + filled, place + 9 - filled, place)
        assert (starts[found.block] + found.index == place).all()


def test_no_block_has_a_matching_pair(device, backend):
    """Channels return their values for an empty set, without a pass over the scores."""
    x = torch.randn(3, 2, device=device)
    scores = Scores(x, x, scale=1.0, blocks=(Given(x),), backend=backend)
    none = (same(INDEX),)
    lse, total, mean, best = scores.stats(
        (LSE(pairs=none), SUM(pairs=none), EXPECT(pairs=none), MAX(pairs=none))
    )
    for value, want in (
        (lse, -torch.inf),
        (total, 0),
        (mean.value, 0),
        (mean.lse, -torch.inf),
        (best.value, -torch.inf),
        (best.index, -1),
        (best.block, -1),
    ):
        assert (value == want).all()


def test_topk_over_blocks(device, backend):
    x, y = torch.randn(2, 6, 4, dtype=torch.float64, device=device)
    own, queue = torch.randn(6, 3, 4, dtype=torch.float64, device=device), queue_for(x)
    blocks = (BATCH, Own(own), Stored(queue))
    scores = Scores(x, y, scale=3.0, normalize=False, blocks=blocks, backend=backend)
    for largest in (True, False):
        found = scores.topk(5, pairs=(differs(INDEX),), largest=largest)
        s = torch.cat([x @ y.mT, (x[:, None] * own).sum(2), x @ queue.embeddings.mT], 1) * 3
        out = torch.zeros_like(s, dtype=torch.bool)
        out[:, :6] = torch.eye(6, dtype=torch.bool, device=device)
        out[:, 16:] = True  # unfilled slots
        want = s.masked_fill(out, -torch.inf if largest else torch.inf).topk(5, 1, largest)
        close(found.values, want.values)
        assert torch.equal(found.indices, want.indices)


# ---- losses with a memory ----------------------------------------------------------------------


def further(loss, x, queue, ids, copies):
    """Scores of rows with the stored columns; -inf for ignored columns."""
    s = normalize(x) @ normalize(queue.embeddings[queue.steps >= 0]).mT / loss.temperature
    stored = queue.ids[queue.steps >= 0]
    left_out = ids.repeat(copies)[:, None] == stored
    return (s + getattr(loss, "bias", 0.0)).masked_fill(left_out, -torch.inf)


@pytest.mark.parametrize("name", [n for n in REMEMBER if not issubclass(LOSSES[n], LabelLoss)])
def test_a_memory_adds_negatives(name, device, backend):
    """A loss with a queue equals the loss with negatives from batch and queue: for sums of
    exponentials, one more term in the log-sum-exp."""
    cls = LOSSES[name]
    subject = Subject(cls, {}, device, backend)
    loss, inputs = subject.loss(temperature=0.3, reduction="none"), subject.inputs(n=6, d=5)
    ids, copies = torch.arange(6, device=device), 2 if issubclass(cls, TwoViewLoss) else 1
    queue = queue_for(inputs[0])
    memory = (queue, queue) if loss.both_sides else queue
    got = loss(*inputs, memory=memory, ids=ids)
    empty = queue_for(inputs[0], 0)
    close(loss(*inputs, memory=(empty, empty) if loss.both_sides else empty), loss(*inputs))
    if name == "mv_info_nce":
        z = inputs[0]
        s = torch.cat([further(loss, view, queue, ids, 1) for view in z.unbind(1)], 1)
        own = normalize(z, dim=-1) @ normalize(z, dim=-1).mT / 0.3
        own = own.diagonal_scatter(torch.full(z.shape[:2], -torch.inf).to(own), dim1=1, dim2=2)
        positive = own.flatten(1).logsumexp(1)
        want = torch.logaddexp(loss(z) + positive, s.logsumexp(1)) - positive
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
        return
    x, y = inputs[:2]
    rows = torch.cat([x, y]) if copies == 2 else x
    positive = (normalize(x) * normalize(y)).sum(1).repeat(copies) / 0.3
    s = further(loss, rows, queue, ids, copies)
    plain = loss(*inputs)
    if name in ("info_nce", "nt_xent"):
        want = torch.logaddexp(plain, s.logsumexp(1) - positive)
    elif name == "clip":
        back = further(loss, y, queue, ids, 1).logsumexp(1) - positive
        one_way = InfoNCELoss(0.3, reduction="none")
        forth = torch.logaddexp(one_way(x, y), s.logsumexp(1) - positive)
        want = (forth + torch.logaddexp(one_way(y, x), back)) / 2
    elif name == "dcl":
        want = torch.logaddexp(plain + positive, s.logsumexp(1)) - positive
    elif name == "siglip":
        want = plain + s.exp().log1p().sum(1)
    elif name in ("binary_nce", "spectral", "margin_ranking"):
        count = (s > -torch.inf).sum(1)
        first = {"binary_nce": (-positive).exp().log1p(), "spectral": -2 * positive}.get(name, 0.0)
        terms = {"binary_nce": lambda u: u.exp().log1p(), "spectral": torch.square,
                 "margin_ranking": lambda u: (loss.margin - positive[:, None] + u).relu()
                 if name == "margin_ranking" else None}[name]  # fmt: skip
        more = torch.where(s > -torch.inf, terms(s), 0.0).sum(1)
        want = first + ((plain - first) * 5 + more) / (5 + count)
    elif name == "cmim":  # the mean over the batch's and the stored negatives
        batch = normalize(x) @ normalize(y).mT / 0.3
        batch.fill_diagonal_(-torch.inf)
        count = (s > -torch.inf).sum(1)
        mean = torch.cat([batch, s], 1).logsumexp(1) - torch.log(5 + count.double())
        want = torch.logaddexp(mean - positive, torch.zeros_like(mean))
    elif name == "cluster_nt_xent":
        clusters = inputs[2].repeat(2)
        s = s.masked_fill(clusters[:, None] == queue.labels[:7], -torch.inf)
        want = torch.logaddexp(plain, s.logsumexp(1) - positive)
    else:
        assert name in ("hard_negative", "hard_negative_clip"), name
        want = hard(loss, cls, x, y, queue, ids)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def hard(loss, cls, x, y, queue, ids):
    """The formula of both losses with reweighted negatives."""
    x, y = normalize(x), normalize(y)
    n, rows, two_views = len(x), torch.cat([x, y]), issubclass(cls, TwoViewLoss)
    left = torch.arange(2 * n, device=x.device)
    own = left[:, None] % n == left % n
    s = rows @ (rows if two_views else torch.cat([y, x])).mT / 0.3
    if not two_views:
        own = own | (left[:, None] // n != left // n)  # columns of the same side are excluded
    s = torch.cat([s.masked_fill(own, -torch.inf), further(loss, rows, queue, ids, 2)], 1)
    positive = (x * y).sum(1).repeat(2) / 0.3
    m = (s > -torch.inf).sum(1).double()
    top, weights = (((k + loss.beta) * s).logsumexp(1) for k in (1, 0))
    excess = torch.exp(top - weights - positive)
    g = (m * excess - loss.tau_plus * m) / (1 - loss.tau_plus)
    rows = torch.log1p(torch.maximum(g, m * torch.exp(-1 / 0.3 - positive)))
    return rows if two_views else rows.view(2, n).mean(0)


@pytest.mark.parametrize("name", [n for n in REMEMBER if issubclass(LOSSES[n], LabelLoss)])
def test_a_memory_adds_labelled_columns(name, device, backend):
    """The losses of the batch's rows equal those in one longer batch that includes the queue."""
    cls = LOSSES[name]
    if name in ("pooled_supcon", "cross_supcon"):
        pytest.skip("like SupCon, after pooling; its two queues: below")
    subject = Subject(cls, {}, device, backend)
    loss, (z, labels) = subject.loss(reduction="none"), subject.inputs(n=8, d=5)
    queue = queue_for(z, labels=torch.arange(7) % 2)
    got = loss(z, labels, memory=queue)
    longer = torch.cat([z, queue.embeddings[:7]])
    want = loss(longer, torch.cat([labels, queue.labels[:7]]))[:8]
    close(got, want)


def test_two_memories_of_labelled_columns(device, backend):
    """A row's positives and negatives are those of the batch and of one queue, a column's those of
    the batch and of the other."""
    x, y, labels = Subject(LOSSES["cross_supcon"], {}, device, backend).inputs(n=8, d=5)
    queues = queue_for(x), queue_for(x, 4)
    loss = LOSSES["cross_supcon"](0.3, reduction="none", backend=backend)
    ids = torch.arange(8, device=device)
    got = loss(x, y, labels, memory=queues, ids=ids)

    def one_way(rows, cols, queue):
        s = torch.cat([normalize(rows) @ normalize(cols).mT / 0.3,
                       further(loss, rows, queue, ids, 1)], 1)  # fmt: skip
        alike = labels[:, None] == torch.cat([labels, queue.labels[queue.steps >= 0]])
        alike &= s > -torch.inf
        return s.logsumexp(1) - torch.where(alike, s, 0.0).sum(1) / alike.sum(1)

    close(got, (one_way(x, y, queues[0]) + one_way(y, x, queues[1])) / 2)
    empty = queue_for(x, 0)
    close(loss(x, y, labels, memory=(empty, empty)), loss(x, y, labels))


@pytest.mark.parametrize("mining", ["all", "hard", "semihard"])
def test_triplets_with_a_memory(mining, device, backend):
    z = torch.randn(8, 5, dtype=torch.float64, device=device)
    labels, queue = torch.arange(8, device=device) % 3, queue_for(z)
    loss = TripletLoss(0.5, mining, positives=3, reduction="none", backend=backend)
    longer = torch.cat([z, queue.embeddings[:7]])
    want = loss(longer, torch.cat([labels, queue.labels[:7]]))[:8]
    close(loss(z, labels, memory=queue), want)


@pytest.mark.parametrize("options", [{"top_k": 3}, {"hardness": 2.0}, {}], ids=str)
@pytest.mark.parametrize("given", [None, (4, 5), (6, 4, 5)], ids=str)
def test_negatives_of_several_kinds_at_once(options, given, device, backend):
    """In-batch and given negatives together with a queue: equal to one set per row."""
    x, y = torch.randn(2, 6, 5, dtype=torch.float64, device=device)
    queue = queue_for(x)
    negatives = None if given is None else torch.randn(given, dtype=torch.float64, device=device)
    options |= {"reduction": "none", "return_stats": True, "backend": backend}
    got, stats = InfoNCELoss(0.5, **options)(x, y, negatives, memory=queue)
    parts = [torch.stack([torch.cat([y[:i], y[i + 1 :]]) for i in range(6)])]
    parts += [] if given is None else [negatives.expand(6, 4, 5)]
    parts += [queue.embeddings[:7].expand(6, 7, 5)]
    alone = InfoNCELoss(0.5, in_batch_negatives=False, **options)
    want, same_stats = alone(x, y, torch.cat(parts, 1))
    close(got, want)
    del same_stats["lse"], stats["lse"]  # with in-batch columns it includes the positive
    for name, value in stats.items():
        close(value, same_stats[name])


def test_a_margin_over_own_negatives_and_a_memory(device, backend):
    x, y = torch.randn(2, 6, 5, dtype=torch.float64, device=device)
    own, queue = torch.randn(6, 3, 5, dtype=torch.float64, device=device), queue_for(x)
    loss = MarginRankingLoss(backend=backend)
    both = torch.cat([own, queue.embeddings[:7].expand(6, 7, 5)], 1)
    close(loss(x, y, own, memory=queue), loss(x, y, both))


def test_a_queue_in_low_precision(device, backend):
    """The gradients of the batch's pass and of the queue's pass are added in fp32."""
    x, y = torch.randn(2, 32, 16, device=device).bfloat16()
    queue = queue_for(x)
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    value = LOSSES["nt_xent"](0.2, backend=backend)(*leaves, memory=queue)
    wide = [v.detach().double().requires_grad_() for v in leaves]
    want = LOSSES["nt_xent"](0.2, backend="reference")(*wide, memory=queue_for(x).double())
    assert value.dtype == torch.float32
    assert math.isclose(value.item(), want.item(), rel_tol=1e-5)
    for a, b in zip(gradients(value, *leaves), gradients(want, *wide), strict=True):
        assert (a.double() - b).norm() < 4e-3 * b.norm()


def test_rows_of_a_cross_loss_may_be_few():
    """A single row has no in-batch negatives, only those of the queue."""
    x = torch.randn(1, 3, dtype=torch.float64)
    for name in REMEMBER:
        if issubclass(LOSSES[name], CrossLoss) and name != "siglip":
            loss = LOSSES[name](reduction="sum")
            queue = queue_for(x)
            memory = (queue, queue) if loss.both_sides else queue
            assert loss(x, x, memory=memory).isfinite(), name


def test_own_columns_of_different_numbers(device, backend):
    """A ragged block is one with a mask, without the places that the mask leaves out."""
    n, k, d = 7, 4, 5
    for seed in range(3):
        torch.manual_seed(seed)
        x, tau = (v.requires_grad_() for v in (torch.randn(n, d), torch.rand(n) + 0.5))
        own, weight = torch.randn(n, k, d).requires_grad_(), torch.randn(n, k)
        lengths = torch.randint(0, k + 1, (n,))
        mask = torch.arange(k) < lengths[:, None]
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        shift = torch.randn(n).requires_grad_()
        leaves = [v.to(device).double().detach().requires_grad_() for v in (x, own, tau, shift)]
        x, own, tau, shift = leaves
        mask, offsets, weight = (v.to(device) for v in (mask, offsets, weight.double()))
        blocks = Own(own, mask, weight), Ragged(own[mask], offsets, weight[mask])
        channels = (
            LSE(2.0), SUM("one"), SUM("softplus", shift="shift"), EXPECT(0.5), MAX(), MAX(-1.0)
        )  # fmt: skip
        found = []
        for block in blocks:
            options = {"row_scale": tau, "bias": torch.tensor(0.3, device=device).double()}
            scores = Scores(x, x, scale=1.0, blocks=(block,), backend=backend, **options)
            values = scores.stats(channels, {"shift": shift})
            values = [v.value if hasattr(v, "value") else v for v in values]
            for largest in (True, False):
                top = scores.topk(2, largest=largest)
                values += [torch.where(top.indices < 0, 0.0, top.values), top.indices]
            total = sum(torch.where(v.isfinite(), v, 0.0).square().sum() for v in values)
            found.append([*values, *gradients(total, *leaves)])
            assert torch.equal(torch.as_tensor(block.count(scores)).expand(n), mask.sum(1))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


# ---- negatives that a call brings ----------------------------------------------------------------

BRING = [
    name for name in REMEMBER if "negatives_mask" in signature(LOSSES[name].forward).parameters
]


def drawn(name, n=6, d=5):
    """Inputs of a loss in fp64, and the loss as a function of its leaves."""
    inputs = Subject(LOSSES[name]).inputs(n=n, d=d)
    return [v.requires_grad_() if v.is_floating_point() else v for v in inputs]


def remembered(loss, rows):
    """A queue that holds these rows, or a pair of which the second is empty."""
    queues = [EmbeddingQueue(4, rows.shape[1], labels=True, dtype=rows.dtype) for _ in "xy"]
    queues[0].enqueue(rows, torch.arange(70, 70 + len(rows)))
    return tuple(queues) if loss.both_sides else queues[0]


@pytest.mark.parametrize("name", BRING)
def test_negatives_in_all_their_forms(name, backend):
    """Shared by all rows, of each row, masked, with offsets: as if they were in a queue."""
    loss = LOSSES[name](return_stats=True, backend=backend)
    inputs = drawn(name)
    n, k, leaves = 6, 4, [v for v in inputs if v.requires_grad]
    extra = torch.randn(k, 5, dtype=torch.float64)
    want, stats = loss(*inputs, memory=remembered(loss, extra))
    wanted = gradients(want, *leaves)
    own = extra.expand(n, k, 5)
    junk = torch.randn(n, 2, 5, dtype=torch.float64)
    mask = torch.tensor([False, True, True, True, False, True])
    shuffled = torch.cat([junk[0, :1], extra[:3], junk[0, 1:], extra[3:]])
    each = torch.cat([junk[:, :1], own[:, :3], junk[:, 1:], own[:, 3:]], 1)
    offsets = torch.arange(0, n * k + 1, k)
    for negatives, more in (
        (extra, {}),
        (own, {}),
        (shuffled, {"negatives_mask": mask}),
        (each, {"negatives_mask": mask.expand(n, 6)}),
        (own.flatten(0, 1), {"negatives_offsets": offsets}),
    ):
        given = negatives.clone().requires_grad_()
        value, found = loss(*inputs, negatives=given, **more)
        close(value, want)
        for key, statistic in found.items():
            close(statistic, stats[key])
        *grads, own_grad = gradients(value, *leaves, given)
        for a, b in zip(grads, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
        along = torch.randn_like(given)
        with torch.no_grad():
            ends = [
                loss(*inputs, negatives=negatives + step * along, **more)[0]
                for step in (1e-5, -1e-5)
            ]
        if not loss.stops_gradients:
            slope = (own_grad * along).sum()
            torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", BRING)
def test_views_with_negatives_of_their_own(name, backend):
    """Each of several views meets its instance's negatives."""
    if LOSSES[name].positional[0] != "z":
        return
    torch.manual_seed(0)
    z = torch.randn(5, 2, 4, dtype=torch.float64)
    labels, lengths = torch.arange(5) % 2, torch.tensor([2, 0, 3, 1, 2])
    own = torch.randn(5, 3, 4, dtype=torch.float64)
    mask = torch.arange(3) < lengths[:, None]
    loss = LOSSES[name](backend=backend)
    flat = loss(
        z.flatten(0, 1),
        labels.repeat_interleave(2),
        negatives=own.repeat_interleave(2, 0),
        negatives_mask=mask.repeat_interleave(2, 0),
    )
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    close(loss(z, labels, negatives=own, negatives_mask=mask), flat)
    close(loss(z, labels, negatives=own[mask], negatives_offsets=offsets), flat)


@pytest.mark.parametrize("name", ["info_nce", "clip", "siglip"])
def test_in_place_of_the_batch(name, backend):
    x, y = (v.detach() for v in drawn(name))
    own = torch.randn(6, 3, 5, dtype=torch.float64)
    mask = torch.rand(6, 3) < 0.7
    loss = LOSSES[name](in_batch_negatives=False, reduction="none", backend=backend)
    scale, bias = 1 / loss.temperature, getattr(loss, "bias", 0.0)
    reference = {name: x.new_tensor(v) for name, v in (("scale", scale), ("bias", bias))}
    own_options = {field.name for field in fields(loss)} - {f.name for f in fields(PairLoss)}
    own_options -= {"bias", "in_batch_negatives", "gather_negatives"}
    reference |= {option: getattr(loss, option) for option in own_options}
    unit = [normalize(v, dim=-1) for v in (x, y, own)]
    want = loss.reference(*unit, in_batch_negatives=False, negatives_mask=mask, **reference)
    close(loss(x, y, own, negatives_mask=mask), want)


def test_unsigned_numbers(backend):
    """uint8 differences wrap, and torch compares no uint16 with others."""
    x, y = drawn("info_nce")
    own, loss = torch.randn(6, 2, 5, dtype=torch.float64), InfoNCELoss(backend=backend)
    ids, numbers = torch.arange(6), torch.arange(12).view(6, 2) % 6
    want = loss(x, y, own, ids=ids, negatives_ids=numbers)
    flat, offsets = own.flatten(0, 1), torch.arange(0, 13, 2)
    for dtype in (torch.uint8, torch.uint16, torch.int16):
        given = numbers.to(dtype)
        close(loss(x, y, own, ids=ids, negatives_ids=given), want)
        more = {
            "ids": ids,
            "negatives_ids": given.flatten(),
            "negatives_offsets": offsets.to(dtype),
        }
        close(loss(x, y, flat, **more), want)
    bad = torch.tensor([0, 5, 3, 4, 5, 6, 12], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^negatives_offsets: got 0 to 12, steps from -2"):
        loss(x, y, flat, negatives_offsets=bad)


def test_nothing_to_choose_from(backend):
    x, y = drawn("info_nce")
    loss = InfoNCELoss(top_k=2, in_batch_negatives=False, backend=backend)
    assert loss(x, y) == 0


@pytest.mark.parametrize("name", ["info_nce", "clip", "siglip"])
def test_statistics_cover_the_positive(name, backend):
    """However it is said which it is."""
    x, y = drawn(name)
    more, place = torch.randn(3, 5, dtype=torch.float64), torch.arange(6)
    loss = LOSSES[name](in_batch_negatives=False, return_stats=True, backend=backend)
    _, stats = loss(x, y, more)
    _, want = loss(x, y, more, positives=place)
    for key, value in want.items():
        close(stats[key], value)


def test_bad_negatives():
    x, own = torch.randn(4, 3), torch.randn(4, 2, 3)
    loss, offsets = InfoNCELoss(), torch.tensor([0, 2, 4, 6, 8])
    mask = torch.ones(4, 2, dtype=torch.bool)
    for arguments, message in (
        ({"negatives_mask": mask}, "negatives_mask: got a value, expected None without negatives"),
        ({"negatives_offsets": offsets}, "negatives_offsets: got a value, expected None without"),
        (
            {
                "negatives": own.flatten(0, 1),
                "negatives_offsets": offsets,
                "negatives_mask": mask.flatten(),
            },
            "negatives_mask: got a value, expected None with negatives_offsets",
        ),
        (
            {"negatives": own, "negatives_offsets": offsets},
            r"negatives: got shape \(4, 2, 3\),",
        ),
        (
            {"negatives": own, "negatives_mask": mask[0]},
            r"negatives_mask: got shape \(2,\), e",
        ),
        ({"negatives": own, "negatives_mask": mask[:, :1]}, r"negatives_mask: got shape \(4, 1\)"),
        ({"negatives": own[:3]}, r"negatives: got shape \(3, 2, 3\), expected"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            loss(x, x, **arguments)
    flat = own.flatten(0, 1)
    for bad in ([0, 2, 4, 6], [0, 2, 4, 6, 7], [1, 2, 4, 6, 8], [0, 4, 2, 6, 8]):
        with pytest.raises(ValueError, match=r"^negatives_offsets: got .*, expected"):
            loss(x, x, flat, negatives_offsets=torch.tensor(bad))


def test_moco_takes_negatives_beside_its_queue(backend):
    query, key, queue = drawn("moco")
    extra = torch.randn(4, 5, dtype=torch.float64)
    loss = LOSSES["moco"](0.2, reduction="none", backend=backend)
    want = loss(query, key, torch.cat([queue, extra]))
    close(loss(query, key, queue, negatives=extra), want)
    mask = torch.rand(6, 4) < 0.5
    own = loss(query, key, queue, negatives=extra.expand(6, 4, 5), negatives_mask=mask)
    for i in range(6):
        rows = torch.cat([queue, extra[mask[i]]])
        close(own[i], loss(query[i : i + 1], key[i : i + 1], rows)[0])
