from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SupConLoss, SupReMixLoss
from contrastloss.functional import supremix
from contrastloss.testing import CHECKS, Subject


class Views(SupReMixLoss):
    """With two views of every instance."""

    @staticmethod
    def example(n, d, generator):
        z, labels = SupReMixLoss.example(2 * n, d, generator)
        return z.view(n, 2, d), labels[:n]


@every_check
def test_properties(check, device):
    check(Subject(SupReMixLoss, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [SupReMixLoss, Views])
@pytest.mark.parametrize("weighting", ["distance", "inverse"])
def test_on_every_backend(cls, weighting, device, backend):
    CHECKS[0](Subject(cls, {"weighting": weighting}, device, backend))


def test_by_hand(device, backend):
    # row 0: scores 1, 0, 0 with the others; label distances 0, 2 and 0.5
    z = tensor(E1, E1, E2, E2, device=device)
    labels = torch.tensor([0.0, -0.0, 2.0, 0.5], device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    for weighting, row in [
        ("distance", log(e + 3 + 1.5) - 1),
        ("inverse", log(e + 1 / 3 + 1 / 1.5) - 1),
        (None, log(e + 2) - 1),
    ]:
        rows = supremix(z, labels, weighting=weighting, **options)
        close(rows, [row, row, 0.0, 0.0])
        mean = supremix(z, labels, weighting=weighting, temperature=1.0, backend=backend)
        close(mean, row)  # over the two rows that have a positive


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.uint8])
def test_labels_of_any_real_type(dtype, device, backend):
    z = torch.randn(6, 3, device=device)
    labels = torch.tensor([0, 3, 3, 0, 1, 3], device=device)
    close(
        supremix(z, labels.to(dtype), backend=backend).double(),
        supremix(z, labels, backend=backend).double(),
    )


def test_without_weights_it_is_supcon(device, backend):
    z = torch.randn(5, 2, 4, device=device, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 3], device=device)
    ours = supremix(z, labels.double(), temperature=0.1, weighting=None, backend=backend)
    close(ours, SupConLoss(0.1, backend=backend)(z, labels))


def test_labels_are_constants_and_no_positive_is_zero(device, backend):
    z = torch.randn(4, 3, device=device, requires_grad=True)
    labels = torch.rand(4, device=device, requires_grad=True)
    loss = supremix(z, labels, backend=backend)
    assert loss.item() == 0.0
    assert not gradients(loss, z)[0].any()


def test_errors(device):
    z = torch.ones(3, 2, device=device)
    with pytest.raises(TypeError, match="labels: got list, expected a tensor"):
        supremix(z, [1.0])
    with pytest.raises(ValueError, match=r"labels: got shape \(2,\), expected \(3,\)"):
        supremix(z, z[:2, 0])
    with pytest.raises(ValueError, match="labels: got NaN or infinity in 3 of 3 rows"):
        supremix(z, z[:, 0] / 0, validate=True)
    with pytest.raises(ValueError, match=r"z: got shape \(2,\), expected \(N, D\)"):
        supremix(z[0], z[0])
    labels = torch.arange(3, device=z.device)
    made = SupReMixLoss.mixtures(labels)
    with pytest.raises(TypeError, match="mixtures: got 4 of them, expected a tuple of 5 tensors"):
        supremix(z, labels, mixtures=made[:4])
    with pytest.raises(ValueError, match=r"mixtures: got shape \(2, 4\), expected \(3, K\)"):
        supremix(z, labels, mixtures=(made[0][:2], *made[1:]))
