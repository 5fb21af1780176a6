"""Core-tuning and Hallucinator give the value and the gradients of the released code, which is
written here with whole similarity matrices and soft labels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from contrastloss import presets
from contrastloss.mixing import hallucinated_queries, hard_mixtures

EXACT = {"rtol": 1e-9, "atol": 1e-11}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def gradients_of(value, *leaves):
    return torch.autograd.grad(value, leaves, allow_unused=True)


def same_to_the_last(ours, theirs, *leaves):
    """Value and gradients of both."""
    torch.testing.assert_close(ours, theirs, **EXACT)
    for got, want in zip(gradients_of(ours, *leaves), gradients_of(theirs, *leaves), strict=True):
        torch.testing.assert_close(got, want, **EXACT)


# ---- Core-tuning ---------------------------------------------------------------------------------


def released_rows(z, labels, numbers, classes, least=0.8):
    """Features and soft labels of the batch, of semi-hard negatives and of hard positives."""
    n, soft = len(z), one_hot(labels, classes).to(z.dtype)
    unit = normalize(z.detach())
    cosine, alike = unit @ unit.mT, labels[:, None] == labels
    positive = (cosine * (alike & ~torch.eye(n, dtype=torch.bool))).argmin(1)
    positive = torch.where(positive == 0, torch.arange(n), positive)
    negative = (cosine * ~alike).argmax(1)
    mix, which, share = numbers.unbind(1)
    other, share = which.argsort(), share.clamp_min(least)
    features, targets = [z.detach()], [soft]
    for part, one, two in (
        (share, other, torch.arange(n)),
        (mix, positive, negative),
    ):
        features.append(part[:, None] * z[one] + (1 - part[:, None]) * z[two])
        targets.append(part[:, None] * soft[one] + (1 - part[:, None]) * soft[two])
    return torch.cat(features), torch.cat(targets)


def released_contrast(rows, targets, temperature=0.07):
    """The focal loss in which rows of equal soft labels are positives."""
    n = len(rows)
    unit, own = normalize(rows), torch.eye(n, dtype=torch.bool)
    positive = (targets[:, None] == targets).all(2) & ~own
    log_p = (unit @ unit.mT / temperature).masked_fill(own, -torch.inf).log_softmax(1)
    log_p = log_p.masked_fill(~positive, 0.0)
    return -((1 - log_p.exp()) * log_p).sum() / n / positive.any(1).sum().clamp_min(1)


@pytest.mark.parametrize("n", [2, 5, 33, 65])
@pytest.mark.parametrize("features", ["behind a ReLU", "of any sign", "classes far apart"])
def test_core_tuning_as_released(n, features):
    g = generator(n)
    z, classes = torch.randn(n, 6, generator=g, dtype=torch.float64), 3
    labels = torch.randint(0, classes, (n,), generator=g)
    labels[:2] = torch.tensor([1, 1 if n > 2 else 0])
    if features == "behind a ReLU":
        z = z.relu() + 0.01
    elif features == "classes far apart":  # no similarity with another class is positive
        corners = torch.eye(classes, dtype=torch.float64) - 1 / classes
        z = 0.02 * z + torch.cat([corners, corners], 1)[labels]
    z.requires_grad_()
    numbers = torch.rand(n, 3, generator=g, dtype=torch.float64)
    head = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5)).double()
    classifier = nn.Linear(6, classes, bias=False).double()

    rows, targets = released_rows(z, labels, numbers, classes)
    theirs = 10 * released_contrast(head(rows), targets)
    theirs = theirs + cross_entropy(classifier(rows), targets)

    made = hard_mixtures(z, labels, released=True, numbers=numbers)
    features = torch.cat([z.detach(), made.features])
    ours = presets.core_tuning()(head(features), torch.cat([labels, made.labels]))
    scores = classifier(features)
    share = torch.cat([torch.ones(n, dtype=torch.float64), made.share])
    parts = torch.cat([labels[:, None].expand(n, 2), made.parts])
    of_parts = [cross_entropy(scores, part, reduction="none") for part in parts.unbind(1)]
    ours = ours + (share * of_parts[0] + (1 - share) * of_parts[1]).mean()
    same_to_the_last(ours, theirs, z, *head.parameters(), *classifier.parameters())


def test_mixtures_of_one_pair_of_labels_and_one_share_are_one_class():
    labels = torch.tensor([0, 0, 1, 1, 2])
    numbers = torch.zeros(5, 3, dtype=torch.float64)
    numbers[:, 1] = torch.tensor([0.2, 0.3, 0.0, 0.1, 0.4])  # o: rows 2, 3, 0, 1, 4
    numbers[:, 0] = torch.linspace(0.1, 0.5, 5)
    z = torch.eye(5, dtype=torch.float64)
    made = hard_mixtures(z, labels, released=True, numbers=numbers)
    positive, negative = made.labels[:5].tolist(), made.labels[5:].tolist()
    assert negative[0] == negative[1] > 2  # both are 0.8 of label 1 and 0.2 of label 0
    assert negative[2] == negative[3] not in (negative[0], 0, 1, 2)
    assert negative[4] == 2  # mixed with itself
    mixed = [positive[i] for i, (one, two) in enumerate(made.parts[:5]) if one != two]
    assert len(mixed) == len(set(mixed)) > 0
    assert min(mixed) > 2
    assert not set(mixed) & set(negative)


def test_core_tuning_of_the_paper_divides_by_the_positives():
    assert presets.core_tuning().divisor == "batch"
    assert presets.core_tuning(released=False).divisor == "positives"


# ---- Hallucinator --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 33])
def test_hallucinator_as_released(n):
    g = generator(n)
    query, key = (torch.randn(n, 4, generator=g, dtype=torch.float64) for _ in range(2))
    queue = normalize(torch.randn(19, 4, generator=g, dtype=torch.float64))
    query.requires_grad_()
    network = nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    ).double()
    number = torch.rand(1, generator=g, dtype=torch.float64)

    ratio, k = 0.1 * number, normalize(key)
    second = network(torch.cat([query, (1 + ratio) * query - ratio * k], 1))
    both = normalize(torch.cat([query, second]))
    positive = (both * torch.cat([k, k])).sum(1, keepdim=True)
    logits = torch.cat([positive, both @ queue.mT], 1) / 0.2
    theirs = cross_entropy(logits, torch.zeros(2 * n, dtype=torch.int64))

    made = network(hallucinated_queries(query, key, numbers=number))
    loss = presets.hallucinator()
    ours = loss(torch.cat([query, made]), torch.cat([key, key]), queue)
    same_to_the_last(ours, theirs, query, *network.parameters())
