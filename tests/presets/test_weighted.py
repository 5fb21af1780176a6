"""SupReMix, CACR, SimLAP and BECLR as their released code computes them."""

import pytest
import torch
from presets.released import agree, draw, trains
from torch.nn.functional import cross_entropy, normalize

from contrastloss import EmbeddingQueue, presets

# ---- SupReMix ------------------------------------------------------------------------------------


def supremix(z, labels, shares, window, tau, separate):
    """All mixtures (N, N^2, D) of the rows, each private to its anchor and constant: of row i and k
    with another label by the share ``shares[i, k]``, and of rows j and k that enclose i's label."""
    n, unit = len(z), normalize(z)
    columns, weights, kinds = [], [], []
    for i in range(n):
        mixed = [
            (shares[i, k] * unit[i] + (1 - shares[i, k]) * unit[k],
             shares[i, k] * labels[i] + (1 - shares[i, k]) * labels[k], 0)
            for k in range(n) if labels[k] != labels[i]
        ]  # fmt: skip
        for j in range(n):
            for k in range(n):
                if labels[i] - window < labels[j] < labels[i] < labels[k] < labels[i] + window:
                    a = (labels[k] - labels[i]) / (labels[k] - labels[j])
                    mixed.append((a * unit[j] + (1 - a) * unit[k], labels[i], 1))
        columns.append(torch.stack([m[0] for m in mixed]).detach())
        weights.append(torch.stack([1 + (m[1] - labels[i]).abs() for m in mixed]))
        kinds.append(torch.tensor([m[2] for m in mixed], dtype=torch.bool))
    total = 0
    for i in range(n):
        batch, mixed = unit @ unit[i] / tau, columns[i] @ unit[i] / tau
        if separate:
            batch, mixed = (s - s.detach().max() for s in (batch, mixed))
        others = torch.arange(n) != i
        scores = torch.cat([batch[others], mixed])
        w = torch.cat([1 + (labels[others] - labels[i]).abs(), weights[i]])
        positive = torch.cat([labels[others] == labels[i], kinds[i]])
        log_p = scores - (w * scores.exp()).sum().log()
        total = total - log_p[positive].mean()
    return total / n


@pytest.mark.parametrize(("n", "dataset"), [(2, "imdb_wiki"), (9, "imdb_wiki"), (7, "sts_b")])
@pytest.mark.parametrize("released", [True, False])
def test_supremix(n, dataset, released, backend):
    z = draw(n, 2, 5)
    labels = torch.randint(0, 8, (n,), generator=torch.Generator().manual_seed(n)).double()
    labels[0], labels[1] = 2.0, 7.0
    window, tau = (5.0, 0.3) if dataset == "imdb_wiki" else (1.0, 0.1)
    labels = labels if dataset == "imdb_wiki" else labels / 4
    loss = presets.supremix(dataset=dataset, released=released, backend=backend)
    assert loss.temperature == tau
    twice = labels.repeat_interleave(2)
    mixtures = loss.mixtures(twice, window=window)
    shares = mixtures.share[:, : 2 * n]

    def dense(z):
        return supremix(z.flatten(0, 1), twice, shares, window, tau, released)

    agree(lambda z: loss(z, labels, mixtures=mixtures), dense, z)


def test_supremix_draws_mixtures():
    labels = torch.randint(0, 9, (40,), generator=torch.Generator().manual_seed(1)).double()
    loss = presets.supremix()
    for a, b in ((2, 8), (8, 2), (5, 5)):
        made = loss.mixtures(labels, negatives=300, positives=30, window=3.0, beta=(a, b))
        own, share = made.first[:, :300], made.share[:, :300]
        assert torch.equal(own, torch.arange(40)[:, None].expand(40, 300))
        assert (labels[made.second[:, :300]] != labels[:, None]).all()
        mean, var = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
        assert abs(share.mean() - mean) < 0.01
        assert abs(share.var() - var) < 0.1 * var
        low, high, there = made.first[:, 300:], made.second[:, 300:], made.first[:, 300:] >= 0
        assert there.any()
        inside = (labels[high] - labels[:, None] < 3) & (labels[:, None] - labels[low] < 3)
        enclosing = (labels[low] < labels[:, None]) & (labels[:, None] < labels[high])
        assert (inside & enclosing)[there].all()
        part = made.share[:, 300:]
        mixed = part * labels[low] + (1 - part) * labels[high]
        torch.testing.assert_close(mixed[there], made.labels[:, 300:][there])
    trains(
        lambda z, y: loss(z, y, mixtures=loss.mixtures(y, negatives=9, positives=5)),
        draw(40, 6), labels,
    )  # fmt: skip


# ---- CACR ----------------------------------------------------------------------------------------


def distances(x, y):
    return (x[:, None] - y).square().sum(2)


