import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLANLoss
from contrastloss.functional import clan
from contrastloss.testing import CHECKS, Subject
from contrastloss.testing.checks import check_low_precision


def classes(n, d, generator):
    """Rows around a centre, and unrelated negatives."""
    centre, z, negatives = torch.randn(3, n + 3, 9, generator=generator).double()
    return [centre[:1] + z[:n], 0.3 * centre[:1] + negatives]


@every_check
def test_properties(check, device):
    check(Subject(CLANLoss, {"margin": 0.5}, device, thorough=False, make=classes))


@pytest.mark.parametrize("squared", [False, True])
def test_on_every_backend(squared, device, backend):
    options = {"squared": squared, "alpha": 0.3}
    CHECKS[0](Subject(CLANLoss, options, device, backend, make=classes))


@pytest.mark.parametrize("squared", [False, True])
def test_by_hand(squared, device, backend):
    # ordered pairs of rows: distances 0 (twice) and 1/2 (four times)
    z = tensor(E1, E1, E2, device=device)
    # distances to the negatives: 1/2 and 1 for e1 (twice), 0 and 1/2 for e2
    negatives = tensor(E2, [-1, 0], device=device)
    p = 2 if squared else 1
    options = {"squared": squared, "backend": backend}
    attract = 4 * 0.5**p / 4
    close(clan(z, negatives, alpha=1, **options), attract)
    # hinges: 1/2 (three times), 1, 0 (twice)
    repel = (3 * 0.5**p + 1) / 4
    close(clan(z, negatives, **options), 0.5 * attract + 0.5 * repel)
    # hinges with margin 0.75: 1/4 (three times), 3/4
    repel = (3 * 0.25**p + 0.75**p) / 4
    close(clan(z, negatives, margin=0.75, alpha=0.2, **options), 0.2 * attract + 0.8 * repel)
    # values of at most eps = 1/4 ** p are in the sum but not in the count
    close(clan(z, negatives, margin=0.75, eps=0.3**p, alpha=0, **options), 4 * repel)


def test_low_precision(device, backend):
    """With negatives close to their rows."""

    def near(n, d, generator):
        return CLANLoss.example(129, 64, generator)

    check_low_precision(
        Subject(CLANLoss, {"alpha": 0.2, "margin": 1.0}, device, backend, make=near)
    )


def test_a_term_without_pairs_is_0(device, backend):
    z = tensor(E1, E1, device=device, grad=True)
    far = tensor([-1, 0], device=device, grad=True)
    for rows, negatives in ((z, far), (z[:1], far[:0]), (z[:0], far), (z, far[:0])):
        value = clan(rows, negatives, margin=0.5, backend=backend)
        close(value, 0.0)
        assert all(
            g.isfinite().all() for g in gradients(value + 0 * z.sum() + 0 * far.sum(), z, far)
        )


def test_errors(device):
    z = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"^alpha: got 2, expected a number from 0 to 1"):
        CLANLoss(2)
    for name in ("margin", "eps"):
        with pytest.raises(ValueError, match=rf"^{name}: got 0, expected a positive finite"):
            CLANLoss(**{name: 0})
    with pytest.raises(ValueError, match=r"^negatives: got shape \(3, 1\), expected \(M, 2\)"):
        clan(z, z[:, :1])
    with pytest.raises(TypeError, match=r"^negatives: got dtype torch.float64, expected z's"):
        clan(z, z.double())
