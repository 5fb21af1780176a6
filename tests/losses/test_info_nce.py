from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor
from torch.nn.functional import cross_entropy, normalize

from contrastloss import InfoNCELoss
from contrastloss.functional import info_nce
from contrastloss.testing import Subject, check_loss, example
from contrastloss.testing.checks import check_gradients, check_statistics


class Shared(InfoNCELoss):
    """With 40 negatives shared by all rows, in place of the batch's."""

    in_batch_negatives: bool = False

    @staticmethod
    def example(n, d, generator):
        x, y, k = (torch.randn(m, d, generator=generator).double() for m in (n, n, 40))
        return x, x + 2.2 * y, k


class Own(InfoNCELoss):
    """With 5 negatives per row, in place of the batch's."""

    in_batch_negatives: bool = False

    @staticmethod
    def example(n, d, generator):
        x, y = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        k = torch.randn(n, 5, d, generator=generator).double()
        return x, x + 2.0 * y, x[:, None] + 4.0 * k


class Remembering(InfoNCELoss):
    """With additional negatives from a partly filled queue."""

    def forward(self, x, y, **overrides):
        return super().forward(x, y, memory=queue_for(x), **overrides)

    @staticmethod
    def reference(x, y, *, scale, bias, **_):
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
    queue_for(torch.zeros(1, 19, device=device))  # created here, not in a compiled forward
    check(Subject(cls, {}, device, backend, thorough=cls is InfoNCELoss))


@every_check
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (InfoNCELoss, {"top_k": 3}),
        (InfoNCELoss, {"hardness": 4.0}),
        (Shared, {"hardness": 4.0}),
        (Own, {"top_k": 3, "hardness": 4.0}),
    ],
)
def test_properties_of_hard_negatives(check, cls, options, device, backend):
    if check is check_statistics and cls is InfoNCELoss:
        pytest.skip("the denominator is another one: test_statistics_of_hard_negatives")
    if check is check_gradients and "hardness" in options:
        pytest.skip("a constant weight is no derivative")
    check(Subject(cls, options, device, backend, thorough=False))


def test_two_rows_by_hand(device, backend):
    # s = [[0.6, 1.0], [0.8, 0.0]]: positives on the diagonal, negatives off it
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
    # dot products: l_0 = log(1 + e^(s_01 - s_00)), and p = 1/2, since all scores are equal:
    # dl_0/dx_0 = p (y_1 - y_0), dl_0/dy_0 = -p x_0, dl_0/dy_1 = p x_0
    x = tensor([1, 1], [0, 0], device=device, grad=True)
    y = tensor(E1, E2, device=device, grad=True)
    loss = InfoNCELoss(1.0, normalize=False, reduction="none", backend=backend)(x, y)
    dx, dy = gradients(loss[0], x, y)
    close(dx, [[-0.5, 0.5], [0, 0]])
    close(dy, [[-0.5, -0.5], [0.5, 0.5]])


def test_shared_negatives_by_hand(device, backend):
    # positive score 0, negative scores 1 and -1; the other row of y is not a negative
    x, y = tensor(E1, E1, device=device), tensor(E2, E2, device=device)
    negatives = tensor(E1, [-1, 0], device=device)
    loss = InfoNCELoss(1.0, in_batch_negatives=False, reduction="none", backend=backend)
    rows = loss(x, y, negatives)
    close(rows, [log(1 + e + 1 / e)] * 2)


def test_own_negatives_by_hand(device, backend):
    # negative score 1 for row 0, -1 for row 1
    x, y = tensor(E1, E1, device=device), tensor(E2, E2, device=device)
    negatives = tensor([E1], [[-1, 0]], device=device)
    loss = InfoNCELoss(1.0, in_batch_negatives=False, reduction="none", backend=backend)
    rows = loss(x, y, negatives)
    close(rows, [log(1 + e), log(1 + 1 / e)])


# positive score 0, negative scores 1, 0.6 and -1
HARD = [E1, [0.6, 0.8], [-1.0, 0.0]]


@pytest.mark.parametrize(
    ("options", "denominator"),
    [
        ({"top_k": 1}, 1 + e),
        ({"top_k": 2}, 1 + e + exp(0.6)),
        ({"top_k": 9}, 1 + e + exp(0.6) + 1 / e),
        ({"hardness": 2.0}, 1 + exp(3) + exp(1.8) + exp(-3)),
        ({"hardness": 2.0, "top_k": 2}, 1 + exp(3) + exp(1.8)),
    ],
    ids=str,
)
@pytest.mark.parametrize("own", [False, True])
def test_hard_negatives_by_hand(options, denominator, own, device, backend):
    x, y, negatives = (tensor(*v, device=device) for v in ([E1], [E2], HARD))
    given = negatives[None] if own else negatives
    close(info_nce(x, y, given, temperature=1.0, backend=backend, **options), log(denominator))
    # the same negatives as other rows of y
    x, y = x.expand(4, 2), torch.cat([y, negatives])
    rows = info_nce(x, y, temperature=1.0, reduction="none", backend=backend, **options)
    close(rows[0], log(denominator))


