"""SupContrast's loss, which is in no package: beside its formula on a matrix of scores."""

import pytest
import torch

from compat.agree import agree, leaf
from contrastloss.compat.supcontrast import SupConLoss


def dense(features, labels=None, mask=None, temperature=0.07, mode="all", base=0.07):
    """Every anchor and every other view; the weight of a pair is that of its instances."""
    n, views = features.shape[:2]
    z = features.reshape(n, views, -1)
    weights = mask
    if mask is None:
        labels = torch.arange(n) if labels is None else labels.ravel()
        weights = labels[:, None] == labels
    losses = []
    for view in range(views if mode == "all" else 1):
        for i in range(n):
            scores = torch.einsum("d,nvd->vn", z[i, view], z) / temperature
            own = torch.zeros_like(scores, dtype=torch.bool)
            own[view, i] = True
            log_p = scores - scores.masked_fill(own, -torch.inf).logsumexp((0, 1))
            weight = weights[i].to(z).expand(views, n).masked_fill(own, 0)
            count = weight.sum()
            mean = (weight * log_p).sum() / (count if count >= 1e-6 else 1)
            losses.append(-temperature / base * mean)
    return torch.stack(losses).mean()


SIZES = [
    (2, 1, (3,)),
    (1, 2, (4,)),
    (5, 3, (2, 2)),
    (16, 2, (8,)),
    (33, 2, (5,)),
    (13, 5, (3, 1, 2)),
]


@pytest.mark.parametrize(("n", "views", "shape"), SIZES, ids=str)
@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("by", ["labels", "mask", "instances"])
def test_values(n, views, shape, mode, by):
    features = leaf(n, views, *shape, scale=0.3)
    given = {}
    if by == "labels":
        given["labels"] = torch.randint(max(n // 3, 1), (n, 1))
    elif by == "mask":  # not symmetric, with weights, and rows without positives
        given["mask"] = torch.rand(n, n) * (torch.rand(n, n) < 0.4)
    for temperature, base in ((0.07, 0.07), (0.5, 0.1)):
        loss = SupConLoss(temperature=temperature, contrast_mode=mode, base_temperature=base)
        options = {"temperature": temperature, "base": base, "mode": mode}
        want = lambda f, o=options, **g: dense(f, **g, **o)  # noqa: E731
        agree(loss, want, [features], [features], **given)


def test_labels_may_be_floats():
    features = leaf(4, 2, 3)
    labels = torch.tensor([0.1, 0.2, 0.1, 1e9])
    agree(SupConLoss(), dense, [features], [features], labels=labels)


BAD = {
    "features: got 2 dimensions, expected 3 or more": ((2, 3), {}),
    "labels, mask: got both": ((2, 2, 3), {"labels": torch.zeros(2), "mask": torch.ones(2, 2)}),
    "labels: got 3, expected one for each of 2": ((2, 2, 3), {"labels": torch.zeros(3)}),
    r"mask: got shape \(2,\), expected \(2, 2\)": ((2, 2, 3), {"mask": torch.ones(2)}),
}


@pytest.mark.parametrize("message", BAD)
def test_errors(message):
    shape, given = BAD[message]
    with pytest.raises(ValueError, match=message):
        SupConLoss()(torch.ones(shape), **given)


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="contrast_mode: got 'two', expected 'one' or 'all'"):
        SupConLoss(contrast_mode="two")(torch.ones(2, 2, 3))
