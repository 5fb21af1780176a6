"""Sentences and other text: each preset beside the formula of the released code."""

import pytest
import torch
from presets.released import agree, draw, labels, trains, unit
from torch.nn.functional import cross_entropy

from contrastloss import presets


def one_way(x, y, scale):
    return cross_entropy(scale * unit(x) @ unit(y).mT, torch.arange(len(x)))


@pytest.mark.parametrize("n", [2, 33])
@pytest.mark.parametrize(("preset", "scale"), [("dna_esa", 20), ("moe_embed", 20), ("vega", 20)])
def test_one_way_info_nce(preset, scale, n):
    loss = getattr(presets, preset)()
    agree(loss, lambda x, y: one_way(x, y, scale), *draw(2, n, 7))
    assert presets.dna_esa.verified
    assert presets.moe_embed.verified
    assert not presets.vega.verified


@pytest.mark.parametrize("n", [2, 33])
@pytest.mark.parametrize(
    ("preset", "tau"), [(presets.mirror_bert, 0.04), (presets.mirror_bert_words, 0.2)]
)
def test_mirror_bert(preset, tau, n):
    """As pytorch-metric-learning has it: a cross entropy for every ordered positive pair, of that
    pair and all negatives of its anchor."""

    def dense(x, y):
        z = unit(torch.cat([x, y]))
        s, total = z @ z.mT / tau, 0
        for a in range(2 * n):
            p = (a + n) % (2 * n)
            negatives = torch.tensor([j for j in range(2 * n) if j not in (a, p)])
            numbers = torch.cat([s[a, p, None], s[a, negatives]])
            total = total - (numbers - numbers.max()).softmax(0)[0].log()
        return total / (2 * n)

    agree(preset(), dense, *draw(2, n, 6))


@pytest.mark.parametrize("n", [2, 19])
def test_simctg(n):
    """The mean over ordered pairs of different tokens of one sequence."""

    def dense(h):
        s = unit(h) @ unit(h).mT
        own = s.diagonal(dim1=-2, dim2=-1)[..., None]
        hinge = torch.relu(0.5 - own + s) * (1 - torch.eye(n, dtype=torch.float64))
        return hinge.sum() / (len(h) * n * (n - 1))

    h = draw(3, n, 5)
    agree(presets.simctg(), dense, h + 2 * h.mean(1, keepdim=True))


def test_biovil_leaves_out_sections_of_the_same_label():
    """Beside a third party's section matching."""
    n = 21
    ids = labels(n, 6)

    def dense(x, y):
        s, own = unit(x) @ unit(y).mT / 0.5, torch.arange(n)
        same = (ids[:, None] == ids) & (own[:, None] != own)
        s = s.masked_fill(same, -torch.inf)
        return cross_entropy(s, own) + cross_entropy(s.mT, own)

    sections = presets.biovil()["sections"]
    agree(lambda x, y: sections(x, y, ids=ids), dense, *draw(2, n, 8))


def test_debcse_takes_hard_negatives():
    def dense(x, y, far):
        s = torch.cat([unit(x) @ unit(y).mT, unit(x) @ unit(far).mT], 1)
        return cross_entropy(20 * s, torch.arange(len(x)))

    loss = presets.debcse()
    agree(lambda x, y, far: loss(x, y, negatives=far), dense, *draw(3, 15, 6))


def test_text_trains():
    trains(presets.moe_embed(), *draw(2, 12, 5))
    trains(presets.simctg(), draw(2, 6, 5) + 1)
