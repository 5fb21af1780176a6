"""Mixtures have the values computed by hand, obey their conditions, and are marked as invalid where
partners are missing."""

from math import cos, pi, sin, sqrt, tan

import pytest
import torch
from properties import E1, E2, close, gradients, tensor
from torch.nn.functional import normalize

from contrastloss.mixing import (
    hallucinated_queries,
    hard_mixtures,
    label_mixtures,
    latent_positives,
)


def generator(device, seed=0):
    return torch.Generator(device).manual_seed(seed)


# ---- latent positives ----------------------------------------------------------------------------


def test_latent_positives_by_hand(device):
    # the key at 20 degrees, prototypes at 0 and 90: halfway between them is 45, 25 degrees away,
    # and 0 itself is 20 degrees away
    key = tensor([3 * cos(pi / 9), 3 * sin(pi / 9)], device=device)
    numbers = tensor([0.6, 0.5], [0.1, 0.25], [0.6, 0.999], device=device)[None]
    made, valid = latent_positives(key, tensor(E1, E2, device=device), 3, numbers=numbers)
    want = torch.tensor([20 + 12.5, 20 - 5, 20 + 0.999 * 25], dtype=torch.float64).deg2rad()
    close(made[0], torch.stack([want.cos(), want.sin()], 1).to(device))
    assert valid.all()


def test_latent_positives_of_halp(device):
    """Only other prototypes than the nearest, at least a fifth of the way."""
    key = tensor([3 * cos(pi / 9), 3 * sin(pi / 9)], device=device)
    prototypes = tensor([0, -1], E1, E2, device=device)  # at -90, 0 and 90 degrees
    numbers = tensor([0.1, 0.5], [0.6, 0.0], [0.999, 0.75], device=device)[None]
    own = {"least": 0.2, "nearest": False, "numbers": numbers}
    made, valid = latent_positives(key, prototypes, 3, **own)
    # towards -90 the bisector with 0 is 65 degrees away, towards 90 it is 25
    want = torch.tensor([20 - 0.6 * 65, 20 + 0.2 * 25, 20 + 0.8 * 25], dtype=torch.float64)
    want = want.deg2rad()
    close(made[0], torch.stack([want.cos(), want.sin()], 1).to(device))
    assert valid.all()
    # the only prototype is the nearest one
    made, valid = latent_positives(key, prototypes[1:2], 3, **own)
    assert made.isfinite().all()


def test_a_third_prototype_may_come_between(device):
    key = tensor(E1, device=device)
    prototypes = tensor(E1, E2, [sqrt(0.5), sqrt(0.5)], device=device)  # at 0, 90 and 45 degrees
    numbers = tensor([0.4, 0.45], [0.4, 0.55], [0.7, 0.9], device=device)[None]
    made, valid = latent_positives(key, prototypes, 3, numbers=numbers)
    close(made[0, 0, 1] / made[0, 0, 0], tan(0.45 * pi / 4))
    assert valid.tolist() == [[True, False, True]]  # beyond 22.5 degrees the third one is nearer


def test_latent_positives_keep_their_side(device):
    """A latent positive is valid if and only if its nearest prototype is that of its key."""
    g = generator(device)
    key, prototypes = (torch.randn(n, 6, generator=g, device=device).double() for n in (40, 9))
    made, valid = latent_positives(key, prototypes, 50, generator=g)
    close(made.norm(dim=-1), torch.ones(40, 50))
    p = normalize(prototypes)
    nearest = (normalize(key) @ p.mT).argmax(1, keepdim=True)
    assert torch.equal((made @ p.mT).argmax(2) == nearest, valid)
    assert 0.3 < valid.double().mean() < 1
    assert (made - normalize(key)[:, None]).norm(dim=-1).amax() > 0.3
    assert latent_positives(key, prototypes[:2], 50, generator=g).valid.all()  # no third one
    assert latent_positives(key.bfloat16(), prototypes.bfloat16(), 2)[0].dtype == torch.bfloat16


def test_a_key_that_is_a_prototype_or_opposite_to_all(device):
    key, prototypes = tensor(E1, [-1, 0], [0, 0], device=device), tensor(E1, device=device)
    made, valid = latent_positives(key, prototypes, 4)
    close(made[:2], key[:2, None].expand(2, 4, 2))
    assert made.isfinite().all()
    assert valid.all()


# ---- hallucination -------------------------------------------------------------------------------


def test_hallucinated_queries_by_hand(device):
    # from the key's direction e2 over q = (2, 0): q + r (q - e2) = (2 + 2 r, -r), with r = 0.3
    query, key = tensor([2, 0], device=device), tensor([0, 5], device=device)
    numbers = torch.tensor([0.6], dtype=torch.float64, device=device)
    made = hallucinated_queries(query, key, strength=0.5, numbers=numbers)
    close(made, [[2, 0, 2.6, -0.3]])


