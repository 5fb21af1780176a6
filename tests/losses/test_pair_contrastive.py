from math import exp, log1p, sqrt

import pytest
import torch
from properties import E1, close, every_check, gradients, tensor

from contrastloss import PairContrastiveLoss
from contrastloss.functional import pair_contrastive
from contrastloss.testing import CHECKS, Subject


def pairs(n, d, generator):
    x, noise = torch.randn(2, n, 5, generator=generator).double()
    target = torch.arange(n) % 2
    return [x, x * target[:, None] + noise, target]


MARGIN = {"margin": 1.2, "positive_margin": 0.1}


@every_check
def test_properties(check, device):
    check(Subject(PairContrastiveLoss, MARGIN, device, thorough=False, make=pairs))


@pytest.mark.parametrize(
    "options",
    [
        {"distance": "euclidean", "margin": 3.0, "squared": False},
        {"variant": "bce", "temperature": 0.2, "bias": -1.0},
        {"variant": "bce", "normalize": False},
        {"variant": "ratio", "normalize": False},
    ],
    ids=str,
)
def test_other_forms(options, device):
    CHECKS[0](Subject(PairContrastiveLoss, options, device, make=pairs))


# distances 1 and 1 - sqrt(1/2), each for a similar and a dissimilar pair
X, Y = (E1, E1), ([0, 2], [3, 3])


def test_by_hand(device):
    x, y = tensor(*X, device=device), tensor(*Y, device=device)
    near, far = 1.0, 1 - sqrt(0.5)
    none = {"reduction": "none"}
    for dtype in (torch.bool, torch.int64, torch.float64):
        target = torch.tensor([1, 0], device=device).to(dtype)
        close(pair_contrastive(x, y, target, **none), [near**2, (0.5 - far) ** 2])
        close(pair_contrastive(x, y, 1 - target.double(), **none), [0.0, far**2])
    own = {"positive_margin": 0.25, "margin": 2.0, "squared": False}
    close(pair_contrastive(x, y, target, **own, **none), [near - 0.25, 2 - far])
    # Euclidean: sqrt(5) and sqrt(13)
    far = {"distance": "euclidean", "margin": 4.0}
    close(pair_contrastive(x, y, target, **far), (5 + (4 - sqrt(13)) ** 2) / 2)
    # logits 0 and sqrt(2)
    bce = {"variant": "bce", "temperature": 0.5}
    close(pair_contrastive(x, y, target, **bce, **none), [log1p(1), log1p(exp(sqrt(2)))])
    soft = tensor(0.25, 0.5, device=device)
    want = [log1p(1), 0.5 * log1p(exp(sqrt(2))) + 0.5 * log1p(exp(-sqrt(2)))]
    close(pair_contrastive(x, y, soft, **bce, **none), want)
    # dot products 0 and 3
    product = {"variant": "bce", "bias": 1.0, "normalize": False}
    close(pair_contrastive(x, y, target, **product, **none), [log1p(exp(-1)), log1p(exp(4))])


def test_ratio_by_hand(device):
    x, y = tensor([1, 2], [1, 0], device=device), tensor([1, 1], [0.5, 3], device=device)
    ratio = {"variant": "ratio", "normalize": False, "reduction": "none"}
    target = torch.tensor([1, 0], device=device)
    close(pair_contrastive(x, y, target, **ratio), [log1p(1 / 3), log1p(0.5)])
    # a ratio has to be positive: one that is not is as small as it can be
    assert pair_contrastive(x, -y, target, **ratio)[0] > 700
    assert pair_contrastive(x, -y, target, **ratio)[1] == 0


def test_mean_over_active_pairs_of_each_kind(device):
    """Of four similar pairs two have a loss, of three dissimilar ones one has."""
    x = tensor([1, 0], [1, 0], [0, 1], [3, 0], [1, 0], [1, 0], [5, 0], device=device)
    y = tensor([1, 0], [2, 0], [0, 1], [0, 0], [1.25, 0], [9, 0], [0, 0], device=device)
    target = torch.tensor([1, 1, 1, 1, 0, 0, 0], device=device)
    own = {"distance": "euclidean", "squared": False, "margin": 0.5, "mean_over": "active"}
    close(pair_contrastive(x, y, target, **own), (1 + 3) / 2 + 0.25)
    close(pair_contrastive(x, y, 0 * target, **own), (0.5 + 0.5 + 0.25) / 3)
    close(pair_contrastive(x[:3:2], y[:3:2], target[:2], **own), 0.0)
    close(pair_contrastive(x, y, target, reduction="sum", **own), 4.25)


def test_temperature_and_bias_are_learnable(device):
    tau, bias = (torch.nn.Parameter(tensor(v, device=device)[0]) for v in (0.5, 0.0))
    x, y = tensor(*X, device=device), tensor(*Y, device=device)
    loss = PairContrastiveLoss("bce", temperature=tau, bias=bias)
    assert {name for name, _ in loss.named_parameters()} == {"temperature", "bias"}
    value = loss(x[:1], y[:1], torch.ones(1, device=device))
    close(gradients(value, bias)[0], -0.5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_equal_and_zero_vectors_and_none(distance, device):
    x = tensor([0, 0], [1, 2], device=device, grad=True)
    y = tensor([0, 0], [1, 2], device=device, grad=True)
    for t in (0, 1):
        target = torch.full((2,), t, device=device)
        value = pair_contrastive(x, y, target, distance=distance)
        assert all(g.isfinite().all() for g in gradients(value, x, y))
    assert pair_contrastive(x[:0], y[:0], target[:0], distance=distance).item() == 0.0


@pytest.mark.parametrize("margins", [(0.0, 0.5), (0.2, 1.5)])
def test_matches_pytorch_metric_learning(margins, device):
    """Losses per pair, since its mean is over the pairs with an active hinge."""
    from pytorch_metric_learning import distances, losses, reducers

    near, far = margins
    distance = distances.LpDistance(normalize_embeddings=False)
    theirs = losses.ContrastiveLoss(
        pos_margin=near, neg_margin=far, distance=distance, reducer=reducers.DoNothingReducer()
    )
    x, y, target = Subject(PairContrastiveLoss, {}, device, make=pairs).inputs(12)
    i = torch.arange(len(x), device=device)
    alike = target > 0
    found = theirs(
        x, None, (i[alike], i[alike], i[~alike], i[~alike]), ref_emb=y, ref_labels=i
    )  # fmt: skip
    ours = pair_contrastive(
        x, y, target, distance="euclidean", positive_margin=near, margin=far, squared=False,
        reduction="none",
    )  # fmt: skip
    close(ours[alike], found["pos_loss"]["losses"])
    close(ours[~alike], found["neg_loss"]["losses"])


def test_errors(device):
    x, target = torch.ones(3, 2, device=device), torch.ones(3, device=device)
    with pytest.raises(ValueError, match=r"^y: got shape \(2, 2\), expected x's \(3, 2\)"):
        pair_contrastive(x, x[:2], target)
    with pytest.raises(ValueError, match=r"^target: got shape \(2,\), expected \(3,\)"):
        pair_contrastive(x, x, target[:2])
