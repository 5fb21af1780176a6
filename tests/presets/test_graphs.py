"""Graphs, recommendation, tables: each preset beside the formula of the released code."""

from math import log

import pytest
import torch
from presets.released import agree, draw, labels, trains, unit
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from contrastloss import presets
from contrastloss.losses import ProtoNCELoss


def info_nce(x, y, tau):
    """-mean log(e^(s_ii) / sum_j e^(s_ij))."""
    s = unit(x) @ unit(y).mT / tau
    return -(s.diag().exp() / s.exp().sum(1)).log().mean()


@pytest.mark.parametrize("sizes", [(2, 1, 3), (33, 17, 9)], ids=str)
def test_clan(sizes):
    n, m, d = sizes

    def dense(z, far):
        near = (1 - unit(z) @ unit(z).mT) / 2 * (1 - torch.eye(n))
        hinge = torch.relu(0.5 - (1 - unit(z) @ unit(far).mT) / 2)
        counts = ((v.detach() > 1e-6).sum().clamp_min(1) for v in (near, hinge))
        return sum(0.5 * v.sum() / c for v, c in zip((near, hinge), counts, strict=True))

    z = draw(n, d)
    agree(presets.clan(), dense, z, z[:m] + 0.3 * draw(m, d))


@pytest.mark.parametrize("sizes", [(1, 1, 2), (5, 33, 8)], ids=str)
def test_contrastive_ucb(sizes):
    """Predictions and targets of jumps 0, 1, ...; from a terminal on they do not count, but the
    mean is over all."""
    jumps, batch, d = sizes
    alive = (torch.arange(jumps + 1)[:, None] < torch.arange(batch) % (jumps + 2)).double()

    def dense(p, t):
        squares = (unit(p) - unit(t.detach())).square().sum(-1) * alive
        return 5 * squares[1:].mean(0).mean()

    def mine(p, t):
        return presets.contrastive_ucb()(p[1:], t[1:], weights=alive[1:])

    alive[1] = 1.0
    agree(mine, dense, draw(jumps + 1, batch, d), draw(jumps + 1, batch, d, seed=1))


def test_contrastive_ucb_of_the_paper():
    loss = presets.contrastive_ucb(released=False)
    assert "verified=False" in repr(loss)
    assert "verified" not in repr(presets.contrastive_ucb())
    target = torch.arange(20) % 2

    def dense(phi, psi):
        f = (phi * psi).sum(1)
        return (target * (1 + 1 / f).log() + (1 - target) * (1 + f).log()).mean()

    agree(lambda x, y: loss(x, y, target), dense, draw(20, 5).exp(), draw(20, 5, seed=1).exp())


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("dataset", ["any", "usps", "reut*", "hhar"])
@pytest.mark.parametrize("released", [True, False])
def test_scgc(dataset, released):
    alpha, tau = {"any": (2, 1), "usps": (1, 0.5), "reut*": (0.5, 0.25), "hhar": (1, 2.25)}[dataset]
    n = 37
    edges = (draw(n, n) > 0.8).double() * draw(n, n, seed=1).abs()
    edges = edges + torch.diag(torch.full((n,), 0.5, dtype=torch.float64))
    edges[0, 1] = 1.0

    def dense(z):
        s = unit(z) @ unit(z).mT
        other = 1 - torch.eye(n, dtype=torch.float64)
        if released:
            near, far = edges, torch.ones(n, n, dtype=torch.float64)
            s = s * other
        else:
            near, far = edges * other, other
        mass = (tau * s).exp()
        share = (mass * near).sum(1) / (mass * far).sum(1)
        rows = near.sum(1) > 0
        return -alpha * (share[rows] + (1e-8 if released else 0)).log().mean()

    loss = presets.scgc(dataset=dataset, released=released)
    agree(lambda z: loss(z, edges.to_sparse_csr()), dense, draw(n, 6))