def test_hallucinated_queries_share_r_and_have_a_gradient(device):
    query, key = torch.randn(2, 30, 5, device=device, requires_grad=True)
    made = hallucinated_queries(query, key, generator=generator(device))
    beyond = (made[:, 5:] - query) / (query - normalize(key))
    assert (beyond - beyond[0, 0]).abs().max() < 1e-3
    assert 0 < beyond[0, 0] < 0.1
    (of_query,) = gradients(made[:, 5:].sum(), query)
    assert (of_query - 1 - beyond[0, 0]).abs().max() < 1e-3
    again = hallucinated_queries(query.detach(), key, generator=generator(device))
    assert not again.requires_grad  # the key is a constant


# ---- mixtures by classes -------------------------------------------------------------------------


def test_hard_mixtures_by_hand(device):
    # rows at 0, 10, 40 and 50 degrees, labels 0, 0, 0, 1. For row 0: the least similar row with its
    # label is row 2; the most similar with another label is row 3, also the only one to draw
    angle = torch.tensor([0.0, 10, 40, 50], dtype=torch.float64, device=device).deg2rad()
    z = torch.stack([angle.cos(), angle.sin()], 1) * torch.arange(1, 5, device=device)[:, None]
    labels = torch.tensor([0, 0, 0, 1], device=device)
    numbers = tensor([0.75, 0.0, 0.5], [0.25, 0.9, 0.0], [0.5, 0.5, 0.5], [0.5, 0.4, 0.5])
    mixtures = hard_mixtures(z, labels, numbers=numbers.to(device))
    features, named = mixtures.features.view(2, 4, 2), mixtures.labels.view(2, 4)
    close(features[0, 0], 0.75 * z[2] + 0.25 * z[3])
    close(features[0, 1], 0.25 * z[2] + 0.75 * z[3])
    close(features[0, 2], 0.5 * z[0] + 0.5 * z[3])
    close(features[0, 3], 0.5 * z[3] + 0.5 * z[2])  # without a positive it takes itself
    close(features[1, 0], 0.9 * z[3] + 0.1 * z[0])
    close(features[1, 1], 0.8 * z[3] + 0.2 * z[1])
    close(features[1, 3], 0.9 * z[1] + 0.1 * z[3])  # the second of three others
    assert named.tolist() == [[0, 1, 0, 1], [1, 1, 1, 0]]
    assert mixtures.valid.tolist() == [True] * 3 + [False] + [True] * 4
    close(mixtures.share.view(2, 4), [[0.75, 0.25, 0.5, 0.5], [0.9, 0.8, 0.9, 0.9]])
    parts = [[0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0], [0, 1]]
    assert mixtures.parts.tolist() == parts


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_mixtures_of_the_largest_label_of_a_dtype(dtype, released, device):
    """No label of a mixture of two labels is a label of the batch."""
    most = torch.iinfo(dtype).max
    z, labels = torch.randn(12, 4, device=device), most - torch.arange(12, device=device) % 3
    numbers = torch.rand(12, 3, device=device)
    found, wanted = (
        hard_mixtures(z, given, released=released, numbers=numbers)
        for given in (labels.to(dtype), labels)
    )
    assert torch.equal(found.labels.long(), wanted.labels.long())
    if released:
        apart = wanted.parts[:, 0] != wanted.parts[:, 1]
        assert (found.labels[apart] > most).all()


def test_mixtures_pass_gradients_to_their_parts(device):
    z = torch.randn(6, 3, device=device).double().requires_grad_()
    labels = torch.tensor([0, 1, 0, 1, 2, 2], device=device)
    made = hard_mixtures(z, labels, generator=generator(device))
    close(gradients(made.features.sum(), z)[0].sum(), 12 * 3.0)
    made = label_mixtures(z, labels.double(), negatives=2, generator=generator(device))
    close(gradients(made.features.sum(), z)[0].sum(), 18 * 3.0)


def test_other_labels_are_drawn_evenly(device):
    """Each row with another label is drawn equally often, and no row with the same label."""
    z = torch.eye(5, dtype=torch.float64, device=device)
    labels = torch.tensor([7, 3, 7, 9, 3], device=device)
    numbers = torch.rand(3000, 5, 3, generator=generator("cpu")).double().to(device)
    drawn = torch.zeros(5, 5, device=device)
    for given in numbers[:300]:
        negative = hard_mixtures(z, labels, least=1.0, numbers=given).features[5:]
        drawn += negative.float()
    assert not drawn[labels[:, None] == labels].any()
    share = drawn / 300 * (labels[:, None] != labels).sum(1, keepdim=True)
    assert (share[labels[:, None] != labels] - 1).abs().max() < 0.3


def test_one_label_alone_has_no_mixtures(device):
    z = torch.randn(3, 2, device=device)
    for labels, valid in (([0, 0, 0], False), ([4], False)):
        rows = z[: len(labels)]
        made = hard_mixtures(rows, torch.tensor(labels, device=device))
        assert made.valid.any() == valid
        assert made.features.isfinite().all()
    assert hard_mixtures(z[:0], torch.zeros(0).long().to(device)).features.shape == (0, 2)


# ---- mixtures by real-valued labels --------------------------------------------------------------


