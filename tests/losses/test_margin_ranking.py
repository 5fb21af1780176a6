import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import MarginRankingLoss
from contrastloss.functional import margin_ranking
from contrastloss.testing import CHECKS, Subject


class Own(MarginRankingLoss):
    """With 5 negatives per row, in place of the batch's."""

    in_batch_negatives: bool = False

    @staticmethod
    def example(n, d, generator):
        x, y = MarginRankingLoss.example(n, d, generator)
        return x, y, torch.randn(n, 5, d, generator=generator).double()


@every_check
def test_properties(check, device):
    check(Subject(MarginRankingLoss, {"symmetric": True}, device, thorough=False))


@pytest.mark.parametrize("cls", [MarginRankingLoss, Own])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {}, device, backend))


def test_given_negatives_compile(device):
    x, y, k = Subject(Own, device=device).inputs(dtype=torch.float32)
    loss = MarginRankingLoss()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y, k), loss(x, y, k))


def test_by_hand(device, backend):
    # s = [[1, 0.6, 0], [0, 0.8, 1], [1, 0.6, 0]]; bounds s_ii - 0.6 are 0.4, 0.2 and -0.6
    x, y = tensor(E1, E2, E1, device=device), tensor(E1, [0.6, 0.8], E2, device=device)
    options = {"reduction": "none", "backend": backend}
    by_row = [0.2 / 2, 0.8 / 2, (1.6 + 1.2) / 2]
    close(margin_ranking(x, y, **options), by_row)
    # columns: (0, 1) above 0.4, (0.6, 0.6) above 0.2, (0, 1) above -0.6
    by_col = [0.6 / 2, (0.4 + 0.4) / 2, (0.6 + 1.6) / 2]
    both = [(a + b) / 2 for a, b in zip(by_row, by_col, strict=True)]
    close(margin_ranking(x, y, symmetric=True, **options), both)


def test_negatives_by_hand(device, backend):
    # positive scores 1 and 0; only the given negatives count
    x, y = tensor(E1, E1, device=device), tensor(E1, E2, device=device)
    negatives = tensor([E1, E2, [0.6, 0.8]], [E2, E2, [-1, 0]], device=device)
    options = {"margin": 0.5, "in_batch_negatives": False, "reduction": "none"}
    loss = MarginRankingLoss(**options, backend=backend)
    close(loss(x, y, negatives), [(0.5 + 0.1) / 3, (0.5 + 0.5) / 3])


def test_gradient_by_hand(device, backend):
    # dot products: only j = 1 violates the margin of row 0, so l_0 = (m - s_00 + s_01) / 2
    x = tensor([1, 0], [0, 0], [0, 0], device=device, grad=True)
    y = tensor([1, 1], [3, 0], [-5, -1], device=device, grad=True)
    loss = MarginRankingLoss(normalize=False, reduction="none", backend=backend)(x, y)
    dx, dy = gradients(loss[0], x, y)
    close(dx, [[1, -0.5], [0, 0], [0, 0]])
    close(dy, [[-0.5, 0], [0.5, 0], [0, 0]])


def test_statistics_of_given_negatives(device, backend):
    x, y, k = Subject(Own, device=device).inputs(n=9)
    options = {"in_batch_negatives": False, "backend": backend}
    value, stats = MarginRankingLoss(0.3, return_stats=True, **options)(x, y, k)
    close(value, MarginRankingLoss(0.3, **options)(x, y, k))
    s = torch.einsum("nd,nkd->nk", normalize(x), normalize(k, dim=-1)) / 0.3
    close(stats["hardest_negative"], s.amax(1).mean())
    close(stats["lse"], s.logsumexp(1).mean())


def test_no_negative_is_zero(device, backend):
    x = torch.randn(2, 4, device=device, requires_grad=True)
    loss = MarginRankingLoss(in_batch_negatives=False, backend=backend)
    alone = MarginRankingLoss(backend=backend)
    for value in (alone(x[:1], x.detach()[1:]), loss(x, x.detach(), x.new_zeros(2, 0, 4))):
        assert value.item() == 0.0
        assert not gradients(value, x)[0].any()


def test_errors():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"^margin: got nan, expected a finite number"):
        MarginRankingLoss(margin=float("nan"))
    with pytest.raises(
        ValueError, match=r"^negatives: got some with symmetric=True, expected None"
    ):
        margin_ranking(x, x, x[:, None], symmetric=True)
    with pytest.raises(ValueError, match=r"^negatives: got shape \(4,\), expected \(K, 3\) or"):
        margin_ranking(x, x, x[:, 0])
    with pytest.raises(ValueError, match=r"^in_batch_negatives: got False with symmetric=True"):
        MarginRankingLoss(symmetric=True, in_batch_negatives=False)
