"""Several modalities: each preset beside the formula of the released code."""

import itertools

import pytest
import torch
from presets.released import agree, draw, labels, trains, unit
from torch.nn.functional import cross_entropy

from contrastloss import presets


def one_way(x, y, tau, **options):
    return cross_entropy(unit(x) @ unit(y).mT / tau, torch.arange(len(x)), **options)


def clip(x, y, tau, **options):
    return (one_way(x, y, tau, **options) + one_way(y, x, tau, **options)) / 2


def near(count, n, d):
    """Embeddings of several modalities with a common part."""
    return draw(1, n, d) + draw(count, n, d, seed=1)


@pytest.mark.parametrize("n", [2, 33])
def test_cleanclip(n):
    def dense(image, text, image2, text2):
        within = (one_way(image, image2, 0.07) + one_way(text, text2, 0.07)) / 2
        return clip(image, text, 0.07) + within

    agree(presets.cleanclip(), dense, *near(4, n, 6))


@pytest.mark.parametrize("n", [3, 21])
def test_audio_sheet(n):
    made = presets.audio_sheet()

    def pretraining(x, y):
        z = unit(torch.cat([x, y]))
        s = (z @ z.mT / 0.5).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
        return cross_entropy(s, torch.arange(2 * n).roll(n))

    def tuning(x, y):
        s = unit(x) @ unit(y).mT
        hinge = torch.relu(0.6 - s.diag()[:, None] + s)
        return (hinge * (1 - torch.eye(n, dtype=torch.float64))).sum() / (n * (n - 1))

    agree(made["pretraining"], pretraining, *near(2, n, 5))
    agree(made["tuning"], tuning, *near(2, n, 5))


def test_teminal():
    """Beside Test of Time's formula: a cross entropy of products over both orders."""
    loss = presets.teminal()

    def dense(audio, text, audio_back, text_back):
        s = torch.cat([text, text_back]) @ torch.cat([audio, audio_back]).mT
        own = torch.arange(len(s))
        return cross_entropy(s, own) + cross_entropy(s.mT, own)

    def mine(audio, text, audio_back, text_back):
        forward = loss(audio, text, audio_back, text_back)
        return forward + loss(audio_back, text_back, audio, text)

    agree(mine, dense, *near(4, 13, 6))


def test_hicmae():
    def dense(video, audio):
        return 0.0025 * sum(clip(v, a, 0.07) for v, a in zip(video, audio, strict=True))

    agree(presets.hicmae(), dense, *draw(2, 3, 17, 5))


def test_instruct_clip():
    made = presets.instruct_clip()

    def changes(texts, images, scale):
        s, own = scale * unit(texts.detach()) @ unit(images).mT, torch.arange(len(texts))
        return (cross_entropy(s, own) + cross_entropy(s.mT, own)) / 2

    def editor(images, texts):
        return 0.1 * (1 - torch.cosine_similarity(images, texts.detach()).mean())

    scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    agree(lambda t, x, s: made["changes"](t.detach(), x, logit_scale=s), changes, *near(2, 15, 6),
          scale)  # fmt: skip
    agree(made["editor"], editor, *near(2, 15, 6))


def pooled(image, text):
    return unit(0.3 * unit(image) + 0.7 * unit(text))


