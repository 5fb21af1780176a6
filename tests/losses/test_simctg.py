import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SimCTGLoss
from contrastloss.functional import simctg
from contrastloss.testing import CHECKS, Subject


class Padded(SimCTGLoss):
    """With different padding in every sequence."""

    @staticmethod
    def example(n, d, generator):
        (h,) = SimCTGLoss.example(n, d, generator)
        return h, torch.rand(2, n, generator=generator) < 0.7


@every_check
def test_properties(check, device):
    check(Subject(Padded, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [SimCTGLoss, Padded])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {}, device, backend))


def test_by_hand(device, backend):
    # cosines of the first sequence: 0.6, 0 and 0.8; of the second: 1, -1 and -1
    h = tensor([E1, [0.6, 0.8], E2], [E1, E1, [-2.0, 0.0]], device=device)
    valid = torch.tensor([[True, True, True], [True, True, False]], device=device)
    want = [[0.1, 0.1 + 0.3, 0.3], [0.5, 0.5, 0.0]]
    close(simctg(h, valid, reduction="none", backend=backend), want)
    close(simctg(h, reduction="none", backend=backend), want)  # padding is dissimilar to all tokens
    close(simctg(h, valid, backend=backend), 1.8 / (6 + 2))
    close(simctg(h, backend=backend), 1.8 / 12)
    close(SimCTGLoss(0.5, margin=0.9, backend=backend)(h[:1]), 2 * (0.1 + 0.5) / 6)


def test_padding_is_ignored(device, backend):
    h, valid = Subject(Padded, device=device).inputs(n=9)
    h.requires_grad_()
    loss = SimCTGLoss(backend=backend)(h, valid)
    (grad,) = gradients(loss, h)
    assert grad[valid].any(-1).all()
    assert not grad[~valid].any()
    # one sequence at a time, without padding
    pairs = [int(v.sum() * (v.sum() - 1)) for v in valid]
    alone = [SimCTGLoss(reduction="sum", backend=backend)(h[k : k + 1, valid[k]]) for k in (0, 1)]
    close(loss, (alone[0] + alone[1]).detach() / sum(pairs))


def test_nothing_to_separate_is_zero(device, backend):
    h = torch.randn(2, 4, 3, device=device, requires_grad=True)
    valid = torch.zeros(2, 4, dtype=torch.bool, device=device)
    valid[1, 2] = True
    for value in (simctg(h, valid, backend=backend), simctg(h[:, :1], backend=backend)):
        assert value.item() == 0.0
        assert not gradients(value, h)[0].any()


def test_errors():
    h = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match=r"^margin: got inf, expected a finite number"):
        SimCTGLoss(margin=float("inf"))
    with pytest.raises(ValueError, match=r"^h: got shape \(4, 3\), expected \(B, T, D\)"):
        simctg(h[0])
    with pytest.raises(TypeError, match=r"^valid: got dtype torch.float32, expected torch.bool"):
        simctg(h, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"^valid: got shape \(2, 3\), expected \(2, 4\)"):
        simctg(h, torch.ones(2, 3, dtype=torch.bool))
