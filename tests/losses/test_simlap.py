from math import exp, log1p

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SimLAPLoss
from contrastloss.functional import simlap
from contrastloss.testing import CHECKS, Subject


@every_check
@pytest.mark.parametrize("renormalize", [False, True])
def test_properties(check, renormalize, device):
    check(Subject(SimLAPLoss, {"renormalize": renormalize}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(SimLAPLoss, {"mean_over": "pairs"}, device, backend))


def test_by_hand(device, backend):
    # a query of class 0, paired with class 1; scores 1/4, 0, 1 and -1 without the first gate
    z, gate = tensor([3, 0], E1, device=device), tensor([0.5, 9], [1, 1], device=device)
    keys = tensor(E1, E2, [-2, 0], E1, device=device)
    labels = torch.tensor([[0, 1], [2, 2]], device=device)
    key_labels = torch.tensor([1, 1, 2, 0], device=device)
    options = {"temperature": 1.0, "backend": backend}
    # row 0: positives 1/4 and 0, negative -1/4. Row 1: positive -1, negatives 1, 0, 1
    first = [log1p(exp(-0.5)), log1p(exp(-0.25))]
    second = log1p((2 * exp(1) + 1) / exp(-1))
    inputs = (z, keys, gate, labels, key_labels)
    close(simlap(*inputs, reduction="none", **options), [sum(first) / 2, second])
    close(simlap(*inputs, **options), (sum(first) / 2 + second) / 2)
    close(simlap(*inputs, mean_over="pairs", **options), (sum(first) + second) / 3)


def test_renormalized_some_rows_at_a_time(monkeypatch, device):
    """One or several rows at a time give the same, also by a compiler."""
    inputs = [
        v.requires_grad_() if v.is_floating_point() else v
        for v in Subject(SimLAPLoss, {}, device).inputs(n=31)
    ]
    wanted = [v for v in inputs if v.requires_grad]
    want = simlap(*inputs, renormalize=True)
    grads = gradients(want, *wanted)
    for held in (1, 100):
        monkeypatch.setattr("contrastloss.losses.simlap._HELD", held)
        found = simlap(*inputs, renormalize=True)
        close(found, want)
        torch.testing.assert_close(gradients(found, *wanted), grads, rtol=1e-10, atol=1e-14)


def test_without_positives_or_without_negatives(device, backend):
    z, gate, keys = torch.randn(3, 4, 3, device=device, requires_grad=True)
    for labels, key_labels in (([0, 1], [0, 2, 3, 4]), ([0, 1], [1, 0, 1, 0])):
        labels = torch.tensor([labels] * 4, device=device)
        loss = simlap(z, keys, gate, labels, torch.tensor(key_labels, device=device),
                      backend=backend)  # fmt: skip
        assert loss.item() == 0.0
        assert not any(grad.any() for grad in gradients(loss, z, gate, keys))


def test_low_precision(device):
    """The gated query is not rounded to the embeddings' dtype."""
    inputs = Subject(SimLAPLoss, {}, device).inputs(n=30, dtype=torch.bfloat16)
    loss = SimLAPLoss(0.02)
    wide = [v.double() if v.is_floating_point() else v for v in inputs]
    torch.testing.assert_close(loss(*inputs).double(), loss(*wide), rtol=1e-5, atol=0)


def test_errors(device):
    z, labels = torch.ones(3, 2, device=device), torch.zeros(3, 2, device=device).long()
    with pytest.raises(ValueError, match=r"gate: got shape \(2, 2\), expected z's \(3, 2\)"):
        simlap(z, z, z[:2], labels, labels[:, 0])
    with pytest.raises(ValueError, match=r"labels: got shape \(3,\), expected \(3, 2\)"):
        simlap(z, z, z, labels[:, 0], labels[:, 0])
    with pytest.raises(
        TypeError, match=r"labels: got dtype torch.float32, expected an integer one"
    ):
        simlap(z, z, z, z, labels[:, 0])
    with pytest.raises(ValueError, match="key_labels: got shape"):
        simlap(z, z, z, labels, labels[:2, 0])