@pytest.mark.parametrize("scale", [1 / 0.07, 250.0])
def test_graphclip(scale):
    made = presets.graphclip()
    assert made["temperature"]().item() == pytest.approx(1 / 0.07)
    made["temperature"].log_scale.data.fill_(torch.tensor(scale).log())
    assert made["temperature"]().item() == pytest.approx(scale, rel=1e-5)

    def dense(g, t, scale):
        s, own = scale * unit(g) @ unit(t).mT, torch.arange(len(g))
        return (cross_entropy(s, own) + cross_entropy(s.mT, own)) / 2

    scale = torch.tensor(scale, dtype=torch.float64)
    x = draw(19, 7)
    agree(lambda x, y, s: made["loss"](x, y, logit_scale=s), dense, x, x + draw(19, 7, seed=1),
          scale)  # fmt: skip


def test_gaugllm_bgrl():
    made = presets.gaugllm()["bgrl"]

    def dense(q1, y2, q2, y1):
        cosines = torch.cosine_similarity(q1, y2.detach()), torch.cosine_similarity(q2, y1.detach())
        return 2 - cosines[0].mean() - cosines[1].mean()

    agree(lambda a, b, c, d: made(a, b) + made(c, d), dense, *draw(4, 21, 5))


@pytest.mark.parametrize("sizes", [(2, 1), (17, 33), (40, 6)], ids=str)
def test_gaugllm_barlow_twins(sizes):
    def dense(a, b):
        a, b = ((z - z.mean(0)) / z.std(0) for z in (a, b))
        c, d = a.mT @ b / len(a), a.shape[1]
        off = ~torch.eye(d, dtype=torch.bool)
        return (1 - c.diag()).square().sum() + c[off].square().sum() / d

    x = draw(*sizes)
    agree(presets.gaugllm()["barlow_twins"], dense, x, x + draw(*sizes, seed=1))


def test_gaugllm_graphcl():
    n, d = 23, 6
    real = torch.cat([torch.ones(n), torch.zeros(n)])

    def dense(z0, z1, za, zb, weight):
        logits = 0
        for view in (za, zb):
            summary = view.mean(0).sigmoid()
            logits = logits + torch.cat([z0 @ weight @ summary, z1 @ weight @ summary])
        return binary_cross_entropy_with_logits(logits, real.double())

    def mine(z0, z1, za, zb, weight):
        summary = (za.mean(0).sigmoid() + zb.mean(0).sigmoid()) @ weight.mT
        return presets.gaugllm()["graphcl"](torch.cat([z0, z1]), summary.expand(2 * n, d), real)

    agree(mine, dense, *draw(4, n, d), draw(d, d))


def test_gaugllm_graphmae():
    def dense(y, x):
        return (1 - (unit(y) * unit(x.detach())).sum(1)).square().mean()

    agree(presets.gaugllm()["graphmae"], dense, *draw(2, 31, 8))


def test_dccf():
    """Three calls for users of one layer."""

    def dense(graph, intents, first, second):
        return 0.1 * sum(info_nce(graph, other, 1.0) for other in (intents, first, second))

    loss = presets.dccf()
    agree(lambda g, *others: sum(loss(g, v) for v in others), dense, *draw(4, 35, 6))


@pytest.mark.parametrize("n", [2, 33])
def test_urlbert(n):
    agree(presets.urlbert(), lambda x, y: nt_xent(x, y, 0.1), *draw(2, n, 7))


def nt_xent(x, y, tau):
    n, z = len(x), unit(torch.cat([x, y]))
    s = (z @ z.mT / tau).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return cross_entropy(s, torch.arange(2 * n).roll(n))


def test_ssl_rec():
    """Beside SELFRec's formula: the authors' code is not public."""
    made = presets.ssl_rec()

    def dense(q, i, first, second):
        return info_nce(q, i, 0.07) + 0.1 * info_nce(first, second, 0.07)

    agree(lambda q, i, a, b: made["softmax"](q, i) + made["views"](a, b), dense, *draw(4, 27, 9))


