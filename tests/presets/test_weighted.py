"""SupReMix, CACR, SimLAP and BECLR as their released code computes them."""

import pytest
import torch
from presets.released import agree, draw, trains
from torch.nn.functional import normalize

from contrastloss import presets

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
