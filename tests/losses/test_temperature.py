import copy
import math
import pickle

import pytest
import torch
from torch import nn

from contrastloss import CLIPLoss, LogitScale, NTXentLoss
from contrastloss.losses import LOSSES, PairLoss
from contrastloss.testing import TEMPERATURES, Subject, dense


def test_stores_the_logarithm_of_the_scale():
    temperature = LogitScale(0.07)
    torch.testing.assert_close(temperature.log_scale.item(), math.log(1 / 0.07))
    torch.testing.assert_close(temperature().item(), 1 / 0.07)
    assert list(temperature.state_dict()) == ["log_scale"]


def test_gradient_is_the_scale():
    temperature = LogitScale(0.25)  # d e^l / dl = e^l
    temperature().backward()
    torch.testing.assert_close(temperature.log_scale.grad.item(), 4.0)


def test_clips_the_parameter_and_not_the_gradient():
    temperature = LogitScale(0.07, max_scale=50.0)
    with torch.no_grad():
        temperature.log_scale.fill_(math.log(80.0))
    scale = temperature()
    torch.testing.assert_close(scale.item(), 50.0)
    torch.testing.assert_close(temperature.log_scale.item(), math.log(50.0))
    scale.backward()
    torch.testing.assert_close(temperature.log_scale.grad.item(), 50.0)


def test_the_scale_has_a_lower_bound():
    """A scale near 0 has hardly a gradient, and would never come back."""
    temperature = LogitScale(0.5, min_scale=0.25)
    with torch.no_grad():
        temperature.log_scale.fill_(math.log(1e-3))
    scale = temperature()
    torch.testing.assert_close(scale.item(), 0.25)
    scale.backward()
    torch.testing.assert_close(temperature.log_scale.grad.item(), 0.25)
    with pytest.raises(ValueError, match=r"^min_scale: got 3.0 with max_scale=2.0, expected at"):
        LogitScale(max_scale=2.0, min_scale=3.0)
    with pytest.raises(TypeError, match=r"^init: got str, expected a positive finite number"):
        LogitScale("0.07")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(copied):
    temperature = LogitScale(0.3, max_scale=7.0)
    other = copied(temperature)
    assert other.max_scale == 7.0
    assert torch.equal(other(), temperature())
    assert other.log_scale is not temperature.log_scale


@pytest.mark.parametrize("options", [{"init": 0.0}, {"init": -1.0}, {"max_scale": math.inf}])
def test_bad_options(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected a positive finite number"):
        LogitScale(**options)


def test_equal_temperatures_per_row_match_a_single_one(device):
    x, y = torch.randn(2, 7, 4, device=device, dtype=torch.float64)
    rows = torch.full((7,), 0.3, device=device, dtype=torch.float64)
    for cls in (CLIPLoss, NTXentLoss):
        torch.testing.assert_close(cls(temperature=rows)(x, y), cls(temperature=0.3)(x, y))


def test_a_tensor_is_a_buffer_that_moves_and_is_saved():
    loss = CLIPLoss(temperature=torch.tensor(0.3))
    assert dict(loss.named_buffers()).keys() == {"temperature"}
    assert list(loss.state_dict()) == ["temperature"]
    assert loss.double().temperature.dtype == torch.float64


def test_a_parameter_is_registered():
    for cls in (cls for cls in LOSSES.values() if issubclass(cls, PairLoss)):
        loss = cls(temperature=nn.Parameter(torch.tensor(0.3)))
        assert [name for name, _ in loss.named_parameters()] == ["temperature"]


@pytest.mark.parametrize("name", ["info_nce", "clip", "nt_xent", "supcon"])
def test_example_losses_are_not_saturated(name):
    """At every temperature the example losses are between 0.1 and log N."""
    for seed in range(5):
        subject = Subject(LOSSES[name])
        inputs = subject.inputs(n=129, d=64, seed=seed)
        for temperature in TEMPERATURES:
            rows, counted = dense(subject.loss(temperature=temperature), *inputs)
            columns = 2 * 129 if name == "nt_xent" else 129
            assert 0.1 < rows[counted].mean() < math.log(columns)