def test_label_mixtures_by_hand(device):
    z, y = tensor(E1, E2, [2, 2], device=device), torch.tensor([3.0, 1.0, 2.0], device=device)
    # numbers: j and lambda of the negative, j and k of the positive; rows by label: 1, 2, 0
    numbers = tensor([0.0, 0.25, 0.9, 0.9], [0.9, 0.5, 0.0, 0.0], [0.4, 0.75, 0.0, 0.0])
    made = label_mixtures(z, y.double(), numbers=numbers.to(device))
    close(made.features[0], 0.25 * z[0] + 0.75 * z[1])
    close(made.features[1], 0.5 * z[1] + 0.5 * z[0])
    close(made.features[2], 0.75 * z[2] + 0.25 * z[1])
    close(made.labels, [1.5, 2.0, 1.75, 3.0, 1.0, 2.0])
    close(made.features[5], (z[1] + z[0]) / 2)  # labels 1 and 3 around 2
    close(made.features[3:5], z[:2])  # nothing is larger than 3, or smaller than 1
    assert made.valid.tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("window", [None, 1.5])
def test_label_mixtures_have_their_labels(window, device):
    """For features that are linear in the label, mixtures have the features of their labels."""
    y = torch.randint(0, 9, (40,), generator=generator("cpu")).double().to(device)
    z = torch.stack([y, torch.ones_like(y), y**2], 1)
    options = {"negatives": 3, "positives": 5, "window": window}
    features, labels, valid, share, parts = label_mixtures(
        z, y, **options, generator=generator(device)
    )
    assert features.shape == (320, 3)
    close(share * parts[:, 0] + (1 - share) * parts[:, 1], labels)
    close(features[:, 0], labels)
    close(features[:, 1], torch.ones(320))
    anchors = y.repeat_interleave(5)
    assert torch.equal(labels[120:], anchors)
    above = y - anchors[:, None]
    near = above.abs() <= (window or 9)
    inside = (near & (above > 0)).any(1) & (near & (above < 0)).any(1)
    assert torch.equal(valid[120:], inside)
    assert valid[:120].all()
    variance = (features[120:, 2] - labels[120:] ** 2)[inside]
    assert (variance > 0.5).all()  # the two mixed labels differ
    assert variance.max() < 2 if window else variance.max() > 4


def test_one_real_label_has_no_mixtures(device):
    z, y = torch.randn(3, 2, device=device), torch.ones(3, device=device)
    made = label_mixtures(z, y)
    assert not made.valid.any()
    close(made.features.double(), torch.cat([z, z]).double())
    assert torch.equal(made.labels, torch.ones(6, device=device))
    assert label_mixtures(z[:0], y[:0]).features.shape == (0, 2)


# ---- all -----------------------------------------------------------------------------------------


def test_the_generator_decides(device):
    z, y = torch.randn(8, 3, device=device), torch.arange(8, device=device) // 2
    for make in (
        lambda g: latent_positives(z, z[:3], 4, generator=g)[0],
        lambda g: hallucinated_queries(z, z + 1, generator=g),
        lambda g: hard_mixtures(z, y, generator=g).features,
        lambda g: label_mixtures(z, y.float(), generator=g).features,
    ):
        one, two, three = (make(generator(device, seed)) for seed in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_errors():
    z, y = torch.randn(4, 3), torch.zeros(4)
    for call, kind, message in (
        (lambda: latent_positives(z, z[:0]), ValueError, r"prototypes: got shape \(0, 3\), ex"),
        (lambda: latent_positives(z, z[:, 1:]), ValueError, r"prototypes: got shape \(4, 2\), ex"),
        (lambda: latent_positives(z, z, 0), ValueError, "count: got 0, expected an integer"),
        (lambda: latent_positives(z, z.double()), TypeError, "prototypes: got dtype torch.float64"),
        (lambda: hallucinated_queries(z, z[1:]), ValueError, r"key: got shape \(3, 3\), expec"),
        (lambda: hallucinated_queries(z, z, strength=-1.0), ValueError, "strength: got -1.0"),
        (lambda: hard_mixtures(z, y), TypeError, "labels: got dtype torch.float32, expected an in"),
        (lambda: hard_mixtures(z, y[1:].long()), ValueError, r"labels: got shape \(3,\), expected"),
        (
            lambda: hard_mixtures(z, y.long(), least=2),
            ValueError,
            "least: got 2, expected a number",
        ),
        (lambda: label_mixtures(z, y.long()), TypeError, "y: got dtype torch.int64, expected a fl"),
        (lambda: label_mixtures(z, y, negatives=-1), ValueError, "negatives: got -1, expected an"),
        (lambda: label_mixtures(z, y, window=0.0), ValueError, "window: got 0.0, expected a posit"),
        (lambda: label_mixtures(z, y, numbers=z), ValueError, r"numbers: got shape \(4, 3\), expe"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            call()
    with pytest.raises(ValueError, match=r"^numbers: got numbers and a generator"):
        label_mixtures(z, y, numbers=z, generator=torch.Generator())
