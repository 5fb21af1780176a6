from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CleanCLIPLoss, CLIPLoss, InfoNCELoss
from contrastloss.functional import clean_clip
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(CleanCLIPLoss, {"inter": 0.5, "intra": 2.0}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(CleanCLIPLoss, {}, device, backend))


def test_by_hand(device):
    # images and texts: s = [[0.6, 1.0], [0.8, 0.0]]; images and augmentations: identity; texts and
    # augmentations [e1, e2]: s = [[0.6, 0.8], [1.0, 0.0]], by rows only
    image, text = tensor(E1, E2, device=device), tensor([0.6, 0.8], E1, device=device)
    rows = clean_clip(image, text, image, image, temperature=1.0, reduction="none")
    first = log(1 + exp(0.4)) + log(1 + exp(0.2)) + log(1 + exp(-1)) + log(1 + exp(0.2))
    second = log(1 + exp(0.8)) + log(1 + exp(1.0)) + log(1 + exp(-1)) + log(1 + exp(1.0))
    close(rows, [first / 2, second / 2])


def test_one_scale_for_all_terms(device):
    x = torch.randn(4, 7, 5, device=device, dtype=torch.float64)
    scale = torch.tensor(7.0, device=device, dtype=torch.float64, requires_grad=True)
    value = CleanCLIPLoss(3.0, 0.5)(*x, logit_scale=scale)
    one, both = InfoNCELoss(), CLIPLoss()
    within = one(x[0], x[2], logit_scale=scale) + one(x[1], x[3], logit_scale=scale)
    want = 3 * both(x[0], x[1], logit_scale=scale) + 0.25 * within
    close(value, want)
    close(gradients(value, scale)[0], gradients(want, scale)[0])


def test_one_row_has_no_negative(device):
    x = torch.randn(4, 1, 5, device=device, requires_grad=True)
    value = CleanCLIPLoss()(*x)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors():
    x, loss = torch.randn(4, 3), CleanCLIPLoss()
    with pytest.raises(ValueError, match=r"^text_augmented: got shape \(3, 3\), expected image's"):
        loss(x, x, x, x[:3])
    with pytest.raises(TypeError, match=r"^image_augmented: got dtype torch.float64, expected im"):
        loss(x, x, x.double(), x)
    with pytest.raises(ValueError, match=r"^image: got shape \(3,\), expected \(N, D\)"):
        loss(x[0], x, x, x)