@pytest.mark.parametrize("n", [5, 33])
def test_clippings(n):
    classes = labels(n, n // 2)
    same = (classes[:, None] == classes) & ~torch.eye(n, dtype=torch.bool)

    def dense(image, text):
        """SupCon, as pytorch-metric-learning has it: a mean over rows with a loss."""
        z = pooled(image, text)
        s = (z @ z.mT / 0.1).masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
        log_p = torch.where(same, s.log_softmax(1), 0.0).sum(1) / same.sum(1).clamp_min(1)
        return -log_p.sum() / same.any(1).sum()

    agree(lambda x, y: presets.clippings()(x, y, classes), dense, *near(2, n, 7))


@pytest.mark.parametrize("n", [5, 33])
def test_clippings_with_margins(n):
    """Distances of all ordered pairs, and means over pairs with a loss, for each kind."""
    classes = labels(n, n // 2)
    same, other = classes[:, None] == classes, ~torch.eye(n, dtype=torch.bool)
    i, j = torch.triu_indices(n, n, 1)

    def dense(image, text):
        z = pooled(image, text)
        far = (z[:, None] - z + torch.eye(n)[..., None]).norm(dim=2)
        total = 0
        for loss, kind in ((far, same & other), (torch.relu(0.5 - far), ~same)):
            active = kind & (loss > 0)
            total = total + torch.where(active, loss, 0.0).sum() / active.sum().clamp_min(1)
        return total

    def mine(image, text):
        z = pooled(image, text)
        return presets.clippings_pairs()(z[i], z[j], same[i, j])

    # close to each other: some different rows are nearer than 0.5
    agree(mine, dense, *(draw(1, n, 7) + 0.3 * draw(2, n, 7, seed=1)))


def test_astrom3():
    def dense(p, s, m):
        return 2 * (clip(p, s, 0.01) + clip(p, m, 0.01) + clip(s, m, 0.01))

    agree(presets.astrom3(), dense, *near(3, 17, 6))


@pytest.mark.parametrize("projections", [True, False])
@pytest.mark.parametrize("released", [True, False])
def test_villa(projections, released):
    images, regions, attributes, d = 9, 4, 5, 6
    counts = 1 + labels(images, regions)
    valid = torch.arange(regions) < counts[:, None]
    shown = labels(images * attributes, 2).view(images, attributes).bool()
    shown[:, 4] = True  # no image lacks it

    def dense(r, a):
        r, a = unit(r), unit(a)
        s = (r * a).sum(-1) if projections else r @ a.mT
        best = torch.stack([s[k, : counts[k]].max(0).values for k in range(images)]) / 0.07
        # the released code multiplies scores of holders by 0
        rest = (best * ~shown).exp()
        rest = (rest if released else rest * ~shown).sum(0)
        loss = -torch.log(best.exp() / (best.exp() + rest))
        return (loss * shown).sum() / shown.sum()

    loss = presets.villa(released=released)["regions"]
    r = draw(images, regions, *([attributes] if projections else []), d)
    agree(lambda r, a: loss(r, a, shown, valid=valid), dense, r, draw(attributes, d))


def test_villa_stage_2():
    def dense(image, text):
        s = unit(image) @ unit(text).mT / 0.07
        rows, cols = s.log_softmax(1).diag(), s.log_softmax(0).diag()
        return -(0.5 * rows.sum() + 0.5 * cols.sum()) / len(s)

    agree(presets.villa()["pairs"], dense, *near(2, 19, 6))


def test_calico_has_two_contrasts():
    """Of the points of two views, whose regions are positives or left out."""
    n = 15
    of_x, of_y = labels(n, 4), labels(n, 4)
    own = torch.eye(n, dtype=torch.bool)

    def dense(x, y):
        s = unit(x) @ unit(y).mT / 0.07
        same = of_x[:, None] == of_y
        regions = -torch.where(same, s.log_softmax(1), 0.0).sum(1) / same.sum(1)
        points = cross_entropy(s.masked_fill(same & ~own, -torch.inf), torch.arange(n))
        return 0.3 * regions.mean() + 0.7 * points

    made = presets.calico(0.3)

    def mine(x, y):
        regions = made["regions"](x, y, x_ids=of_x, y_ids=of_y)
        return regions + made["points"](x, y, ids=of_x)

    agree(mine, dense, *near(2, n, 5))


@pytest.mark.parametrize("lengths", [(5, 40, 17, 33), (33, 33, 33, 33), (40, 16, 1, 48)], ids=str)
@pytest.mark.parametrize("positive", [(1, 1, 0, 1), (0, 1, 0, 0), (1, 1, 1, 1), (0, 0, 0, 0)])
def test_macil_sd(lengths, positive):
    scores_a, scores_v = draw(2, 4, 48)
    loss = presets.macil_sd()

    def nce(query, key, negatives):
        own = (unit(query) * unit(key)).sum(1, keepdim=True)
        logits = torch.cat([own, unit(query) @ unit(negatives).mT], 1) / 0.1
        return cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))

    def dense(audio, visual):
        found = {}
        for side, z, scores in (("a", audio, scores_a), ("v", visual, scores_v)):
            abnormal, background, normal = [], [], []
            for b, length in enumerate(lengths):
                k = length // 16 + 1
                low = scores[b, :length].topk(min(k, length), largest=False).indices
                high = scores[b, :length].topk(min(k, length)).indices
                background.append(z[b, low])
                if positive[b]:
                    abnormal.append(z[b, high].mean(0, keepdim=True).expand(len(high), -1))
                else:
                    normal.append(z[b, high])
            found[side] = [torch.cat(v) if v else z[0, :0] for v in (abnormal, background, normal)]
        (a, a_background, a_normal), (v, v_background, v_normal) = found["a"], found["v"]
        if not len(a) or not len(a_normal):
            return 0.0 * (audio.sum() + visual.sum())
        terms = nce(a, v, v_background), nce(a, v, v_normal), nce(v, a, a_background)
        return 1.5 * (sum(terms) + nce(v, a, a_normal))

    def mine(audio, visual):
        return loss(
            audio, visual, scores_a, scores_v, torch.tensor(positive), torch.tensor(lengths)
        )

    if sum(positive) in (0, 4):
        x = draw(4, 48, 3).requires_grad_()
        value = mine(x, x)
        assert value.item() == 0.0
        assert not torch.autograd.grad(value, x)[0].any()
        return
    agree(mine, dense, *draw(2, 4, 48, 6))


