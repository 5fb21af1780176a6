from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLIPLoss, TemporalCLIPLoss
from contrastloss.functional import temporal_clip
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(TemporalCLIPLoss, {"same": 2.0, "cross": 0.5}, device, thorough=False))


@pytest.mark.parametrize("options", [{}, {"cross": 0.0}])
def test_on_every_backend(options, device, backend):
    CHECKS[0](Subject(TemporalCLIPLoss, options, device, backend))


@pytest.mark.parametrize(
    ("same", "cross", "more"),
    [(1.0, 1.0, [e + 1, 1 + e]), (2.0, 0.0, [2 * e, 2 * e]), (0.0, 3.0, [3.0, 3.0])],
)
def test_by_hand(same, cross, more, device):
    # audio = text = reversed audio = [e1, e2]: positive score 1, other score 0, and scores of texts
    # with the reversals 1 for the row's own and 0 for the other
    x = tensor(E1, E2, device=device)
    rows = temporal_clip(x, x, x, same=same, cross=cross, temperature=1.0, reduction="none")
    plain = log(1 + exp(-1))
    close(rows, [(plain + log(e + 1 + extra) - 1) / 2 for extra in more])


def test_each_direction_has_its_own_reversals(device):
    x = torch.randn(4, 6, 5, device=device, dtype=torch.float64)
    loss, plain = TemporalCLIPLoss(), CLIPLoss()(x[0], x[1])
    one, two = loss(x[0], x[1], x[2]), loss(x[0], x[1], None, x[3])
    close(loss(*x), one + two - plain)
    close(loss(x[1], x[0], x[3]), two)  # with both sides exchanged
    scale = torch.tensor(1 / 0.07, device=device, dtype=torch.float64)
    close(loss(*x, logit_scale=scale), loss(*x))
    close(TemporalCLIPLoss(0, 0)(*x), plain)


def test_one_row_has_only_its_reversal_as_negative(device):
    x = tensor(E1, device=device, grad=True)
    value = TemporalCLIPLoss(temperature=1.0)(x, x, tensor(E2, device=device))
    close(value, log(1 + exp(-1)) / 2)
    value = TemporalCLIPLoss(same=0.0)(x, x, x)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors():
    x, loss = torch.randn(4, 3), TemporalCLIPLoss()
    with pytest.raises(ValueError, match=r"^audio_reversed: got None beside text_reversed=None"):
        loss(x, x)
    with pytest.raises(ValueError, match=r"^text_reversed: got shape \(3, 3\), expected audio's"):
        loss(x, x, x, x[:3])
    for name in ("same", "cross"):
        with pytest.raises(ValueError, match=f"^{name}: got -1.0, expected a finite number >= 0"):
            TemporalCLIPLoss(**{name: -1.0})
