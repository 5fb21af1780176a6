"""The presets for images give the values and the gradients of the released code, which is written
here with whole matrices."""

import itertools
import math

import pytest
import torch
from presets.released import agree, draw, trains
from torch.nn.functional import cross_entropy, normalize

from contrastloss import LogitScale, presets

SIZES = [2, 5, 33]
sized = pytest.mark.parametrize("n", SIZES)


def unit(x):
    return normalize(x, dim=-1)


def drawn(*shape, seed=0):
    """Two views."""
    x, noise = draw(*shape, seed=seed), draw(*shape, seed=seed + 1)
    return x, x + 0.7 * noise


def aligned(scores):
    return cross_entropy(scores, torch.arange(len(scores)))


def nt_xent(x, y, tau):
    """Rows of both views against all other rows; the mean."""
    z = unit(torch.cat([x, y]))
    scores = (z @ z.mT / tau).fill_diagonal_(-torch.inf)
    return cross_entropy(scores, torch.arange(len(z)).roll(len(x)))


# ---- views of instances --------------------------------------------------------------------------


@sized
def test_scatsimclr(n):
    agree(presets.scatsimclr(), lambda x, y: nt_xent(x, y, 0.5), *drawn(n, 6))


@sized
def test_mlvgm(n):
    loss, scale = presets.mlvgm(), 0.1 / 0.07
    for name, sign in (("estimator", 1), ("navigator", -1), ("simclr", 1)):
        agree(loss[name], lambda x, y, s=sign: s * scale * nt_xent(x, y, 0.1), *drawn(n, 6))
    p, q = drawn(n, 6, seed=3)

    def cosines(p, t):
        return (unit(p) * unit(t.detach())).sum(1)

    agree(
        lambda p, q, s, t: loss["byol"](p, s) + loss["byol"](q, t),
        lambda p, q, s, t: (2 - 2 * cosines(p, s) + 2 - 2 * cosines(q, t)).mean(),
        *(p, q, *drawn(n, 6, seed=5)),
    )
    agree(
        lambda p, q, s, t: (loss["simsiam"](p, s) + loss["simsiam"](q, t)) / 2 - 1,
        lambda p, q, s, t: -(cosines(p, s).mean() + cosines(q, t).mean()) * 0.5,
        *(p, q, *drawn(n, 6, seed=5)),
    )


@pytest.mark.parametrize(("b", "n"), [(1, 2), (3, 5), (2, 33)])
def test_point_cmae(b, n):
    x, y = drawn(b, n, 6)
    masked = torch.rand(b, n, generator=torch.Generator().manual_seed(n)) < 0.6
    masked[0, 0] = True

    def released(x, y):
        apart = 1 - unit(x) @ unit(y).mT
        return apart[masked].mean()  # every masked token with all tokens of its cloud

    def paper(x, y):
        return (1 - (unit(x) * unit(y)).sum(-1))[masked].mean()

    agree(lambda x, y: presets.point_cmae()(x, y, weights=masked), released, x, y)
    agree(lambda x, y: presets.point_cmae(released=False)(x, y, weights=masked), paper, x, y)


@sized
@pytest.mark.parametrize(
    ("loss", "tau"),
    [
        (presets.cm_unet(), 0.07),
        (presets.genview(), 0.2),
        (presets.genview(backbone="resnet50"), 1.0),
    ],
)
def test_moco_v3_has_constant_keys(n, loss, tau):
    def released(x, y):
        return 2 * tau * aligned(unit(x) @ unit(y).mT.detach() / tau)

    agree(loss, released, *drawn(n, 6))
    agree(lambda x, y: loss(x, y=y), released, *drawn(n, 6))


@sized
def test_genview_weighs_rows_and_adds_both_directions(n):
    loss, quality = presets.genview(), draw(n, seed=9)
    weight = n * quality.softmax(0)

    def released(q1, q2, k1, k2):
        total = 0.0
        for q, k in ((q1, k2), (q2, k1)):
            scores = unit(q) @ unit(k.detach()).mT / 0.2
            each = cross_entropy(scores, torch.arange(n), reduction="none")
            total = total + 0.4 * (weight * each).mean()
        return total

    agree(
        lambda q1, q2, k1, k2: loss(q1, k2, row_weight=weight) + loss(q2, k1, row_weight=weight),
        released,
        *(*drawn(n, 6), *drawn(n, 6, seed=4)),
    )


