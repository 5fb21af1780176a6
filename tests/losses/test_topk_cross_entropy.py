from math import atan, exp, log, pi

import pytest
import torch
from properties import close, every_check, gradients, tensor
from torch.nn import functional as F

from contrastloss import TopKCrossEntropyLoss
from contrastloss.functional import topk_cross_entropy
from contrastloss.testing import Subject


def scores(n, d, generator):
    n = max(n, 1)
    target = torch.randint(0, n, (4,), generator=generator)
    x = torch.stack([torch.randperm(n, generator=generator) for _ in range(4)])
    return [(x - n / 2).double() / 4, target]  # distinct in every dtype


CASES = [
    Subject(TopKCrossEntropyLoss, options, thorough=not options, make=scores)
    for options in (
        {},
        {"weights": (0.0, 0.75, 0.25), "candidates": None},
        {"candidates": 7, "network": "bitonic", "steepness": 2.0},
    )
]


pytestmark = pytest.mark.operators("sort_network")


@every_check
@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.options))
def test_properties(check, case, device, backend):
    check(case.on(device, backend))


def test_by_hand(device, backend):
    # Three classes, [y, best, worst] = [1, 2, 0]; odd-even descending. The first layer compares
    # 1 and 2, the second its lower output and 0, the third the results.
    def w(delta):
        return 0.5 + atan(delta) / pi

    # ascending network: wires carry 1, 2, 0; a comparator's w is that of its upper minus its lower
    w1 = w(2 - 1)
    a, b = w1 * 1 + (1 - w1) * 2, (1 - w1) * 1 + w1 * 2
    w2 = w(0 - b)
    b = w2 * b
    w3 = w(b - a)
    # class y has masses w1 and 1 - w1 on wires 0 and 1; b is split by w2, then 0 and 1 by w3
    on0, on1, on2 = w1, (1 - w1) * w2, (1 - w1) * (1 - w2)
    lowest = w3 * on0 + (1 - w3) * on1
    x, target = tensor(2, 0, 1, device=device), torch.tensor(2, device=device)
    soft = exp(1) / (exp(2) + 1 + exp(1))
    options = {"steepness": 1.0, "backend": backend}
    close(topk_cross_entropy(x, target, weights=(0, 1), **options), -log(1 - lowest))
    close(topk_cross_entropy(x, target, weights=(0.4, 0.6), **options),
          -log(0.4 * soft + 0.6 * (1 - lowest)))  # fmt: skip
    close(topk_cross_entropy(x, target, weights=(0, 0, 1), **options), -log(on0 + on1 + on2))


def test_top_1_is_cross_entropy(device, backend):
    x, target = CASES[0].on(device).inputs(12)
    for count, scale in ((None, 1.0), (16, 60.0)):  # also saturated
        loss = TopKCrossEntropyLoss((1.0,), candidates=count, backend=backend)
        close(loss(scale * x, target), F.cross_entropy(scale * x, target))


def test_a_label_in_the_top_k_has_a_small_loss(device, backend):
    x = tensor(9, 8, 7, 6, 5, 4, 3, device=device)
    loss = TopKCrossEntropyLoss((0, 0, 1), steepness=1e3, backend=backend)
    values = [loss(x, torch.tensor(y, device=device)).item() for y in range(7)]
    assert max(values[:3]) < 0.01
    assert min(values[3:]) > 3


def test_only_candidates_count(device, backend):
    x, target = CASES[0].on(device).inputs(40)
    leaf = x.clone().requires_grad_()
    rows = TopKCrossEntropyLoss(candidates=6, reduction="none", backend=backend)(leaf, target)
    moved = gradients(rows.sum(), leaf)[0] != 0
    assert moved.gather(1, target[:, None]).all()
    assert (moved.sum(1) == 6).all()
    close(TopKCrossEntropyLoss(candidates=99, backend=backend)(x, target),
          TopKCrossEntropyLoss(candidates=None, backend=backend)(x, target))  # fmt: skip


def test_leading_dimensions_and_none(device, backend):
    x, target = CASES[0].on(device).inputs(12)
    loss = TopKCrossEntropyLoss(reduction="none", backend=backend)
    close(loss(x.view(2, 2, -1), target.view(2, 2)), loss(x, target).view(2, 2))
    assert TopKCrossEntropyLoss(backend=backend)(x[:0], target[:0]).item() == 0.0
    # a single class
    close(TopKCrossEntropyLoss(backend=backend)(x[:, :1], target * 0), 0.0)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"weights": (0.5, 0.6)}, ValueError),
        ({"weights": (1.5, -0.5)}, ValueError),
        ({"weights": ()}, ValueError),
        ({"weights": 1.0}, TypeError),
        ({"weights": torch.ones(1)}, TypeError),
        ({"candidates": 0}, ValueError),
        ({"candidates": 2.5}, TypeError),
        ({"steepness": -1.0}, ValueError),
    ],
    ids=str,
)
def test_options(options, kind):
    (name,) = options
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        TopKCrossEntropyLoss(**options)


@pytest.mark.parametrize(
    ("x", "target", "kind", "message"),
    [
        (torch.ones(2, 3), [0.5, 1], TypeError, "target: got dtype torch.float32, expected"),
        (torch.ones(2, 3), torch.ones(2), TypeError, "target: got dtype torch.float32, expected"),
        (
            torch.ones(2, 3),
            torch.zeros(3).long(),
            ValueError,
            r"target: got shape \(3,\), expected",
        ),
        (torch.ones(2, 3), torch.tensor([0, 3]), ValueError, "target: got 3, expected 0 to 2"),
        (torch.ones(2, 3), torch.tensor([-1, 0]), ValueError, "target: got -1, expected 0 to 2"),
        (torch.ones(2, 3).int(), torch.zeros(2).long(), TypeError, "x: got dtype torch.int32"),
        (torch.ones(0, 0), torch.zeros(0).long(), ValueError, r"x: got shape \(0, 0\), expected"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, r"x: got shape \(\), expected"),
    ],
)
def test_errors(x, target, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        TopKCrossEntropyLoss()(x, target)
