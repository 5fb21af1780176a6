from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import RegionAttributeLoss
from contrastloss.functional import region_attribute
from contrastloss.losses import region_attribute as module
from contrastloss.testing import CHECKS, Subject


class Padded(RegionAttributeLoss):
    """Some regions are missing, and all regions of one image."""

    @staticmethod
    def valid(regions):
        n = len(regions)
        rows, cols = (torch.arange(size, device=regions.device) for size in (n, 4))
        return ((rows[:, None] + cols) % 3 > 0) & (rows[:, None] != 2)

    def forward(self, regions, attributes, labels):
        return super().forward(regions, attributes, labels, valid=self.valid(regions))

    @staticmethod
    def reference(regions, *inputs, **options):
        valid = Padded.valid(regions)
        return RegionAttributeLoss.reference(regions, *inputs, valid=valid, **options)


@every_check
def test_properties(check, device):
    check(Subject(RegionAttributeLoss, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [RegionAttributeLoss, Padded])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {"own_term": cls is Padded}, device, backend))


class Projected(Padded):
    """Each attribute has a projection of its own."""

    forward = RegionAttributeLoss.forward

    @staticmethod
    def reference(regions, *inputs, **options):
        return RegionAttributeLoss.reference(regions, *inputs, **options)

    @staticmethod
    def example(n, d, generator):
        regions, attributes, labels = RegionAttributeLoss.example(n, d, generator)
        noise = torch.randn(n, 4, 7, d, generator=generator, dtype=torch.float64)
        return regions[:, :, None] + noise, attributes, labels


@pytest.mark.parametrize("own_term", [True, False])
def test_projections_of_attributes(own_term, device):
    subject = Subject(Projected, {"own_term": own_term}, device)
    CHECKS[0](subject)
    regions, attributes, labels = subject.inputs(n=9)
    valid = Padded.valid(regions)
    # the same projection for all attributes is the shared one
    shared = regions[:, :, :1].expand_as(regions)
    for given in (None, valid):
        one = region_attribute(regions[:, :, 0], attributes, labels, valid=given)
        close(region_attribute(shared, attributes, labels, valid=given), one)
    none = region_attribute(regions[:, :0], attributes, labels)
    assert none.item() == 0.0


def images(device, grad=False):
    """Images with two regions each: the first two have attribute e1, all have e2."""
    both = [E1, E2], [[0.6, 0.8], E2], [[-1.0, 0.0], E2], [E2, [0.0, -1.0]]
    regions = torch.tensor(both, dtype=torch.float64, device=device, requires_grad=grad)
    labels = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 1]], device=device).bool()
    return regions, tensor(E1, E2, device=device), labels


def test_by_hand(device):
    # best scores: 1, 0.6, 0, 0 with e1, and 1 with e2. The images without e1 score 0 and 0; no
    # image is without e2
    rows = region_attribute(*images(device), temperature=1.0, reduction="none")
    want = tensor([log(e + 2) - 1, 0], [log(e**0.6 + 2) - 0.6, 0], [0, 0], [0, 0], device=device)
    close(rows, want)
    value = region_attribute(*images(device), temperature=1.0)
    close(value, want.sum() / 6)
    rows = region_attribute(*images(device), temperature=1.0, own_term=True, reduction="none")
    close(rows[:2, 0], [log(e + 4) - 1, log(e**0.6 + 4) - 0.6])
    close(rows[:, 1], [log(e + 4) - 1] * 4)


def test_invalid_regions(device):
    """Image 0 loses its best region and scores 0; image 3 loses both and is not a negative."""
    valid = torch.tensor([[0, 1], [1, 1], [1, 1], [0, 0]], device=device).bool()
    regions, attributes, labels = images(device, grad=True)
    loss = RegionAttributeLoss(temperature=1.0, reduction="none")
    rows = loss(regions, attributes, labels, valid=valid)
    close(rows[:, 0], [log(2), log(e**0.6 + 1) - 0.6, 0.0, 0.0])
    (grad,) = gradients(rows.sum(), regions)
    assert grad.isfinite().all()
    assert not grad[~valid].any()


def test_in_blocks_of_images(device, monkeypatch):
    inputs = Subject(RegionAttributeLoss, device=device).inputs()
    want = RegionAttributeLoss()(*inputs)
    monkeypatch.setattr(module, "_HELD", 7 * inputs[1].numel())
    close(RegionAttributeLoss()(*inputs), want)


def test_no_positive_anywhere_is_zero(device):
    regions, attributes, labels = images(device, grad=True)
    value = RegionAttributeLoss()(regions, attributes, labels & False)
    assert value.item() == 0.0
    assert not gradients(value, regions)[0].any()


def test_errors():
    regions, attributes, labels = images("cpu")
    loss = RegionAttributeLoss()
    with pytest.raises(ValueError, match=r"^regions: got shape \(4, 2\), expected \(B, R, D\)"):
        loss(regions[0].expand(4, 2, 2)[:, 0], attributes, labels)
    with pytest.raises(ValueError, match=r"^regions|^attributes"):
        loss(regions[:, :, None].expand(4, 2, 3, 2), attributes, labels)
    with pytest.raises(ValueError, match=r"^attributes: got shape \(2, 1\), expected \(A, 2\)"):
        loss(regions, attributes[:, 1:], labels)
    with pytest.raises(TypeError, match=r"^labels: got dtype torch.int64, expected torch.bool"):
        loss(regions, attributes, labels.long())
    with pytest.raises(ValueError, match=r"^labels: got shape \(3, 2\), expected \(4, 2\)"):
        loss(regions, attributes, labels[1:])
    with pytest.raises(ValueError, match=r"^valid: got shape \(4, 1\), expected \(4, 2\)"):
        loss(regions, attributes, labels, valid=labels[:, 1:])
