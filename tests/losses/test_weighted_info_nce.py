from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import InfoNCELoss, WeightedInfoNCELoss
from contrastloss.functional import weighted_info_nce
from contrastloss.testing import CHECKS, Subject, example


def log_q(x):
    """Between log 1/20 and 0, the same for equal numbers of rows."""
    return torch.linspace(-3.0, 0.0, len(x), dtype=x.dtype, device=x.device)


class Weighted(WeightedInfoNCELoss):
    """With row weights and probabilities."""

    def forward(self, x, y, **overrides):
        weights = {"row_weight": log_q(x).cos(), "log_q": log_q(x)}
        return super().forward(x, y, **weights, **overrides)

    @staticmethod
    def reference(x, y, **options):
        weights = {"row_weight": log_q(x).cos(), "log_q": log_q(x)}
        return WeightedInfoNCELoss.reference(x, y, **weights, **options)

    @staticmethod
    def example(n, d, generator):
        return example(WeightedInfoNCELoss, n, d, generator)


@every_check
def test_properties(check, device):
    check(Subject(WeightedInfoNCELoss, {}, device, thorough=False))


@pytest.mark.parametrize("options", [{}, {"correct_positive": False}], ids=str)
def test_on_every_backend(options, device, backend):
    CHECKS[0](Subject(Weighted, options, device, backend))


def test_compiles_with_weights(device):
    x, y = Subject(WeightedInfoNCELoss, device=device).inputs(dtype=torch.float32)
    loss, weights = WeightedInfoNCELoss(), {"row_weight": log_q(x).cos(), "log_q": log_q(x)}
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y, **weights), loss(x, y, **weights))


def test_by_hand(device, backend):
    # s = [[0.6, 1.0], [0.8, 0.0]] and q = (1/2, 1/4): log 2 and log 4 are added to the columns
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], E1, device=device)
    q, w = tensor(0.5, 0.25, device=device).log(), tensor(3.0, 0.5, device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    rows = weighted_info_nce(x, y, row_weight=w, log_q=q, **options)
    close(rows, [3 * log(1 + 4 * e / (2 * exp(0.6))), 0.5 * log(1 + 2 * exp(0.8) / 4)])
    rows = weighted_info_nce(x, y, log_q=q, correct_positive=False, **options)
    close(rows, [log(1 + 4 * e / exp(0.6)), log(1 + 2 * exp(0.8))])
    # the mean is over rows, not over weights
    mean = WeightedInfoNCELoss(1.0, backend=backend)(x, y, row_weight=w)
    close(mean, (3 * log(1 + exp(0.4)) + 0.5 * log(1 + exp(0.8))) / 2)


def test_equal_probabilities_are_info_nce(device, backend):
    x, y = Subject(WeightedInfoNCELoss, device=device).inputs()
    loss = WeightedInfoNCELoss(return_stats=True, backend=backend)
    got, stats = loss(x, y, log_q=torch.full_like(x[:, 0], -5.0))
    want, plain = InfoNCELoss(return_stats=True, backend=backend)(x, y)
    close(got, want)
    for name in plain:
        close(stats[name], plain[name])


def test_weights_get_no_gradient(device):
    x, y = tensor(E1, E2, device=device, grad=True), tensor([0.6, 0.8], E1, device=device)
    q, w = (torch.ones(2, dtype=torch.float64, device=device, requires_grad=True) for _ in "qw")
    WeightedInfoNCELoss()(x, y, row_weight=w, log_q=q).backward()
    assert q.grad is None
    assert w.grad is None
    assert x.grad.any()


def test_a_row_alone_is_zero(device, backend):
    x = torch.randn(1, 4, device=device, requires_grad=True)
    loss = WeightedInfoNCELoss(backend=backend)(x, x.detach() + 1, log_q=x.detach()[:, 0])
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


@pytest.mark.parametrize("name", ["row_weight", "log_q"])
def test_errors(name):
    x = torch.randn(4, 3)
    with pytest.raises(TypeError, match=f"^{name}: got list, expected a tensor"):
        weighted_info_nce(x, x, **{name: [1.0] * 4})
    with pytest.raises(
        TypeError, match=f"^{name}: got dtype torch.int64, expected a floating dtype"
    ):
        weighted_info_nce(x, x, **{name: torch.arange(4)})
    with pytest.raises(ValueError, match=rf"^{name}: got shape \(3,\), expected \(4,\)"):
        weighted_info_nce(x, x, **{name: torch.ones(3)})