def test_a_weight_is_a_constant(device, backend):
    # one negative with score s = <x, n> = 1/2 and weight e^(2 s), positive score 0: with
    # p = e^(3 s) / (1 + e^(3 s)) the gradient is p n, not 3 p n, and that of the scale is p s
    x, y = tensor([0.5, 0.0], device=device, grad=True), tensor([0.0, 0.0], device=device)
    negative = tensor([1.0, 0.0], device=device, grad=True)
    scale = torch.ones((), dtype=torch.float64, device=device, requires_grad=True)
    for options in ({}, {"top_k": 1}):
        loss = InfoNCELoss(1.0, hardness=2.0, normalize=False, backend=backend, **options)
        value = loss(x, y, negative, logit_scale=scale)
        close(value, log(1 + exp(1.5)))
        p = exp(1.5) / (1 + exp(1.5))
        dx, dn, dscale = gradients(value, x, negative, scale)
        close(dx, [[p, 0.0]])
        close(dn, [[0.5 * p, 0.0]])
        close(dscale, 0.5 * p)


def test_hardness_as_in_sentence_transformers(device, backend):
    """The formula there: scale * cos, plus strength * cos.detach() off the diagonal."""
    x, y = Subject(InfoNCELoss, device=device).inputs()
    x, y = x.requires_grad_(), y.requires_grad_()
    cosine = normalize(x) @ normalize(y).mT
    penalty = 9.0 * cosine.detach()
    logits = 20.0 * cosine + penalty.fill_diagonal_(0.0)
    want = cross_entropy(logits, torch.arange(len(x), device=device))
    got = InfoNCELoss(1 / 20, hardness=9.0, backend=backend)(x, y)
    close(got, want)
    for a, b in zip(gradients(got, x, y), gradients(want, x, y), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "options", [{"top_k": 3}, {"hardness": 2.0}, {"top_k": 3, "hardness": 2.0}], ids=str
)
def test_statistics_of_hard_negatives(options, device, backend):
    x, y = Subject(InfoNCELoss, device=device).inputs(n=9)
    loss = InfoNCELoss(0.3, return_stats=True, backend=backend, **options)
    value, stats = loss(x, y, logit_bias=0.7)
    cosine = normalize(x) @ normalize(y).mT
    positive = cosine.diag() / 0.3 + 0.7
    negatives = cosine.fill_diagonal_(-torch.inf).topk(options.get("top_k", 8)).values
    hardest = negatives[:, 0] / 0.3 + 0.7
    weighted = (1 / 0.3 + options.get("hardness", 0.0)) * negatives + 0.7
    close(stats["positive"], positive.mean())
    close(stats["hardest_negative"], hardest.mean())
    close(stats["accuracy"], (positive > hardest).double().mean())
    close(stats["lse"], torch.logaddexp(weighted.logsumexp(1), positive).mean())
    close(value, stats["lse"] - stats["positive"])


@pytest.mark.parametrize("own", [False, True])
def test_statistics_with_negatives(own, device, backend):
    x, y, k = (v.to(device) for v in (Own if own else Shared).example(9, 4, torch.Generator()))
    loss = InfoNCELoss(0.3, in_batch_negatives=False, return_stats=True, backend=backend)
    _, stats = loss(x, y, k)
    positive = (normalize(x) * normalize(y)).sum(1) / 0.3
    s = torch.einsum("nd,nkd->nk", normalize(x), normalize(k.expand(9, -1, 4), dim=-1)) / 0.3
    close(stats["positive"], positive.mean())
    close(stats["hardest_negative"], s.amax(1).mean())
    close(stats["lse"], torch.logaddexp(s.logsumexp(1), positive).mean())
    close(stats["accuracy"], (positive > s.amax(1)).double().mean())


@pytest.mark.parametrize("negatives", [(0, 3), (4, 0, 3)])
def test_no_negative_is_zero(negatives, device, backend):
    x = torch.randn(4, 3, device=device, requires_grad=True)
    alone = InfoNCELoss(in_batch_negatives=False, backend=backend)
    loss = alone(x, x.detach() + 1, torch.zeros(negatives, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, x)[0].any()


def test_negatives_get_gradients_on_their_own(device, backend):
    x, y, k = (v.to(device) for v in Shared.example(6, 4, torch.Generator()))
    k.requires_grad_()
    options = {"in_batch_negatives": False, "normalize": False, "backend": backend}
    (dk,) = gradients(InfoNCELoss(1.0, **options)(x, y, k), k)
    s = torch.cat([(x * y).sum(1, keepdim=True), x @ k.detach().T], 1)
    close(dk, (s.softmax(1)[:, 1:].T @ x) / 6)


def test_check_loss_accepts_user_losses(device):
    check_loss(InfoNCELoss, device=device, temperature=0.2)
