"""Speech, music, motion and other series: each preset beside the formula of the released code."""

import pytest
import torch
from presets.released import agree, draw, labels, trains, unit
from torch.nn.functional import cross_entropy, max_pool1d

from contrastloss import presets
from contrastloss.mixing import latent_positives


def moco(q, k, queue, tau, same):
    """Cross entropy of the key among the queue; ``same`` maps vectors before products."""
    q, k, queue = map(same, (q, k, queue))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.mT], 1) / tau
    return cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64))


def plain(x):
    return x


@pytest.mark.parametrize("dataset", ["kitti", "waymo"])
def test_ad_l_jepa(dataset):
    """The target is cells of an encoder, constants, and a token in the empty hidden cells."""
    beta = {"kitti": 1, "waymo": 10}[dataset]
    maps, cells, d = 2, 40, 5
    kind = labels(maps * cells, 4).view(maps, cells)  # visible, hidden, empty, empty and hidden

    def spread(z, which):
        found = [z[b][kind[b] == which].var(0) for b in range(maps)]
        return sum(torch.relu(1 / 16 - (v + 1e-4).sqrt()).mean() for v in found) / maps

    def target_of(encoded, token):
        return torch.where((kind == 3)[..., None], token, encoded.detach())

    def dense(prediction, encoded, context, token):
        context, prediction = unit(context), unit(prediction)
        far = 1 - (unit(target_of(encoded, token)) * prediction).sum(-1)
        loss = 0.75 * far[kind == 1].mean() + 0.25 * far[kind == 3].mean()
        return loss + beta * (spread(prediction, 1) + spread(context, 0))

    loss = presets.ad_l_jepa(dataset=dataset)

    def mine(prediction, encoded, context, token):
        occupied, hidden = kind < 2, kind % 2 == 1
        return loss(prediction, target_of(encoded, token), context, occupied, hidden)

    # nearly the same vectors: some standard deviations are below 1/16
    near = torch.ones(maps, cells, d, dtype=torch.float64) + 0.12 * draw(maps, cells, d)
    agree(mine, dense, near, draw(maps, cells, d, seed=1), near.flip(1) + 0.01, draw(d))


def test_sscl_tsf_moco():
    loss = presets.sscl_tsf()["moco"]
    agree(loss, lambda q, k, queue: 0.5 * moco(q, k, queue, 1.0, plain), draw(17, 6),
          draw(17, 6, seed=1), draw(33, 6, seed=2))  # fmt: skip


def between(z1, z2):
    """NT-Xent of products, of two views (..., N, D): the mean over both and all leading items."""
    n, z = z1.shape[-2], torch.cat([z1, z2], -2)
    s = (z @ z.mT).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    own = torch.arange(2 * n).roll(n).expand(s.shape[:-1])
    return cross_entropy(s.flatten(0, -2), own.flatten())


@pytest.mark.parametrize("steps", [1, 5, 8])
@pytest.mark.parametrize("released", [True, False])
def test_sscl_tsf_ts2vec(steps, released):
    alpha = 0.0 if released else 0.5

    def dense(x, y):
        total, levels = 0, 0
        while True:
            total = total + alpha * between(x.movedim(1, 0), y.movedim(1, 0))
            levels += 1
            if x.shape[1] == 1:
                return 0.5 * total / levels
            total = total + (1 - alpha) * between(x, y)
            x, y = (max_pool1d(v.mT, 2).mT for v in (x, y))

    loss = presets.sscl_tsf(released=released)["ts2vec"]
    if steps == 1 and released:  # nothing is left
        assert loss(draw(3, 1, 4), draw(3, 1, 4, seed=1)) == 0
        return
    agree(loss, dense, draw(7, steps, 4), draw(7, steps, 4, seed=1))


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_sscl_tsf_cost(weight):
    """Without the 1e-6 that the released code adds to coefficients."""

    def dense(q, k, queue, x, y):
        x, y = (torch.fft.rfft(unit(v), dim=1).movedim(1, 0) for v in (x, y))
        seasonal = between(x.abs(), y.abs()) + between(x.angle(), y.angle())
        return weight * (moco(q, k, queue, 1.0, unit) + 0.0005 * seasonal / 2)

    loss = presets.sscl_tsf(weight)["cost"]
    agree(loss, dense, *draw(2, 9, 4), draw(21, 4), *draw(2, 9, 7, 3))