def cacr_small(views, t_neg, tau_plus=0.0):
    """Attraction of every view to the other ones, and repulsion of the rows of every pair of them;
    debiasing subtracts the distance of the pair itself."""
    count, n = views.shape[:2]
    views = normalize(views, dim=2)
    attraction, repulsion, pairs = 0, 0, 0
    for v in range(count):
        cost = torch.stack([(views[v] - views[w]).square().sum(1) for w in range(count) if w != v])
        attraction = attraction + (cost * cost.softmax(0)).sum(0).mean() / count
    for v in range(count):
        for w in range(v + 1, count):
            cost = distances(views[v], views[w])[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
            mean = -(cost * (-t_neg * cost).softmax(1)).sum(1)
            if tau_plus:
                own = (views[v] - views[w]).square().sum(1)
                mean = (mean - tau_plus * own) / (1 - tau_plus)
            repulsion, pairs = repulsion + mean.mean(), pairs + 1
    return attraction + repulsion / pairs


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "stl10"])
@pytest.mark.parametrize(("n", "views", "tau_plus"), [(2, 2, 0.0), (9, 5, 0.1), (33, 5, 0.0)])
def test_cacr_of_small_images(dataset, n, views, tau_plus, backend):
    loss = presets.cacr(dataset=dataset, tau_plus=tau_plus, backend=backend)
    t_neg = 1.0 if dataset == "cifar10" else 2.0
    z = draw(n, views, 6)
    agree(loss, lambda z: cacr_small(z.movedim(0, 1), t_neg, tau_plus), z)
    if views == 2:
        agree(loss, lambda x, y: cacr_small(torch.stack([x, y]), t_neg), z[:, 0], z[:, 1])


