from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import MVInfoNCELoss
from contrastloss.functional import mv_info_nce
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(MVInfoNCELoss, {}, device, thorough=False))


@pytest.mark.parametrize("same_view", [False, True])
def test_on_every_backend(same_view, device, backend):
    CHECKS[0](Subject(MVInfoNCELoss, {"same_view": same_view}, device, backend))


def test_by_hand(device):
    # views 1 are e1 and e2, views 2 both e1. Instance 0: positives 2 e^1; with the other instance,
    # e^1 and e^0 across views, e^0 and e^1 within views. Instance 1: positives 2 e^0; e^0, e^1
    # and e^0, e^1
    z = torch.stack([tensor(E1, E1), tensor(E2, E1)]).to(device)
    rows = mv_info_nce(z, temperature=1.0, reduction="none")
    close(rows, [log(3 * e + 1) - log(2 * e), log(3 + e) - log(2)])
    rows = mv_info_nce(z, temperature=1.0, same_view=True, reduction="none")
    close(rows, [log(4 * e + 2) - log(2 * e), log(4 + 2 * e) - log(2)])


def test_equal_scores_by_hand(device):
    # three views with equal scores: 6 positives and 6 (N - 1) pairs of different instances
    z = torch.ones(4, 3, 2, device=device, dtype=torch.float64)
    close(MVInfoNCELoss()(z), log(4))
    close(MVInfoNCELoss(same_view=True)(z), log((6 + 9 * 3) / 6))


def test_low_temperatures_do_not_overflow(device):
    z = torch.stack([tensor(E1, E1), tensor(E2, E2)]).to(device).float()
    value = MVInfoNCELoss(0.005)(z)
    torch.testing.assert_close(value.item(), exp(-200.0), atol=1e-30, rtol=1e-3)


def test_one_instance_has_no_negative(device):
    z = torch.randn(1, 3, 4, device=device, requires_grad=True)
    value = MVInfoNCELoss()(z)
    assert value.item() == 0.0
    assert not gradients(value, z)[0].any()


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (4, 2, 0)])
def test_errors(shape):
    with pytest.raises(ValueError, match=r"^z: got shape .* expected \(N, V, D\) with V >= 2"):
        MVInfoNCELoss()(torch.ones(shape))
    with pytest.raises(ValueError, match=r"^z: got NaN or infinity in 4 of 4 rows"):
        MVInfoNCELoss(validate=True)(torch.full((2, 2, 3), torch.nan))
