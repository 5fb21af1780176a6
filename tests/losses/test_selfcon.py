from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import NTXentLoss, SelfConLoss, SupConLoss
from contrastloss.functional import selfcon
from contrastloss.testing import CHECKS, Subject


class Columns(SelfConLoss):
    """Three columns of labels; some rows have no label."""

    @staticmethod
    def example(n, d, generator):
        z, labels = SelfConLoss.example(n, d, generator)
        others = torch.randint(-1, 3, (n, 2), generator=generator)
        return z, torch.cat([labels[:, None], others], 1)


@every_check
def test_properties(check, device):
    check(Subject(SelfConLoss, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [SelfConLoss, Columns])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {}, device, backend))


def test_by_hand(device, backend):
    # rows e1, e1 | e1, e2 | e2, e2. Labels in the first column: 0, 0, 1; in the second: 5 for the
    # first instance, none for the others.
    z = tensor(E1, E1, E1, E2, E2, E2, device=device).view(3, 2, 2)
    labels = torch.tensor([[0, 5], [0, -1], [1, -1]], device=device)
    # the others of e1 are e1, e1, e2, e2, e2; for e2 the scores are the same
    every = log(2 * e + 3)
    first = [[every - 2 / 3, every - 2 / 3], [every - 2 / 3, every], [every - 1, every - 1]]
    second = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]  # its two rows are the only ones
    want = torch.stack([torch.tensor(v, dtype=torch.float64) for v in (first, second)], -1)
    options = {"temperature": 1.0, "backend": backend}
    close(selfcon(z, labels, reduction="none", **options), want)
    close(selfcon(z, labels, reduction="sum", **options), want.sum())
    # the mean over six rows plus the mean over two rows
    close(selfcon(z, labels, **options), want[..., 0].sum() / 6 + want[..., 1].sum() / 2)


def test_one_column_is_supcon_and_no_labels_are_instances(device, backend):
    z = torch.randn(5, 2, 4, device=device, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 3], device=device)
    close(selfcon(z, labels, backend=backend), SupConLoss(0.07, backend=backend)(z, labels))
    want = NTXentLoss(0.07, backend=backend)(*z.unbind(1))
    close(selfcon(z, backend=backend), want)
    close(selfcon(z, torch.arange(5, device=device)[:, None], backend=backend), want)


def test_without_labels_the_loss_is_zero(device, backend):
    z = torch.randn(3, 2, 4, device=device, requires_grad=True)
    for labels in (torch.full((3,), -1, device=device), torch.full((3, 2), -7, device=device)):
        loss = selfcon(z, labels, backend=backend)
        assert loss.item() == 0.0
        assert not gradients(loss, z)[0].any()


def test_compiles_with_columns(device):
    inputs = Subject(Columns, {}, device).inputs(dtype=torch.float32)
    loss = SelfConLoss()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), loss(*inputs))


def test_errors(device):
    z = torch.ones(3, 2, 2, device=device)
    with pytest.raises(ValueError, match=r"z: got shape \(2, 2\), expected \(N, V, D\)"):
        selfcon(z[0])
    with pytest.raises(
        TypeError, match=r"labels: got dtype torch.float32, expected an integer one"
    ):
        selfcon(z, torch.ones(3, device=device))
    with pytest.raises(ValueError, match=r"labels: got shape \(3, 9\), expected \(3,\) or"):
        selfcon(z, torch.ones(3, 9, device=device).long())