@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
@pytest.mark.parametrize(("n", "queries", "tau"), [(2, 1, 1.0), (7, 9, 1.0), (33, 3, 0.4)])
def test_cacr_of_imagenet(cost, n, queries, tau, backend):
    """Cross entropies, or costs, of every query, weighted by how far from the key it is."""

    def dense(q, k):
        q, k = normalize(q, dim=2), normalize(k).detach()
        total = 0
        p = ((q - k[:, None]).square().sum(2).detach() / tau).softmax(1)
        for v in range(queries):
            s = q[:, v] @ k.mT
            if cost == "rbf":
                entropy = cross_entropy(s / tau, torch.arange(n), reduction="none")
                total = total + (entropy * p[:, v]).mean() * 2 * tau
            else:
                far = -(1 - s)[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
                repelled = (far * (far / tau).softmax(1).detach()).sum(1)
                total = total + ((1 - s.diag() + repelled) * p[:, v]).sum()
        return total

    loss = presets.cacr(dataset="imagenet", cost=cost, temperature=tau, backend=backend)
    agree(loss, dense, draw(n, queries, 6), draw(n, 6))


@pytest.mark.parametrize(("n", "stored"), [(2, 3), (9, 17), (33, 130)])
def test_cacr_with_shifted_labels(n, stored, backend):
    """Attraction to a momentum encoder's keys, with constant weights, and repulsion from its queue,
    whose distances are constant in the weights, and from the other rows of the view."""
    keys, rows = draw(3, n, 6, seed=1), normalize(draw(stored, 6, seed=2))
    queue = EmbeddingQueue(stored + 2, 6, dtype=torch.float64)
    queue.enqueue(rows)
    losses = presets.cacr(dataset="label_shift", backend=backend)

    def loss(q):
        total = 0
        for v in range(3):
            others = keys[[w for w in range(3) if w != v]].movedim(0, 1)
            total = total + losses["attraction"](q[v], others)
            total = total + losses["repulsion"](q[v], q[v], memory=queue)
        return total / 3

    def dense(q):
        q, k = normalize(q, dim=2), normalize(keys, dim=2)
        total = 0
        for v in range(3):
            cost = torch.stack([(q[v] - k[w]).square().sum(1) for w in range(3) if w != v])
            total = total + (cost * cost.detach().softmax(0)).sum(0).mean()
            far = 2 - 2 * q[v] @ rows.mT
            near = distances(q[v], q[v])[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
            weights = (-2.0 * torch.cat([far.detach(), near], 1)).softmax(1)
            total = total - (torch.cat([far, near], 1) * weights).sum(1).mean()
        return total / 3

    agree(loss, dense, draw(3, n, 6))


def test_cacr_trains():
    trains(presets.cacr(), draw(20, 5, 6))
    trains(presets.cacr(dataset="imagenet"), draw(20, 3, 6), draw(20, 6, seed=1))


# ---- SimLAP --------------------------------------------------------------------------------------


def simlap(z, keys, gate, first, second, key_labels, scale, renormalize):
    if renormalize:
        rows = normalize(z * gate)
        columns = normalize(keys * gate[:, None], dim=2)
        logits = scale * torch.einsum("nd,nmd->nm", rows, columns)
    else:
        logits = scale * (normalize(z) * gate * gate) @ normalize(keys).mT
    own, other = first[:, None] == key_labels, second[:, None] == key_labels
    logits = logits - logits.mean(1, keepdim=True)
    e = logits.exp()
    negative = (e * ~(own | other)).sum(1, keepdim=True)
    return (other * ((e + negative).log() - logits)).sum() / other.sum()


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("scale", ["fixed", "learned"])
@pytest.mark.parametrize(("n", "m", "beta"), [(1, 3, 1.0), (9, 9, 100.0), (33, 130, 0.5)])
def test_simlap(n, m, beta, scale, renormalize):
    z, keys, gate = draw(n, 6), draw(m, 6, seed=1), draw(n, 6, seed=2).sigmoid()
    labels = torch.randint(4, (2, n)), torch.randint(4, (m,))
    labels[1][0] = labels[0][1, 0]
    losses = presets.simlap(beta=beta, scale=scale, renormalize=renormalize)
    learned = scale == "learned"

    def pairs(z, keys, gate, factor):
        more = {"logit_scale": factor} if learned else {}
        return losses["pairs"](z, keys, gate, labels[0].mT, labels[1], **more)

    def dense(z, keys, gate, factor):
        factor = factor if learned else 5.0
        found = simlap(z, keys, gate, *labels[0], labels[1], factor, renormalize)
        return beta / (1 + beta) * found

    agree(pairs, dense, z, keys, gate, torch.tensor(20.0, dtype=torch.float64))
    assert ("scale" in losses) == learned
    assert not learned or abs(losses["scale"]() - 20) < 1e-4
    own = keys[:n] if m >= n else keys.expand(n, 6)
    if n > 1:
        agree(
            losses["instance"],
            lambda q, k: (
                cross_entropy(normalize(q) @ normalize(k).mT / 0.2, torch.arange(n)) / (1 + beta)
            ),
            z,
            own,
        )


# ---- BECLR ---------------------------------------------------------------------------------------


def beclr(p, z, t, stored=None):
    p, z, t = (normalize(v, dim=2) for v in (p, z, t.detach()))
    n = len(p)
    aligned = -((p[:, 0] * t[:, 1]).sum(1).mean() + (p[:, 1] * t[:, 0]).sum(1).mean()) / 2
    rows = torch.cat([z[:, 0], z[:, 1]])
    if stored is None:
        out = rows @ rows.mT * (1 - torch.eye(n, dtype=torch.float64).repeat(2, 2))
        return aligned + 0.1 * (((out / 2).exp().sum(1) - 2) / (2 * n - 2)).mean().log()
    out = rows @ stored.mT
    count = (out <= 0.8).sum()
    out = torch.where(out > 0.8, 0.0, out)
    return aligned + 0.1 * ((out / 2).exp().sum(1) / count).mean().log()


@pytest.mark.parametrize(("n", "stored"), [(2, 0), (9, 0), (33, 0), (1, 3), (9, 130), (33, 7)])
def test_beclr(n, stored, backend):
    loss = presets.beclr(backend=backend)
    memory = draw(stored, 6, seed=9) if stored else None
    inputs = [draw(n, 2, 6, seed=k) for k in range(3)]
    agree(lambda *v: loss(*v, stored=memory), lambda *v: beclr(*v, memory), *inputs)


@pytest.mark.parametrize("clustered", [False, True])
def test_beclr_of_neighbors(clustered, backend):
    """Every row is followed by its nearest embeddings of a memory, of its nearest cluster if that
    is large enough, as further instances."""
    n, k = 7, 3
    inputs = [draw(n, 2, 6, seed=s) for s in range(3)]
    memories = [draw(19, 6, seed=s) for s in range(3, 6)]
    centers, labels = draw(4, 6, seed=6), torch.tensor([0] * 9 + [1] * 7 + [2, 2] + [3])
    how = {"centers": centers, "labels": labels} if clustered else {}
    loss, made = presets.beclr(backend=backend), []

    def enlarged(z, memory):
        parts = [z]
        best = torch.empty(n, 2, k, dtype=torch.int64)
        for i in range(n):
            for v in range(2):
                near = normalize(memory) @ normalize(z[i, v], dim=0)
                c = (normalize(centers) @ normalize(z[i, v], dim=0)).argmax()
                if clustered and (labels == c).sum() >= k:
                    near = near.masked_fill(labels != c, -torch.inf)
                best[i, v] = near.topk(k).indices
        return torch.cat(parts + [memory[best[:, :, j]] for j in range(k)])

    def ours(*tensors):
        made[:] = [
            loss.with_neighbors(z, m, k, **how) for z, m in zip(tensors, memories, strict=True)
        ]
        return loss(*made)

    def dense(*tensors):
        found = [enlarged(z, m) for z, m in zip(tensors, memories, strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(found, made, strict=True))
        return beclr(*found)

    agree(ours, dense, *inputs)
    with pytest.raises(ValueError, match="stored: got 19 embeddings, expected at least k = 20"):
        loss.with_neighbors(inputs[0], memories[0], 20)


def test_beclr_trains():
    trains(presets.beclr(), *[draw(20, 2, 6, seed=k) for k in range(3)])
