"""Smooth-AP and Recall@k, which use the same smooth ranks."""

from math import exp

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import RecallAtKLoss, SmoothAPLoss
from contrastloss.functional import recall_at_k, smooth_ap
from contrastloss.losses.base import ranking
from contrastloss.testing import Subject

CASES = [
    Subject(cls, options, thorough=False)
    for cls, options in (
        (SmoothAPLoss, {"temperature": 0.1}),
        (RecallAtKLoss, {"temperature": 0.1, "ks": (1, 3), "rank_temperature": 0.5}),
        (RecallAtKLoss, {"temperature": 1.0}),
    )
]
every_loss = pytest.mark.parametrize("cls", [SmoothAPLoss, RecallAtKLoss])


pytestmark = pytest.mark.operators("pair_stats", "pair_topk")


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.cls.__name__}-{c.options}")
@every_check
def test_properties(check, case, device, backend):
    check(case.on(device, backend))


def sigmoid(u):
    return 1 / (1 + exp(-u))


def test_by_hand(device, backend):
    # query e1: its positive scores 0.6, another row 0.8; the query 0 of that one's, and so on
    z = tensor(E1, [0.6, 0.8], [0.8, 0.6], device=device)
    labels = torch.tensor([0, 0, 1], device=device)
    ranks = [1 + sigmoid((0.8 - 0.6) / 0.5), 1 + sigmoid((0.96 - 0.6) / 0.5)]
    rows = smooth_ap(z, labels, temperature=0.5, reduction="none", backend=backend)
    want = [1 - 1 / r for r in ranks]
    close(rows, [*want, 0])
    close(SmoothAPLoss(0.5, backend=backend)(z, labels), sum(want) / 2)
    options = {"temperature": 0.5, "ks": (1, 2), "backend": backend}
    want = [1 - (sigmoid(1 - r) + sigmoid(2 - r)) / 2 for r in ranks]
    close(recall_at_k(z, labels, reduction="sum", **options), sum(want))
    close(recall_at_k(z, labels, **options), sum(want) / 2)


def test_separated_classes_have_full_precision(device, backend):
    z = tensor(E1, E1, E1, E2, E2, E2, device=device)
    labels = torch.tensor([5, 5, 5, 2, 2, 2], device=device)
    close(SmoothAPLoss(backend=backend)(z, labels), 0.0)
    assert SmoothAPLoss(backend=backend)(z, labels.roll(1)) > 0.2


@every_loss
def test_chunks_give_the_same_result(cls, monkeypatch, device, backend):
    z, labels = CASES[0].on(device).inputs(20)
    results = []
    for held in (1 << 22, 300, 1):
        monkeypatch.setattr(ranking, "_HELD", held)
        leaf = z.clone().requires_grad_()
        value = cls(backend=backend)(leaf, labels)
        results.append((value, gradients(value, leaf)[0]))
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            close(got, want)


@every_loss
@pytest.mark.parametrize("n", [0, 1, 5])
def test_no_positives(cls, n, device, backend):
    z = torch.randn(n, 3, device=device, requires_grad=True)
    value = cls(backend=backend)(z, torch.arange(n, device=device))
    assert value.item() == 0.0
    assert not gradients(value, z)[0].any()


@pytest.mark.parametrize(
    ("cls", "options", "kind"),
    [
        (SmoothAPLoss, {"temperature": 0.0}, ValueError),
        (RecallAtKLoss, {"rank_temperature": -1.0}, ValueError),
        (RecallAtKLoss, {"ks": ()}, ValueError),
        (RecallAtKLoss, {"ks": (0,)}, ValueError),
        (RecallAtKLoss, {"ks": 5}, TypeError),
        (RecallAtKLoss, {"ks": (1.0,)}, TypeError),
    ],
    ids=str,
)
def test_options(cls, options, kind):
    (name,) = options
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        cls(**options)


@every_loss
def test_errors(cls):
    with pytest.raises(ValueError, match=r"^z: got shape \(3,\), expected"):
        cls()(torch.ones(3), torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"^labels: got .*expected"):
        cls()(torch.ones(3, 2), torch.zeros(4).long())
