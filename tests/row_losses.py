"""Losses of rows for ``pair_loss``, and the same from dense scores."""

import torch
from torch.nn.functional import normalize, softplus

from contrastloss.channel import COL, INDEX, LSE, MAX, SUM, differs, row_weight, same
from contrastloss.ops import Part

APART, PAIR = (differs(INDEX),), (same(INDEX),)
POSITIVE = SUM("id", pairs=PAIR)


def _without(s, same_pair):
    return s.masked_fill(same_pair, -torch.inf)


#: channels, parts, and the losses of rows from dense scores, which pairs are positive, and weights
CASES = {
    "softmax": (
        (LSE(pairs=APART), POSITIVE),
        (Part(0, 1, softplus=True),),
        lambda s, own, u: softplus(_without(s, own).logsumexp(1) - s.diag(), threshold=1e9),
    ),
    "both axes": (
        (LSE(pairs=APART), LSE(pairs=APART, axis=COL), POSITIVE),
        (Part(0, 2, 0.5, True), Part(1, 2, 0.5, True)),
        lambda s, own, u: sum(
            softplus(_without(t, own).logsumexp(1) - s.diag(), threshold=1e9) for t in (s, s.mT)
        ) / 2,
    ),
    "sigmoid": (
        (SUM("softplus", pairs=APART), POSITIVE),
        (Part(0), Part(None, 1, softplus=True)),
        lambda s, own, u: softplus(s, threshold=1e9).masked_fill(own, 0.0).sum(1)
        + softplus(-s.diag(), threshold=1e9),
    ),
    "squares": (
        (SUM("square", pairs=APART), POSITIVE, MAX(pairs=APART)),
        (Part(0, weight=0.25), Part(1, weight=-2.0)),
        lambda s, own, u: 0.25 * s.square().masked_fill(own, 0.0).sum(1) - 2 * s.diag(),
    ),
    "hinges": (
        (SUM("relu", sign=-1.0), SUM("relu2", pairs=APART)),
        (Part(0, 1),),
        lambda s, own, u: torch.relu(-s).sum(1)
        - torch.relu(s).square().masked_fill(own, 0.0).sum(1),
    ),
    "weights": (
        (LSE(0.5, weight=(row_weight("u"),)), SUM("focal", axis=COL)),
        (Part(0, weight=2.0), Part(1, weight=-0.1)),
        lambda s, own, u: 2 * ((0.5 * s).logsumexp(1) + u)
        - 0.1 * ((1 - s.exp()) * s).sum(0),
    ),
}  # fmt: skip


def scores(x, y, scale, bias, factor):
    y = x if y is None else y
    return factor[:, None] * scale * normalize(x, dim=1) @ normalize(y, dim=1).mT + bias


def leaves(m, n, d, dtype, only_x, generator):
    x, y = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (m, n))
    factor = 0.5 + torch.rand(m, generator=generator, dtype=torch.float64)
    found = [x, y, torch.tensor(3.0, dtype=torch.float64), torch.tensor(-0.3).double(), factor]
    narrow = [v.to(dtype) if k < 2 or dtype == torch.float64 else v.float()
              for k, v in enumerate(found)]  # fmt: skip
    return [v.clone().requires_grad_(k != 1 or not only_x) for k, v in enumerate(narrow)]


def close(got, expected, tolerance, least=1e-3):
    """Asserts that no error exceeds this share of the largest element."""
    expected = expected.to(torch.float64)
    size = max(expected.abs().max().item(), least)
    assert (got.double() - expected).abs().max().item() <= tolerance * size
