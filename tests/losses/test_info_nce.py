from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor
from torch.nn.functional import cross_entropy, normalize

from contrastloss import InfoNCELoss
from contrastloss.functional import info_nce
from contrastloss.testing import Subject, check_loss, example
from contrastloss.testing.checks import check_statistics


class Shared(InfoNCELoss):
    """With 40 negatives that all rows share."""

    @staticmethod
    def example(n, d, generator):
        x, y, k = (torch.randn(m, d, generator=generator).double() for m in (n, n, 40))
        return x, x + 2.2 * y, k


class Own(InfoNCELoss):
    """With 5 negatives per row."""

    @staticmethod
    def example(n, d, generator):
        x, y = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        k = torch.randn(n, 5, d, generator=generator).double()
        return x, x + 2.0 * y, x[:, None] + 4.0 * k


class Remembering(InfoNCELoss):
    """With further negatives from a queue that is not full."""

    def forward(self, x, y, **overrides):
        return super().forward(x, y, memory=queue_for(x), **overrides)

    @staticmethod
    def reference(x, y, *, scale, bias):
        s = scale * (x @ torch.cat([y, rows_of(queue_for(x))]).mT) + bias
        return cross_entropy(s, torch.arange(len(x), device=x.device), reduction="none")

    @staticmethod
    def example(n, d, generator):
        return example(InfoNCELoss, n, d, generator)


@every_check
@pytest.mark.parametrize("cls", [InfoNCELoss, Shared, Own, Remembering])
def test_properties(check, cls, device, backend):
    if check is check_statistics and cls is Remembering:
        pytest.skip("those of a memory: tests/test_memory.py")
    queue_for(torch.zeros(1, 19, device=device))  # what is compiled cannot make it
    check(Subject(cls, {}, device, backend))


def test_two_rows_by_hand(device, backend):
    # s = [[0.6, 1.0], [0.8, 0.0]]: positives on the diagonal, each row's negative beside it
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], E1, device=device)
    rows = info_nce(x, y, temperature=1.0, reduction="none", backend=backend)
    close(rows[0], log(1 + exp(1.0 - 0.6)))
    close(rows[1], log(1 + exp(0.8 - 0.0)))


def test_temperature_divides(device, backend):
    x = tensor(E1, E2, device=device)  # s = identity / tau
    close(InfoNCELoss(1.0, backend=backend)(x, x), log(1 + 1 / e))
    close(InfoNCELoss(0.25, backend=backend)(x, x), log(1 + exp(-4)))
    close(InfoNCELoss(backend=backend)(x, x, logit_scale=3.0), log(1 + exp(-3)))


def test_gradient_by_hand(device, backend):
    # plain products: l_0 = log(1 + e^(s_01 - s_00)), p = 1/2 where all scores are equal:
    # dl_0/dx_0 = p (y_1 - y_0), dl_0/dy_0 = -p x_0, dl_0/dy_1 = p x_0
    x = tensor([1, 1], [0, 0], device=device, grad=True)
    y = tensor(E1, E2, device=device, grad=True)
    loss = InfoNCELoss(1.0, normalize=False, reduction="none", backend=backend)(x, y)
    dx, dy = gradients(loss[0], x, y)
    close(dx, [[-0.5, 0.5], [0, 0]])
    close(dy, [[-0.5, -0.5], [0.5, 0.5]])


def test_shared_negatives_by_hand(device, backend):
    # the positive scores 0, the two negatives 1 and -1; y's other row is no negative
    x, y = tensor(E1, E1, device=device), tensor(E2, E2, device=device)
    negatives = tensor(E1, [-1, 0], device=device)
    rows = InfoNCELoss(1.0, reduction="none", backend=backend)(x, y, negatives)
    close(rows, [log(1 + e + 1 / e)] * 2)


def test_own_negatives_by_hand(device, backend):
    # row 0 against a negative that scores 1, row 1 against one that scores -1
    x, y = tensor(E1, E1, device=device), tensor(E2, E2, device=device)
    negatives = tensor([E1], [[-1, 0]], device=device)
    rows = InfoNCELoss(1.0, reduction="none", backend=backend)(x, y, negatives)
    close(rows, [log(1 + e), log(1 + 1 / e)])


@pytest.mark.parametrize("own", [False, True])
def test_statistics_with_negatives(own, device, backend):
    x, y, k = (v.to(device) for v in (Own if own else Shared).example(9, 4, torch.Generator()))
    _, stats = InfoNCELoss(0.3, return_stats=True, backend=backend)(x, y, k)
    positive = (normalize(x) * normalize(y)).sum(1) / 0.3
    s = torch.einsum("nd,nkd->nk", normalize(x), normalize(k.expand(9, -1, 4), dim=-1)) / 0.3
    close(stats["positive"], positive.mean())
    close(stats["hardest_negative"], s.amax(1).mean())
    close(stats["lse"], s.logsumexp(1).mean())
    close(stats["accuracy"], (positive > s.amax(1)).double().mean())


@pytest.mark.parametrize("negatives", [(0, 3), (4, 0, 3)])
def test_no_negative_is_zero(negatives, device, backend):
    x = torch.randn(4, 3, device=device, requires_grad=True)
    loss = InfoNCELoss(backend=backend)(x, x.detach() + 1, torch.zeros(negatives, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


def test_negatives_get_gradients_on_their_own(device, backend):
    x, y, k = (v.to(device) for v in Shared.example(6, 4, torch.Generator()))
    k.requires_grad_()
    (dk,) = gradients(InfoNCELoss(1.0, normalize=False, backend=backend)(x, y, k), k)
    s = torch.cat([(x * y).sum(1, keepdim=True), x @ k.detach().T], 1)
    close(dk, (s.softmax(1)[:, 1:].T @ x) / 6)


def test_check_loss_serves_users(device):
    check_loss(InfoNCELoss, device=device, temperature=0.2)
