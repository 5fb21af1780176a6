from math import exp, log, sqrt

import pytest
import torch
from properties import E1, close, every_check, tensor

from contrastloss import EmbeddingQueue, PooledSupConLoss, SupConLoss
from contrastloss.functional import pooled_supcon
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(PooledSupConLoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    options = {"variant": "in", "image_weight": 0.6}
    CHECKS[0](Subject(PooledSupConLoss, options, device, backend))


def test_by_hand(device, backend):
    # z = unit(.75 e1 + .25 e2), e1 and e1; the first has cosine 3 / sqrt 10 with the others
    image, text = tensor(E1, E1, E1, device=device), tensor([0, 7], E1, E1, device=device)
    labels = torch.tensor([0, 0, 1], device=device)
    rows = pooled_supcon(
        image, text, labels, temperature=1.0, image_weight=0.75, reduction="none", backend=backend
    )
    near = 3 / sqrt(10)
    close(rows, [log(2), log(exp(near) + exp(1)) - near, 0.0])
    # without normalisation the text has norm 7: unit(.75 e1 + 1.75 e2)
    rows = pooled_supcon(
        image, text, labels, temperature=1.0, image_weight=0.75, normalize=False,
        reduction="none", backend=backend,
    )  # fmt: skip
    near = 0.75 / sqrt(0.75**2 + 1.75**2)
    close(rows, [log(2), log(exp(near) + exp(1)) - near, 0.0])


def test_one_side_alone_is_supcon(device, backend):
    image, text = torch.randn(2, 8, 4, device=device, dtype=torch.float64)
    labels = torch.arange(8, device=device) // 3
    queue = EmbeddingQueue(5, 4, labels=True, dtype=torch.float64, device=device)
    queue.enqueue(tensor([0.6, 0.8, 0, 0], device=device), torch.zeros(1, device=device).long())
    for weight, side in ((1, image), (0, text)):
        got = pooled_supcon(image, text, labels, memory=queue, image_weight=weight, backend=backend)
        close(got, SupConLoss(backend=backend)(side, labels, memory=queue))


def test_errors(device):
    image = torch.ones(3, 2, device=device)
    labels = torch.zeros(3, device=device).long()
    with pytest.raises(ValueError, match=r"text: got shape \(2, 2\), expected image's \(3, 2\)"):
        pooled_supcon(image, image[:2], labels)
    with pytest.raises(ValueError, match="labels: got shape"):
        pooled_supcon(image, image, labels[:2])