@pytest.mark.parametrize("augmentations", [1, 2])
@pytest.mark.parametrize("smoothing", [0.1, 0.0])
def test_clip_rocket(augmentations, smoothing):
    n, a = 11, augmentations
    made = presets.clip_rocket(a, label_smoothing=smoothing)

    def dense(image, text, images, texts, scale, local_scale):
        whole = 2 * clip(image, text, 1 / scale)
        options = {"label_smoothing": smoothing}
        pairs = list(itertools.product(range(a), range(a)))
        local = sum(2 * clip(images[i], texts[j], 1 / local_scale, **options) for i, j in pairs)
        return (whole + a * local / len(pairs)) / (1 + a)  # the recipe sums both directions

    def mine(image, text, images, texts, scale, local_scale):
        total = made["clip"](image, text, logit_scale=scale)
        for i, j in itertools.product(range(a), range(a)):
            total = total + made["local"](images[i], texts[j], logit_scale=local_scale)
        return total

    scales = [made[k]().double().detach() for k in ("scale", "local_scale")]
    assert [s.item() for s in scales] == pytest.approx([1 / 0.07, 10])
    agree(mine, dense, *near(2, n, 5), *draw(2, a, n, 5), *scales)


def test_clip_rocket_barlip():
    """After an affine BatchNorm; the loss is the mean of one global and four local terms."""
    made, d = presets.clip_rocket()["barlip"], 7

    def term(x, y):
        c = x.mT @ y / len(x)
        squares = (c - torch.eye(d)).square()
        off = ~torch.eye(d, dtype=torch.bool)
        return 0.025 * (squares.diag().sum() + 0.005 * squares[off].sum())

    def every(function, image, text, images, texts):
        pairs = [(image, text), *itertools.product(images, texts)]
        return sum(function(x, y) for x, y in pairs)

    values = *draw(2, 13, d), *draw(2, 2, 13, d)
    agree(lambda *v: every(made, *v), lambda *v: every(term, *v) / 5, *values)


def test_clip_rocket_siamlip():
    made = presets.clip_rocket()["siamlip"]

    def term(p, v):
        return 2 - 2 * (unit(p) * unit(v.detach())).sum(1).mean()

    def every(function, p_image, p_text, v_image, v_text):
        """The global views are the first ones, the local ones those after them."""
        total = function(p_image[0], v_text[0]) + function(p_text[0], v_image[0])
        for i, j in itertools.product((1, 2), (1, 2)):
            total = total + function(p_image[i], v_text[j]) + function(p_text[i], v_image[j])
        return total

    agree(lambda *v: every(made, *v), lambda *v: every(term, *v) / 10, *draw(4, 3, 9, 6))


def test_clip_rocket_swalip():
    made, n = presets.clip_rocket(label_smoothing=0.0)["swalip"], 9
    assert made.temperature == 0.1

    def codes(s):
        q = (s.detach() / 0.05).exp().mT
        q = q / q.sum()
        for _ in range(3):
            q = q / q.sum(1, keepdim=True) / len(q)
            q = q / q.sum(0, keepdim=True) / q.shape[1]
        return (q * q.shape[1]).mT

    def dense(images, texts, scale):
        images, texts = unit(images), unit(texts)
        total = 0
        for a, b in itertools.product((0, 1), (0, 1)):
            for x, y in ((images, texts), (texts, images)):
                target = codes(x[1 - a] @ y[1 - b].mT)
                total = total - (target * (scale * x[a] @ y[b].mT).log_softmax(1)).sum(1).mean() / 2
        return 0.2 * total / 4

    def mine(images, texts, scale):
        made.temperature = 1 / scale
        total = 0
        for x, y in ((images, texts), (texts, images)):
            for a in (0, 1):
                total = total + made(x[0], x[1], y[a], y_prototypes=y[1 - a])
        return total

    agree(mine, dense, *draw(2, 2, n, 5), torch.tensor(12.5, dtype=torch.float64))


def test_modalities_train():
    x, y, z, w = near(4, 12, 5)
    trains(presets.cleanclip(), x, y, z, w)
    trains(presets.clippings(), x, y, labels(12, 4))
