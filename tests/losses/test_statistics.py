"""``return_stats`` of losses whose positives are not those of :class:`CrossLoss` or
:class:`TwoViewLoss`, compared with dense scores."""

import pytest
import torch
from properties import close
from torch.nn.functional import normalize

from contrastloss.losses import LOSSES
from contrastloss.testing import Subject


def scores(x, y):
    return normalize(x) @ normalize(y).mT / 0.3


def apart(x):
    """The scores of rows with other rows."""
    return scores(x, x).fill_diagonal_(-torch.inf)


def aligned(s):
    """Row i's positive is column i."""
    return s, torch.eye(len(s), dtype=torch.bool), s


def equal(rows, cols, s):
    """Positives are pairs of equal labels, without a row itself."""
    return s, (rows[:, None] == cols) & (s > -torch.inf), s


def of_key(query, key, queue, kept=None):
    """Of a query with its key, and the stored negatives."""
    s = scores(query, queue)
    kept = torch.ones_like(s, dtype=torch.bool) if kept is None else kept
    positive = scores(query, key).diag()[:, None]
    return torch.cat([positive, s], 1), torch.arange(1 + s.shape[1])[None] == 0, s, kept


#: the scores with positives, which of them are positives, those with negatives, and which of them
#: are negatives; None: all but the positives
CASES = {
    "bank_contrastive": lambda q, k, bank, a, b: of_key(q, k, bank, a[:, None] == b),
    "clean_clip": lambda x, y, *_: aligned(scores(x, y)),
    "cmim": lambda x, y: aligned(scores(x, y)),
    "cost": lambda q, k, queue, *_: of_key(q, k, queue),
    "cross_supcon": lambda x, y, labels: equal(labels, labels, scores(x, y)),
    "latent_positive": lambda q, k, queue, *_: of_key(q, k, queue),
    "nspt": lambda h, t, labels: (
        scores(h, t),
        (labels[:, None] == labels) & ~torch.eye(len(h), dtype=torch.bool),
        apart(h),
        labels[:, None] != labels,
    ),
    "proto_nce": lambda z, c, a: equal(a, torch.arange(len(c)), scores(z, c)),
    "supremix": lambda z, labels: equal(labels, labels, apart(z)),
    "temporal_clip": lambda x, y, *_: aligned(scores(x, y)),
}


@pytest.mark.parametrize("name", CASES)
def test_statistics_are_those_of_dense_scores(name, backend):
    subject = Subject(LOSSES[name], {}, "cpu", backend)
    loss, inputs = subject.loss(temperature=0.3, return_stats=True), subject.inputs(n=23, d=5)
    # so that some positives are not the nearest
    inputs = [v + v.std() * torch.randn_like(v) if v.is_floating_point() else v for v in inputs]
    near, positive, far, *negative = CASES[name](*inputs)
    positive = positive.expand_as(near)
    negative = negative[0] if negative else ~positive & (far > -torch.inf)
    counted = negative.any(1) if name == "bank_contrastive" else positive.any(1)
    rows = {
        "positive": torch.where(positive, near, 0.0).sum(1) / positive.sum(1),
        "hardest_negative": far.masked_fill(~negative, -torch.inf).amax(1),
        "lse": far.logsumexp(1),
    }
    best = near.masked_fill(~positive, -torch.inf).amax(1)
    rows["accuracy"] = (best > rows["hardest_negative"]).double()
    assert 0 < rows["accuracy"][counted].mean() < 1
    value, stats = loss(*inputs)
    close(value, subject.loss(temperature=0.3)(*inputs))  # more channels may add up otherwise
    for key, want in rows.items():
        close(stats[key], want[counted].mean())
