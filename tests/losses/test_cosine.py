from math import sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CosineLoss
from contrastloss.functional import cosine
from contrastloss.testing import Subject


def views(n, d, generator):
    x, noise = torch.randn(2, 3, n, 7, generator=generator).double()
    return [x, x + noise]


CASES = [
    Subject(CosineLoss, options, thorough=False, make=views)
    for options in ({"stop_gradient": False, "power": 3.0}, {"pairs": "all"})
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.options))
@every_check
def test_properties(check, case, device):
    check(case.on(device))


def test_by_hand(device):
    x = tensor([2, 0], [1, 1], [0, 0], device=device)
    target = tensor(E1, [0, 3], E2, device=device)
    rows = [0.0, 1 - sqrt(0.5), 1.0]
    close(cosine(x, target, reduction="none"), rows)
    close(cosine(x, target, loss_weight=2.0), 2 * (2 - sqrt(0.5)) / 3)
    close(cosine(x, target, power=2.0, reduction="none"), [r**2 for r in rows])
    # the mean of the targets is (1, 2) / 3
    everything = [1 - 1 / 3, 1 - 1 / sqrt(2), 1.0]
    close(cosine(x, target, pairs="all", reduction="none"), everything)


def test_weights(device):
    x, target = tensor(E1, E1, E1, device=device), tensor(E1, E2, E2, device=device)
    some = torch.tensor([True, True, False], device=device)
    close(cosine(x, target, weights=some), 0.5)
    close(cosine(x, target, weights=~(some | True)), 0.0)
    weights = tensor(0.5, 0.5, 2.0, device=device, grad=True)
    close(cosine(x, target, weights=weights), 2.5 / 3)


def test_the_target_is_a_constant(device):
    x, target = tensor(E1, device=device, grad=True), tensor([1, 1], device=device, grad=True)
    (dx,) = gradients(cosine(x, target), x)
    close(dx, [[0.0, -sqrt(0.5)]])
    value = cosine(x.detach(), target)
    assert not value.requires_grad
    assert cosine(x, target, stop_gradient=False).requires_grad


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_equal_and_zero_vectors_have_finite_gradients(power, device):
    x = torch.full((3, 3), 0.1, device=device)
    x[0] = 0.0
    leaves = [x.requires_grad_(), torch.full_like(x, 0.1).requires_grad_()]
    value = cosine(*leaves, power=power, stop_gradient=False)
    for grad in gradients(value, *leaves):
        assert grad.isfinite().all()
    assert cosine(x[:0], x[:0], pairs="all").item() == 0.0


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"^power: got 2.0, expected 1 with pairs='all'"):
        CosineLoss(2.0, "all")
    with pytest.raises(ValueError, match=r"^target: got shape \(2, 2\), expected x's \(3, 2\)"):
        cosine(x, x[:2])
    with pytest.raises(ValueError, match=r"^x: got shape \(2,\), expected \(..., N, D\)"):
        cosine(x[0], x[0])
    with pytest.raises(ValueError, match=r"^weights: got shape \(2,\), expected \(3,\)"):
        cosine(x, x, weights=x[0])
    with pytest.raises(TypeError, match=r"^weights: got dtype torch.int64, expected torch.bool or"):
        cosine(x, x, weights=torch.ones(3, dtype=torch.int64, device=device))
