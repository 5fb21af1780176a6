from math import exp

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import CACRLoss, EmbeddingQueue
from contrastloss.functional import cacr
from contrastloss.testing import CHECKS, Subject, example


class Views(CACRLoss):
    """With three positives per row."""

    @staticmethod
    def example(n, d, generator):
        x, y = example(CACRLoss, n, d, generator)
        noise = torch.randn(n, 3, d, generator=generator, dtype=torch.float64)
        return x, y[:, None] + 0.1 * noise


@every_check
def test_properties(check, device):
    check(Subject(Views, {"beta": 1.5}, device, thorough=False))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (CACRLoss, {"tau_plus": 0.2}),
        (Views, {"detach_weights": True, "alpha": 2.0, "t_positive": 3.0}),
    ],
    ids=str,
)
def test_on_every_backend(cls, options, device, backend):
    CHECKS[0](Subject(cls, options, device, backend))


def test_by_hand(device, backend):
    # squared distances of the positives are 0, 2 and 2; those of x_0's negatives 2 and 4
    x, y = tensor(E1, E1, E2, device=device), tensor(E1, E2, [-1, 0], device=device)
    rows = cacr(x, y, reduction="none", backend=backend)
    first = (2 * exp(-4) + 4 * exp(-8)) / (exp(-4) + exp(-8))
    # those of x_1's negatives 0 and 4, of x_2's 2 and 0
    second = 4 * exp(-8) / (1 + exp(-8))
    third = 2 * exp(-4) / (1 + exp(-4))
    close(rows, [0 - first, 2 - second, 2 - third])


def test_positives_by_hand(device, backend):
    # for distances 0 and 2, the farther one has e^2t times the weight; negatives are first views
    x, y = tensor(E1, E2, device=device), tensor([E1, E2], [E2, E2], device=device)
    loss = CACRLoss(0.5, 3.0, 2.0, t_positive=0.5, reduction="none", backend=backend)
    close(loss(x, y), [3 * 4 * exp(2) / (1 + exp(2)) - 2 * 4, 0 - 2 * 4])


@pytest.mark.parametrize("detached", [True, False])
def test_gradient_of_the_weights_by_hand(detached, device, backend):
    # plain vectors: row 0 at 0 has its positive there and negatives at distances D = 1 and 4:
    # dl/dD = -p (1 - t (D - Dbar)), or -p with constant weights; dD/dx_0 = -2 y_j
    x = tensor([0, 0], [0, 0], [0, 0], device=device, grad=True)
    y = tensor([0, 0], [1, 0], [0, 2], device=device)
    loss = CACRLoss(
        t_negative=0.5, detach_weights=detached, normalize=False, reduction="none", backend=backend
    )(x, y)
    p = 1 / (1 + exp(-1.5))
    mean = p + 4 * (1 - p)
    close(loss[0], -mean)
    near, far = (1.0, 1.0) if detached else (1 - 0.5 * (1 - mean), 1 - 0.5 * (4 - mean))
    close(gradients(loss[0], x)[0][0], [2 * p * near, 4 * (1 - p) * far])


@pytest.mark.parametrize("detached", [True, False])
def test_one_row_is_attracted_alone(detached, device, backend):
    x, y = tensor(E1, device=device, grad=True), tensor(E2, device=device)
    loss = cacr(x, y, detach_weights=detached, backend=backend)
    close(loss, 2.0)
    close(gradients(loss, x)[0], [[0, -2]])


def test_errors():
    x = torch.randn(4, 3)
    for name in ("t_positive", "t_negative"):
        with pytest.raises(ValueError, match=f"^{name}: got 0.0, expected a positive"):
            CACRLoss(**{name: 0.0})
    with pytest.raises(ValueError, match=r"^beta: got 0\.0 with alpha=0, expected one of them"):
        CACRLoss(alpha=0.0, beta=0.0)
    with pytest.raises(ValueError, match=r"^y: got None, expected a tensor"):
        cacr(x)
    with pytest.raises(ValueError, match=r"^y: got a value with x of shape \(4, 2, 3\)"):
        cacr(x[:, None].expand(4, 2, 3), x)
    for y in (x[:3], x[:, :2], x[:, None][:, :0]):
        with pytest.raises(ValueError, match=r"^y: got shape .*, expected \(4, 3\) or \(4, K, 3\)"):
            cacr(x, y)


@pytest.mark.parametrize("views", [2, 5])
def test_views_are_attracted_and_repelled_in_pairs(views, device, backend):
    x = torch.randn(9, views, 6, device=device, dtype=torch.float64)
    options = {"reduction": "none", "backend": backend}
    found = cacr(x, alpha=2.0, beta=1.5, tau_plus=0.1, **options)
    want = 0
    for v in range(views):
        others = x[:, [w for w in range(views) if w != v]]
        want = want + cacr(x[:, v], others, alpha=2.0, beta=0.0, **options) / views
    pairs = [(v, w) for v in range(views) for w in range(v + 1, views)]
    for v, w in pairs:
        one = cacr(x[:, v], x[:, w], alpha=0.0, beta=1.5, tau_plus=0.1, **options)
        want = want + one / len(pairs)
    close(found, want)


@pytest.mark.parametrize("detached", [True, False])
def test_a_queue_has_further_negatives(detached, device, backend):
    x, rows = torch.randn(7, 4, device=device).double(), torch.randn(5, 4, device=device).double()
    queue = EmbeddingQueue(8, 4, dtype=torch.float64, device=device)
    queue.enqueue(rows)
    loss = CACRLoss(alpha=0.0, detach_weights=detached, reduction="none", backend=backend)
    z = x.requires_grad_()
    found = loss(z, z, memory=queue)
    unit, stored = normalize(z), normalize(rows)
    d = (unit[:, None] - unit).square().sum(2), (unit[:, None] - stored).square().sum(2)
    own = torch.eye(7, dtype=torch.bool, device=device)
    batch = (d[0].detach() if detached else d[0]).masked_fill(own, torch.inf)
    w = (-2.0 * torch.cat([d[1].detach(), batch], 1)).softmax(1)
    want = -(w * torch.cat([d[1], d[0]], 1)).sum(1)
    close(found, want)
    grads = [gradients(v.sum(), z)[0] for v in (found, want)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)
    # one row has the queue's alone
    alone = loss(z[:1], z[:1], memory=queue)
    close(alone, -((-2.0 * d[1][:1]).softmax(1) * d[1][:1]).sum(1))
