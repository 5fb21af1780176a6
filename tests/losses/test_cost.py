from math import e, exp, log, pi

import pytest
import torch
from properties import E1, E2, close, gradients, tensor

from contrastloss import CoSTLoss, EmbeddingQueue, MoCoLoss
from contrastloss.functional import cost
from contrastloss.testing import CHECKS, Subject


#: no numerical second derivatives, which take half a minute for five inputs
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c.__name__ != "check_gradients"], ids=lambda c: c.__name__
)
def test_properties(check, device):
    check(Subject(CoSTLoss, {"weight": 0.5}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(CoSTLoss, {}, device, backend))


def test_by_hand(device):
    # trend: positive score 1, queue scores 0 and -1. Seasons: one feature, +-1 at two time steps:
    # series 1 (1, 1) has the spectrum 2, 0; series 2 (1, -1) has 0, 2; (-1, 1) would have 0, -2.
    # Amplitudes at frequency 0: 2 and 0 in both views, rows {2, 0, 2, 0}: series 1 against
    # {0, 4, 0}, series 2 against {0, 0, 0}; reversed at frequency 1. All phases are 0 except
    # pi for -2: all equal in the first case, log 3
    query, key = tensor(E1, E1, device=device), tensor(E1, E1, device=device)
    queue = tensor(E2, [-1, 0], device=device)
    x = tensor([1, 1], [1, -1], device=device)[..., None]
    trend = log(e + 1 + exp(-1)) - 1
    amplitude = (log(exp(4) + 2) - 4 + log(3)) / 2
    options = {"weight": 0.5, "temperature": 1.0, "reduction": "none"}
    close(cost(query, key, queue, x, x, **options), [trend + (amplitude + log(3)) / 4] * 2)
    # view 2 of series 2 is (-1, 1): at frequency 1 the phases are {0, 0, 0, pi}, whose
    # products are 0
    y = tensor([1, 1], [-1, 1], device=device)[..., None]
    close(cost(query, key, queue, x, y, **options), [trend + (amplitude + log(3)) / 4] * 2)
    # both views of series 2 are (-1, 1): phases {0, pi, 0, pi}
    phase = (log(3) + log(exp(pi**2) + 2) - pi**2) / 2
    want = [trend + (amplitude + log(3)) / 4, trend + (amplitude + phase) / 4]
    close(cost(query, key, queue, y, y, **options), want)


def test_without_seasons_it_is_moco(device):
    query, key, queue, *seasons = Subject(CoSTLoss, device=device).inputs()
    held = EmbeddingQueue(len(queue) + 2, queue.shape[1], dtype=queue.dtype, device=device)
    held.enqueue(queue)
    close(CoSTLoss(0.0)(query, key, held, *seasons), MoCoLoss()(query, key, queue))


def test_constant_series_have_finite_gradients(device):
    x = torch.ones(3, 4, 2, device=device, requires_grad=True)
    query = torch.randn(3, 2, device=device)
    value = CoSTLoss(1.0)(query, query, query, x, x * 0)
    assert gradients(value, x)[0].isfinite().all()


def test_errors():
    z, x, loss = torch.randn(4, 3), torch.randn(4, 5, 2), CoSTLoss()
    with pytest.raises(
        ValueError, match=r"^x_seasonal: got shape \(3, 5, 2\), expected \(4, T, E\)"
    ):
        loss(z, z, z, x[:3], x[:3])
    with pytest.raises(
        ValueError, match=r"^y_seasonal: got shape \(4, 4, 2\), expected \(4, 5, 2\)"
    ):
        loss(z, z, z, x, x[:, 1:])
    with pytest.raises(ValueError, match=r"^queue: got shape \(4, 2\), expected \(K, 3\)"):
        loss(z, z, z[:, 1:], x, x)