def test_genview_names_its_backbones():
    with pytest.raises(ValueError, match="backbone: got 'vgg', expected one of vit, resnet50"):
        presets.genview(backbone="vgg")
    assert presets.genview(temperature=0.5).loss_weight == 1.0


# ---- sorting -------------------------------------------------------------------------------------


def permuted(scores):
    """Matrices (N, K, K) of an odd-even network with Cauchy's distribution: the mass of each
    candidate at each rank."""
    n, size = scores.shape
    whole = torch.eye(size, dtype=scores.dtype).expand(n, size, size)
    for layer in range(size):
        step = torch.eye(size, dtype=scores.dtype).repeat(n, 1, 1)
        for i in range(layer % 2, size - 1, 2):
            stay = torch.atan(scores[:, i + 1] - scores[:, i]) / math.pi + 0.5
            step[:, i, i] = step[:, i + 1, i + 1] = stay
            step[:, i, i + 1] = step[:, i + 1, i] = 1 - stay
        scores = torch.einsum("nk,nkl->nl", scores, step)
        whole = whole @ step
    return whole


@pytest.mark.parametrize(("views", "large", "n"), [(2, 2, 11), (4, 4, 13), (4, 2, 12)])
def test_groco(views, large, n):
    def released(z):
        z, total = unit(z), 0.0
        for v in range(views):
            others = [o for o in range(large) if o != v]
            positive = torch.stack([(z[v] * z[o].detach()).sum(1) for o in others], 1)
            negative = (z[v] @ z[v].detach().mT).fill_diagonal_(-torch.inf).topk(10, 1).values
            ranked = torch.cat([negative.flip(1), positive.sort(1).values], 1)
            mass = permuted(ranked)[:, :, 10:].sum(2).clamp(0, 1)
            target = (torch.arange(ranked.shape[1]) >= 10).double().expand_as(mass)
            of_both = [(mass, target), (1 - mass, 1 - target)]  # positive, and negative ranks
            bce = torch.nn.functional.binary_cross_entropy
            total = total + sum(bce(p, t) for p, t in of_both) / 2
        return total / views

    options = {} if large == views else {"positive_views": large}
    agree(presets.groco(**options), released, draw(views, n, 6))


# ---- several views -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "views"), [(2, 2), (5, 3), (33, 4)])
@pytest.mark.parametrize(("dataset", "tau"), [("cifar10", 0.5), ("imagenet1k", 0.1)])
def test_multi_view_losses(n, views, dataset, tau):
    def kernel(z):
        z = unit(z)
        return (torch.einsum("ild,jmd->iljm", z, z) / tau).exp()

    def info_nce(z):
        self = torch.eye(n * views, dtype=torch.bool).view(n, views, n, views)
        k = kernel(z).masked_fill(self, 0.0)
        own = k[torch.arange(n), :, torch.arange(n)].sum((1, 2))
        return -(own / k.sum((1, 2, 3))).log().mean()

    def dhel(z):
        k, total = kernel(z), 0.0
        for view in range(views):
            total = total + k[:, view, :, view].clone().fill_diagonal_(0).sum(1).log()
        pairs = itertools.combinations(range(views), 2)
        near = sum(k[torch.arange(n), a, torch.arange(n), b] for a, b in pairs)
        return (total - near.log()).mean()

    z = draw(n, 1, 6) + 0.7 * draw(n, views, 6, seed=7)
    agree(presets.mv_info_nce(dataset=dataset), info_nce, z)
    agree(presets.mv_dhel(dataset=dataset), dhel, z)


def test_multi_view_info_nce_of_the_paper_has_no_pairs_of_one_view():
    assert presets.mv_info_nce().same_view
    assert not presets.mv_info_nce(released=False).same_view


@sized
@pytest.mark.parametrize("weighted", [False, True])
def test_dcl(n, weighted):
    def one_way(x, y):
        near = (x * y).sum(1)
        positive = -near / 0.1
        if weighted:
            positive = positive * (2 - n * (near / 0.5).softmax(0))
        own = torch.eye(n, dtype=torch.bool).repeat(1, 2)
        away = torch.cat([x @ x.mT, x @ y.mT], 1) / 0.1
        return (positive + away.masked_fill(own, -torch.inf).logsumexp(1)).mean()

    def released(x, y):
        x, y = unit(x), unit(y)
        return one_way(x, y) + one_way(y, x)

    agree((presets.dclw if weighted else presets.dcl)(), released, *drawn(n, 6))


