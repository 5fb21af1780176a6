from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import MVDHELLoss
from contrastloss.functional import mv_dhel
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(MVDHELLoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(MVDHELLoss, {}, device, backend))


def test_by_hand(device):
    # views 1 are e1, e2 and e2, views 2 all e1. Instance 0: its view 1 scores 0 and 0 with others,
    # its view 2 scores 1 and 1; its pair scores 1. Instance 1: 0 and 1; 1 and 1; its pair 0
    z = torch.stack([tensor(E1, E1), tensor(E2, E1), tensor(E2, E1)]).to(device)
    rows = mv_dhel(z, temperature=1.0, reduction="none")
    other = log(1 + e) + log(2 * e)
    close(rows, [log(2) + log(2 * e) - 1, other, other])


def test_every_pair_of_views_counts_once(device):
    # four equal views: 6 pairs, and three other instances in each of four views
    z = torch.ones(4, 4, 2, device=device, dtype=torch.float64)
    close(MVDHELLoss(0.5)(z), 4 * (log(3) + 2) - (log(6) + 2))


def test_low_temperatures_do_not_overflow(device):
    """Eight views at temperature 0.005: a product of the views' sums would be e^1600."""
    z = torch.ones(3, 8, 2, device=device)
    torch.testing.assert_close(
        MVDHELLoss(0.005)(z).item(), 8 * (log(2) + 200) - (log(28) + 200), rtol=1e-6, atol=0.0
    )


def test_one_instance_has_no_negative(device):
    z = torch.randn(1, 3, 4, device=device, requires_grad=True)
    value = MVDHELLoss()(z)
    assert value.item() == 0.0
    assert not gradients(value, z)[0].any()


def test_errors():
    with pytest.raises(ValueError, match=r"^z: got shape .* expected \(N, V, D\) with V >= 2"):
        MVDHELLoss()(torch.ones(4, 1, 3))