def clusterings(z, sizes):
    """Centres, clusters and MEOW's densities of fine embeddings."""
    found = []
    for seed, k in enumerate(sizes):
        centres = unit(z)[:k] + 0.1 * draw(k, z.shape[1], seed=seed)
        products, cluster = (unit(z) @ centres.mT).max(1)
        counts = torch.bincount(cluster, minlength=k).double()
        phi = torch.zeros(k, dtype=torch.float64)
        for c in range(k):
            if counts[c] > 1:
                phi[c] = products[cluster == c].sqrt().mean() / (counts[c] + 5).log()
        phi = torch.where(counts > 1, phi, phi.max())
        ends = torch.quantile(phi, torch.tensor([0.1, 0.9], dtype=torch.float64))
        phi = phi.clamp(*ends)
        found.append((centres, cluster, phi / phi.mean()))
    return found


@pytest.mark.parametrize("dataset", ["acm", "dblp", "aminer"])
def test_meow(dataset):
    tau, weight = {"acm": (0.4, 1.0), "dblp": (0.9, 1.0), "aminer": (0.9, 0.1)}[dataset]
    fine = draw(41, 6).abs()  # no row has a negative product with its centre
    parts = clusterings(fine, (4, 9))
    clusters = torch.stack([cluster for _, cluster, _ in parts], 1)

    def dense(coarse, fine):
        s = (unit(coarse) @ unit(fine).mT / tau).exp()
        apart = (clusters[:, None] != clusters).sum(2)
        total = -(s.diag() / (apart * s).mean(1) / len(s)).log().mean()
        for centres, cluster, phi in parts:
            scores = (unit(coarse) @ unit(centres).mT / (tau * phi)).exp()
            own = scores[torch.arange(len(s)), cluster]
            rest = -(own / (scores.mean(1) * len(s))).log().mean()
            # the constant that the preset leaves out
            constant = log(len(s) / len(centres))
            total = total + weight * (rest - constant) / 2
        return total

    made = presets.meow(dataset=dataset)

    def mine(coarse, fine):
        total = made["meow"](coarse, fine, clusters)
        for centres, cluster, _ in parts:
            density = ProtoNCELoss.density(
                unit(fine), centres, cluster, alpha=5.0, by="product", temperature=tau
            )
            total = total + made["prototypes"](coarse, centres, cluster, density=density) / 2
        return total

    agree(mine, dense, draw(41, 6, seed=1), fine)


@pytest.mark.parametrize(("dataset", "tau"), [("acm", 1.0), ("imdb", 0.9)])
def test_ada_meow(dataset, tau):
    def dense(x, y, weight, bias, v, c):
        x, y = unit(x), unit(y)
        hidden = torch.tanh((x[:, None] + y) @ weight.mT + bias)
        masses = torch.sigmoid(hidden @ v + c) * (x @ y.mT / tau).exp()
        return -((x * y).sum(1).div(tau).exp() / masses.sum(1)).log().mean()

    loss = presets.ada_meow(dataset=dataset)
    network = draw(16, 5), draw(16), draw(16, seed=1), draw(1)
    agree(lambda x, y, w, b, v, c: loss(x, y, w, b, v, v_bias=c), dense, *draw(2, 13, 5), *network)
    with pytest.raises(ValueError, match="dataset: got 'cora', expected one of acm, dblp, aminer"):
        presets.meow(dataset="cora")


def test_table_integration_is_a_logit_of_a_cosine():
    target = labels(12, 2)

    def dense(x, y):
        u = torch.cosine_similarity(x, y)
        return (softplus(u) - target * u).mean()

    agree(lambda x, y: presets.table_integration()(x, y, target), dense, *draw(2, 12, 4))


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_graph_trains():
    z, edges = draw(12, 5), torch.eye(12).roll(1, 1).double()
    trains(lambda z: presets.scgc()(z, edges.to_sparse_csr()), z)
    trains(presets.clan(), z, z + 0.2 * draw(12, 5, seed=1))
