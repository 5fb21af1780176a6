from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CMIMLoss, InfoNCELoss
from contrastloss.functional import cmim
from contrastloss.testing import CHECKS, Subject


class Single(CMIMLoss):
    """With one view."""

    @staticmethod
    def example(n, d, generator):
        return CMIMLoss.example(n, d, generator)[:1]


@every_check
def test_properties(check, device):
    check(Subject(CMIMLoss, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [CMIMLoss, Single])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {}, device, backend))


def test_one_view_compiles(device):
    (z,) = Subject(Single, device=device).inputs(dtype=torch.float32)
    compiled = torch.compile(CMIMLoss(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z), CMIMLoss()(z))


def test_by_hand(device, backend):
    # cosines of the pairs: 1, 0 and 0; s_ii = 1
    z = tensor(E1, [5, 0], E2, device=device)
    rows = cmim(z, temperature=1.0, reduction="none", backend=backend)
    near = log(1 + (e + 1) / 2 / e)
    close(rows, [near, near, log(1 + 1 / e)])
    # dot products: s_ii = 1, 25 and 1, s_01 = 5
    rows = cmim(z, temperature=1.0, normalize=False, reduction="none", backend=backend)
    near = (exp(5) + 1) / 2
    close(rows, [log(1 + near / e), log(1 + near / exp(25)), log(1 + 1 / e)])


def test_two_views_by_hand(device, backend):
    # s = [[0.6, 1, 1], [0.8, 0, 0], [0.6, 1, 1]]
    z, y = tensor(E1, E2, E1, device=device), tensor([0.6, 0.8], E1, E1, device=device)
    rows = cmim(z, y, temperature=1.0, reduction="none", backend=backend)
    close(rows[0], log(1 + exp(1.0 - 0.6)))
    close(rows[1], log(1 + (exp(0.8) + 1) / 2))
    close(rows[2], log(1 + (exp(0.6) + e) / 2 / e))


def test_two_rows_are_info_nce(device, backend):
    z, y = torch.randn(2, 2, 5, dtype=torch.float64, device=device)
    close(cmim(z, y, backend=backend), InfoNCELoss(backend=backend)(z, y))


def test_one_row_is_zero(device, backend):
    z = torch.randn(1, 4, device=device, requires_grad=True)
    for loss in (cmim(z, backend=backend), cmim(z, z.detach() + 1, backend=backend)):
        assert loss.item() == 0.0
        assert not gradients(loss, z)[0].any()


def test_errors():
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"^y: got shape \(3, 3\), expected z's \(4, 3\)"):
        cmim(z, z[:3])
    z[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^z: got NaN or infinity in 1 of 4 rows"):
        cmim(z, validate=True)
