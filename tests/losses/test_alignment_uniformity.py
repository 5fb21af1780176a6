from math import exp, log, sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import AlignmentUniformityLoss
from contrastloss.functional import alignment_uniformity
from contrastloss.testing import CHECKS, Subject


def views(n, d, generator):
    x, noise = torch.randn(2, n, 7, generator=generator).double()
    return [x, x + noise]


CASE = Subject(AlignmentUniformityLoss, {"alpha": 1.5}, thorough=False, make=views)


@every_check
def test_properties(check, device):
    check(CASE.on(device))


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"across": True, "t": 0.5},
        {"normalize": False, "t": 0.3, "weight": 0.5},
        {"normalize": False, "t": 0.1, "across": True},
    ],
    ids=str,
)
def test_on_every_backend(chosen, device, backend):
    CHECKS[0](Subject(AlignmentUniformityLoss, chosen, device, backend, make=views))


def test_by_hand(device, backend):
    # squared distances: 2, 2 and 0 within x; 0, 2 and 2 within y; 0, 2 and 4 between them
    x, y = tensor(E1, E2, E2, device=device), tensor(E1, [3, 0], [0, -1], device=device)
    spread = log((2 * exp(-4) + 1) / 3)
    close(alignment_uniformity(x, y, backend=backend), (0 + 2 + 4) / 3 + spread)
    loss = AlignmentUniformityLoss(1.0, 0.5, 3.0, backend=backend)
    close(loss(x, y), (sqrt(2) + 2) / 3 + 3 * log((2 * exp(-1) + 1) / 3))


def test_plain_vectors_by_hand(device, backend):
    x, y = tensor([0, 0], [3, 4], device=device), tensor([0, 1], [3, 3], device=device)
    loss = AlignmentUniformityLoss(t=0.1, normalize=False, backend=backend)
    close(loss(x, y), (1 + 1) / 2 + (-2.5 - 1.3) / 2)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
def test_equal_rows_have_a_finite_gradient(alpha, device):
    x = torch.ones(3, 4, device=device, requires_grad=True)
    loss = alignment_uniformity(x, x.detach().clone(), alpha=alpha)
    close(loss.double(), 0.0)
    assert gradients(loss, x)[0].abs().max() < 1e-6


def test_nearly_equal_rows_keep_their_digits(device):
    x = torch.randn(5, 16, device=device)
    y = x + 1e-5 * torch.randn(5, 16, device=device)
    loss = AlignmentUniformityLoss(weight=0.0)
    torch.testing.assert_close(loss(x, y).double(), loss(x.double(), y.double()), rtol=0.02, atol=0)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows(n, device):
    x, y = tensor(E1, device=device)[:n], tensor(E2, device=device)[:n]
    close(alignment_uniformity(x, y), 2.0 * n)


def test_errors():
    x = torch.randn(4, 3)
    for name, bad in (("alpha", 0.0), ("t", -1.0), ("weight", -1.0)):
        with pytest.raises(ValueError, match=f"^{name}: got .*, expected"):
            AlignmentUniformityLoss(**{name: bad})
    with pytest.raises(ValueError, match=r"^y: got shape \(3, 3\), expected x's \(4, 3\)"):
        alignment_uniformity(x, x[:3])


def test_across_views_by_hand(device):
    # x_0 = x_1 = e1, y_0 = y_1 = e2: of the eight pairs of different instances, four are equal and
    # four are orthogonal, at a squared distance of 2
    x, y = tensor(E1, E1, device=device), tensor(E2, E2, device=device)
    want = 2 + log((1 + exp(-2 * 0.25)) / 2)
    close(alignment_uniformity(x, y, t=0.25, across=True), want)
