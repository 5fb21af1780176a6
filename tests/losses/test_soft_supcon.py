from math import e, log, log1p, sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SoftSupConLoss, SupConLoss
from contrastloss.functional import soft_supcon
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(SoftSupConLoss, {}, device, thorough=False))


@pytest.mark.parametrize("variant", ["ce", "bce"])
@pytest.mark.parametrize("normalized", [True, False])
def test_on_every_backend(variant, normalized, device, backend):
    options = {"variant": variant, "normalize_targets": normalized}
    CHECKS[0](Subject(SoftSupConLoss, options, device, backend))


def test_accuracy_of_bce(device):
    check = next(check for check in CHECKS if check.__name__ == "check_accuracy")
    check(Subject(SoftSupConLoss, {"variant": "bce"}, device, thorough=False))


def test_by_hand(device, backend):
    # t_01 = 1 / sqrt 2, t_02 = 0, t_12 = 1 / sqrt 2; s_01 = 1, s_02 = s_12 = 0
    z = tensor(E1, E1, E2, device=device)
    targets = torch.tensor([[1, 0], [1, 1], [0, 1]], device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    rows = soft_supcon(z, targets, **options)
    close(rows, [log(e + 1) - 1, log(e + 1) - 1 / 2, log(2)])
    rows = soft_supcon(z, targets, variant="bce", **options)
    pair = (log1p(e) + log(2)) / 2
    close(rows, [pair - sqrt(0.5) / 2, pair - sqrt(0.5) / 2, log(2)])
    # without normalisation t_01 = t_12 = 1
    rows = soft_supcon(z, targets, variant="bce", normalize_targets=False, **options)
    close(rows, [pair - 1 / 2, pair - 1 / 2, log(2)])


def test_one_hot_targets_are_labels(device, backend):
    z = torch.randn(9, 4, device=device, dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 2, 2, 3], device=device)
    one_hot = torch.nn.functional.one_hot(labels)
    close(soft_supcon(z, one_hot, backend=backend), SupConLoss(0.1, backend=backend)(z, labels))


def test_soft_targets_are_constants(device, backend):
    z = torch.randn(5, 3, device=device, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(5, 4, device=device, dtype=torch.float64, requires_grad=True)
    loss = soft_supcon(z, targets, backend=backend)
    close(loss, SoftSupConLoss.reference(
        torch.nn.functional.normalize(z), targets, scale=10.0, bias=0.0, variant="ce",
        normalize_targets=True,
    )[0].mean())  # fmt: skip
    assert gradients(loss, z)[0].any()
    loss = soft_supcon(z, targets, backend=backend)
    assert torch.autograd.grad(loss, targets, allow_unused=True) == (None,)
    negative = targets.detach() - 2 * torch.eye(5, 4, device=device)
    close(
        soft_supcon(z, negative, backend=backend),
        soft_supcon(z, negative.clamp_min(0), backend=backend),
    )


@pytest.mark.parametrize("variant", ["ce", "bce"])
def test_nothing_in_common(variant, device, backend):
    z = torch.randn(4, 3, device=device, requires_grad=True)
    loss = soft_supcon(z, torch.eye(4, device=device), variant=variant, backend=backend)
    (grad,) = gradients(loss, z)
    assert grad.isfinite().all()
    assert (loss.item() == 0.0) == (variant == "ce")
    assert grad.any() == (variant == "bce")
    alone = soft_supcon(z[:1], torch.ones(1, 2, device=device), variant=variant, backend=backend)
    assert alone.item() == 0.0


def test_errors(device):
    z = torch.ones(3, 2, device=device)
    with pytest.raises(TypeError, match="targets: got list, expected a tensor"):
        soft_supcon(z, [[1.0]])
    with pytest.raises(ValueError, match=r"targets: got shape \(3,\), expected \(3, C\)"):
        soft_supcon(z, torch.ones(3, device=device))
    with pytest.raises(ValueError, match=r"targets: got -1\.0, expected none below 0"):
        soft_supcon(z, -torch.ones(3, 2, device=device), validate=True)