# ---- labels, clusters, teachers ------------------------------------------------------------------


@sized
def test_projection_head(n):
    labels = torch.arange(n) // 2 % 3 if n > 2 else torch.zeros(2, dtype=torch.int64)
    labels = torch.cat([labels, labels])  # everybody has a positive

    def experiments(z):
        z, same = unit(z), (labels[:, None] == labels).fill_diagonal_(False)
        scores = (z @ z.mT / 0.5).fill_diagonal_(-torch.inf)
        mean = scores.masked_fill(~same, 0.0).sum(1) / same.sum(1)
        return (scores.logsumexp(1) - mean).mean()

    def theory(x, y):
        products, n = x @ y.mT, len(x)
        away = products.square().fill_diagonal_(0).sum() / (n * (n - 1))
        return away - 2 * products.diagonal().mean()

    agree(lambda z: presets.projection_head()(z, labels), experiments, draw(2 * n, 6))
    agree(presets.projection_head(released=False), theory, *drawn(n, 6))


@sized
def test_softcon(n):
    marks = torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) < 0.4
    marks[:, 0] |= ~marks.any(1)

    def dense(x, k):
        alike = unit(marks.double()) @ unit(marks.double()).mT
        log_p = (unit(x) @ unit(k.detach()).mT / 0.07).log_softmax(1)
        soft = -(alike / alike.sum(1, keepdim=True) * log_p).sum(1)
        return (soft - log_p.diagonal()).mean()

    agree(lambda x, k: presets.softcon()(x, k.detach(), marks, marks), dense, *drawn(n, 6))


@sized
def test_g_simclr(n):
    """With batches of different clusters, as released: the mean over both views."""
    clusters = torch.arange(n).flip(0)
    loss = presets.g_simclr()
    agree(lambda x, y: loss(x, y, clusters), lambda x, y: nt_xent(x, y, 0.1), *drawn(n, 6))


@pytest.mark.parametrize("n", [3, 6, 33])
def test_imaginet(n):
    synthetic = torch.arange(n) % 3 != 1
    model = torch.where(synthetic, torch.arange(n) % 2, -1)

    def selfcon(z, labels):
        z, labels = unit(z.transpose(0, 1).flatten(0, 1)), labels.repeat(z.shape[1])
        same = (labels[:, None] == labels).fill_diagonal_(False)
        log_p = (z @ z.mT / 0.07).fill_diagonal_(-torch.inf).log_softmax(1)
        return -(log_p.masked_fill(~same, 0.0).sum(1) / same.sum(1)).mean()

    def released(z):
        return selfcon(z, synthetic.long()) + selfcon(z[synthetic], model[synthetic])

    labels = torch.stack([synthetic.long(), model], 1)
    agree(lambda z: presets.imaginet()(z, labels), released, draw(n, 2, 6))


@sized
@pytest.mark.parametrize("tau", [0.01, 0.008])
def test_alice(n, tau):
    loss = presets.alice(teacher_temperature=tau)

    def distilled(student, teacher, center):
        p = ((teacher - center) / tau).softmax(-1).detach()
        return -(p * (student / 0.1).log_softmax(-1)).sum(-1).mean()

    c, d, m = draw(7, 6), draw(7, 6, seed=1), 0.1 * draw(7, seed=2)

    def image(s1, s2, t1, t2, c):
        crossed = ((s1, t2), (s2, t1))
        return sum(distilled(unit(s) @ unit(c).mT, unit(t) @ unit(d).mT, m) for s, t in crossed) / 2

    def ours(s1, s2, t1, t2, c):
        students, teachers = torch.cat([s1, s2]), torch.cat([t2, t1])
        return loss["image"](students, teachers, c, teacher_prototypes=d, center=m)

    agree(ours, image, *drawn(n, 6), *drawn(n, 6, seed=4), c)
    eye, middle = torch.eye(6, dtype=torch.float64), 0.1 * draw(6, seed=8)
    agree(
        lambda s, t: loss["patches"](s.flatten(0, 1), t.flatten(0, 1), eye, center=middle),
        lambda s, t: (distilled(s[0], t[0], middle) + distilled(s[1], t[1], middle)) / 2,
        *(draw(2, n, 6), 0.2 * draw(2, n, 6, seed=1)),
    )