@pytest.mark.parametrize("released", [True, False])
def test_w2v_bert(released):
    made = presets.w2v_bert(released=released)
    n, k, groups, entries = 19, 7, 2, 11
    index = torch.cat([torch.arange(n)[:, None], labels(n * k, n + 5).view(n, k)], 1)

    def dense(c, q, logits):
        s = torch.cosine_similarity(c[:, None], q[index], dim=-1) / 0.1
        s = s.masked_fill((index == index[:, :1]) & (torch.arange(k + 1) > 0), -torch.inf)
        contrast = cross_entropy(s, torch.zeros(n, dtype=torch.int64), reduction="sum")
        p = logits.softmax(-1).mean(0)
        entropy = -(p * p.log()).sum(-1)
        size = groups * entries
        diversity = (size - entropy.exp().sum()) / size if released else -entropy.sum() / size
        # a sum over masked steps, and as many times the diversity; the trainer divides by them
        return (contrast + 0.1 * n * diversity) / n

    def mine(c, q, logits):
        return made["contrast"](c, q, index) + made["diversity"](logits.softmax(-1))

    agree(mine, dense, draw(n, 6), draw(n + 5, 6), draw(n, groups, entries))


def arc(k, p, numbers):
    """HaLP's generator, with its own formula of the largest step, for unit k and p."""
    n, count = numbers.shape[:2]
    order = (k @ p.mT).argsort(1)
    nearest = order[:, -1]
    # the rank of the drawn prototype among all but the nearest, by index
    others = torch.stack([torch.arange(len(p))[torch.arange(len(p)) != c] for c in nearest])
    drawn = others.gather(1, (numbers[..., 0] * (len(p) - 1)).long())
    made = torch.zeros(n, count, k.shape[1], dtype=torch.float64)
    for i in range(n):
        for g in range(count):
            mine, own, other = k[i], p[nearest[i]], p[drawn[i, g]]
            ratio = (1 - other @ own) / (mine @ (own - other))
            omega = (other @ mine).acos()
            most = (omega.sin() / (ratio + omega.cos())).atan() / omega
            zero_one = 0.8 * (1 - numbers[i, g, 1])
            t = (1 - zero_one) * most
            made[i, g] = ((1 - t) * omega).sin() * mine + (t * omega).sin() * other
    made = unit(made)
    return made, (made @ p.mT).argmax(-1) == nearest[:, None]


def test_halp():
    loss = presets.halp()
    n, count, d = 15, 6, 4
    prototypes = unit(draw(5, d).abs())  # no angle beyond 90 degrees
    numbers = torch.rand(n, count, 2, generator=torch.Generator().manual_seed(0)).double()

    def dense(q, k, queue):
        k = k.detach()
        made, good = arc(unit(k), prototypes, numbers)
        pull = (torch.einsum("nd,ngd->ng", unit(q), made) / 0.07 * good).sum() / good.sum()
        return moco(q, k, queue.detach(), 0.07, unit) - 2.0 * pull

    def mine(q, k, queue):
        made, good = latent_positives(
            k, prototypes, count, least=0.2, nearest=False, numbers=numbers
        )
        return loss(q, k.detach(), queue.detach(), made, good)

    agree(mine, dense, draw(n, d), draw(n, d, seed=1).abs(), draw(23, d))


@pytest.mark.parametrize("n", [2, 33])
def test_wearable(n):
    """The paper's formula."""
    made = presets.wearable()

    def spread(z):
        z = unit(z)
        far = (z[:, None] - z).norm(dim=2)
        far = far.masked_fill(torch.eye(n, dtype=torch.bool), torch.inf)
        return -(far.amin(1) + 1e-8).log().mean()

    def dense(z1, z2, k1, k2):
        own, k1, k2 = torch.arange(n), k1.detach(), k2.detach()
        first = cross_entropy(unit(z1) @ unit(k2).mT / 0.04, own)
        second = cross_entropy(unit(z2) @ unit(k1).mT / 0.04, own)
        return (first + second) / 2 + 0.1 * (spread(z1) + spread(z2)) / 2

    def mine(z1, z2, k1, k2):
        contrast, koleo = made["contrast"], made["spread"]
        k1, k2 = k1.detach(), k2.detach()
        return contrast(z1, k2) + contrast(z2, k1) + koleo(z1) + koleo(z2)

    agree(mine, dense, *draw(4, n, 5))


@pytest.mark.parametrize("n", [1, 17])
def test_clmr(n):
    def dense(x, y):
        s = unit(torch.cat([x, y])) @ unit(torch.cat([x, y])).mT / 0.5
        s = s.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        return cross_entropy(s, torch.arange(2 * n).roll(n))

    if n == 1:  # no negatives
        assert presets.clmr()(draw(1, 3), draw(1, 3, seed=1)) == 0
        return
    agree(presets.clmr(), dense, *draw(2, n, 6))


def test_selfie():
    """All masked patches of an image are the candidates."""
    n = 9
    index = torch.stack([torch.arange(n).roll(-k) for k in range(n)], 1)

    def dense(u, h):
        return cross_entropy(u @ h.mT, torch.arange(n))

    agree(lambda u, h: presets.selfie()(u, h, index), dense, *draw(2, n, 4))


def test_a_series_trains():
    x, y = draw(2, 6, 8, 4)
    trains(presets.sscl_tsf()["ts2vec"], x, y)
    trains(presets.clmr(), *draw(2, 12, 5))