@sized
def test_mcl_is_clip_with_a_learnt_scale(n):
    loss, temperature = presets.mcl(), LogitScale(0.07).double()
    cluster = torch.full((n,), 4)  # a batch is of one cluster

    def released(x, y, log_scale):
        scores = log_scale.exp() * unit(x) @ unit(y).mT
        return (aligned(scores) + aligned(scores.mT)) / 2

    def ours(x, y, log_scale):
        return loss(x, y, cluster, logit_scale=log_scale.exp())

    agree(ours, released, *drawn(n, 6), temperature.log_scale.detach().sum())
    x, y = drawn(n, 6)
    assert loss(x, y, cluster).item() == pytest.approx(
        loss(x, y, cluster, logit_scale=temperature()).item()
    )


def mean_exp(z, tau=0.5):
    """The log of the mean of e^(-|z_i - z_j|^2 / 2 tau) over pairs i < j."""
    i, j = torch.triu_indices(len(z), len(z), 1)
    return torch.exp(-(z[i] - z[j]).square().sum(1) / (2 * tau)).mean().log()


def near(x, y, tau=0.5):
    return (x - y).square().sum(1).mean() / (2 * tau)


def joint(c, s):
    apart = (c[:, None] - c).square().sum(2) + (s[:, None] - s).square().sum(2)
    return torch.exp(-apart).mean(1).log().mean()


@pytest.mark.parametrize("n", [5, 33])
@pytest.mark.parametrize(
    ("dataset", "salient", "background"),
    [
        ("cifar_mnist", 1000, 1000),
        ("celeba", 1000, 1000),
        ("chexpert", 1, 10),
        ("odir", 1, 100),
    ],
)
def test_sepclr(n, dataset, salient, background):
    target = torch.arange(n) % 2 == 0

    def released(c1, c2, s1, s2):
        c1, c2 = unit(c1), unit(c2)
        t1, t2 = (s * target[:, None] for s in (s1, s2))
        common = near(c1, c2) + 2 * (mean_exp(c1) + mean_exp(c2)) / 2
        own = near(s1[target], s2[target]) + 2 * (mean_exp(t1) + mean_exp(t2)) / 2
        rest = (near(0 * s1[~target], s1[~target]) + near(0 * s2[~target], s2[~target])) / 2
        both = (joint(c1, t1) + joint(c2, t2)) / 2
        return common + salient * own + background * rest + 10 * both

    loss = presets.sepclr(dataset=dataset)
    agree(lambda *v: loss(*v, target), released, *drawn(n, 4), *drawn(n, 3, seed=4))


@pytest.mark.parametrize("n", [6, 33])
def test_sepclr_dsprites(n):
    target, loss = torch.arange(n) % 3 != 0, presets.sepclr_dsprites()
    y = draw(n, 5, seed=6)
    y[:, 0] = torch.arange(n) % 2

    def supervised(s, y, variance):
        i, j = torch.triu_indices(len(s), len(s), 1)
        weight = torch.exp(-(y[i] - y[j]).square() / variance)
        return (weight * (s[i] - s[j]).square()).mean()

    def released(c1, c2, s):
        c1, c2, t = unit(c1), unit(c2), s * target[:, None]
        total = 0.0
        for k in range(5):
            column, tau = s[:, k : k + 1], 0.5 if k == 0 else 0.025
            pull = supervised(s[target, k], y[target, k], 1e-5 if k == 0 else 2 * 0.025)
            rest = near(0 * column[~target], column[~target], tau)
            total = total + mean_exp(t[:, k : k + 1]) + (pull + rest) / 2
        common = near(c1, c2) + (mean_exp(c1) + mean_exp(c2)) / 2
        return common + 100 * total / 5 + 10 * joint(c1, t)

    def ours(c1, c2, s):
        total = loss["common"](c1, c2, s, s, target) + loss["joint"](c1, c1, s, s, target)
        for k in range(5):
            column = s[:, k : k + 1]
            term = loss["shape" if k == 0 else "attribute"]
            total = total + term(c1, c1, column, column, target, y[:, k])
        return total

    agree(ours, released, *drawn(n, 4), draw(n, 5, seed=3))


# ---- training ------------------------------------------------------------------------------------


def test_sepclr_trains():
    target = torch.arange(33) % 2 == 0
    loss = presets.sepclr(dataset="chexpert")
    trains(lambda *v: loss(*v, target), *drawn(33, 4), *drawn(33, 3, seed=4))


def test_genview_trains():
    trains(presets.genview(), *drawn(33, 6))
