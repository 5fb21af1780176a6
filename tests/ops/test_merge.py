"""The merged statistics of column blocks equal the statistics of all columns."""

import math
from itertools import pairwise

import pytest
import torch
from oracle import problem

from contrastloss.channel import COL, EXPECT, INDEX, LSE, MAX, SUM, differs, same
from contrastloss.ops import merge, pair_stats
from contrastloss.ops.results import Expectation, Maximum

CHANNELS = {
    "lse": LSE(pairs=(differs("a"),)),
    "lse 2": LSE(2.0),
    "sum": SUM("softplus", pairs=(same("a"),)),
    "expect": EXPECT(1.5, pairs=(differs("a"),)),
    "max": MAX(pairs=(differs("a"),)),
    "min": MAX(-1.0),
}


def flat(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


@pytest.mark.parametrize("sizes", [[53], [1, 52], [20, 0, 33], [10] * 5 + [3]], ids=str)
@pytest.mark.parametrize("name", CHANNELS)
def test_blocks_are_the_whole(backend, device, name, sizes):
    channel = CHANNELS[name]
    call = problem((channel,), m=37, n=53, d=19, device=device)
    x, y, rows, cols = call["x"], call["y"], call["rows"], call["cols"]
    x.requires_grad_(), y.requires_grad_()
    (whole,) = pair_stats(x, y, (channel,), rows=rows, cols=cols, backend=backend)
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    parts = []
    for a, b in pairwise(ends):
        own = {k: v[a:b] for k, v in cols.items()}
        parts += pair_stats(x, y[a:b], (channel,), rows=rows, cols=own, backend=backend)
    merged = merge(channel, parts, ends[:-1])
    assert type(merged) is type(whole)
    torch.testing.assert_close(flat(merged), flat(whole))

    def gradients(result):
        value = sum((v.cos() * k).sum() for k, v in enumerate(flat(result), 1) if v.requires_grad)
        return torch.autograd.grad(value, (x, y))

    torch.testing.assert_close(gradients(merged), gradients(whole))


def test_shards_know_their_positions(backend, device):
    """With INDEX as an operand, the rows and columns of a shard keep their global positions."""
    channels = (LSE(pairs=(differs(INDEX),)), SUM("id", pairs=(same(INDEX),)))
    x, y = torch.randn(2, 12, 5, device=device, dtype=torch.float64)
    whole = pair_stats(x, y, channels, backend=backend)
    place = torch.arange(12, device=device)
    found = []
    for rank in range(3):
        mine = slice(4 * rank, 4 * rank + 4)
        parts = [
            pair_stats(
                x[mine], y[4 * k : 4 * k + 4], channels, rows={INDEX: place[mine]},
                cols={INDEX: place[4 * k : 4 * k + 4]}, backend=backend,
            )
            for k in range(3)
        ]  # fmt: skip
        found.append([merge(c, p) for c, p in zip(channels, zip(*parts, strict=True), strict=True)])
    for k, want in enumerate(whole):
        torch.testing.assert_close(torch.cat([f[k] for f in found]), want)


def test_columns_of_row_blocks(backend, device):
    """A column channel reduces over rows, so blocks of rows are merged."""
    channel = LSE(axis=COL)
    x, y = torch.randn(9, 4, device=device), torch.randn(6, 4, device=device)
    parts = [pair_stats(block, y, (channel,), backend=backend)[0] for block in x.split(4)]
    (want,) = pair_stats(x, y, (channel,), backend=backend)
    torch.testing.assert_close(merge(channel, parts), want)


def test_lse_by_hand():
    parts = [torch.tensor([0.0, -math.inf]), torch.tensor([math.log(3.0), 1.0])]
    torch.testing.assert_close(merge(LSE(), parts), torch.tensor([math.log(4.0), 1.0]))


def test_expect_by_hand():
    # masses 1 and 3: (1 * 2 + 3 * 6) / 4 = 5
    parts = [
        Expectation(torch.tensor([2.0]), torch.tensor([0.0])),
        Expectation(torch.tensor([6.0]), torch.tensor([math.log(3.0)])),
    ]
    value, lse = merge(EXPECT(), parts)
    torch.testing.assert_close(value, torch.tensor([5.0]))
    torch.testing.assert_close(lse, torch.tensor([math.log(4.0)]))


def test_max_by_hand():
    # the second block starts at column 10; of a tie the earlier block wins, an empty block gives -1
    first = Maximum(torch.tensor([1.0, 2.0, -math.inf, 3.0]), torch.tensor([4, 5, -1, 6]))
    other = Maximum(torch.tensor([9.0, 2.0, -math.inf, 1.0]), torch.tensor([0, 0, -1, 1]))
    value, index = merge(MAX(), [first, other], [0, 10])
    assert value.tolist() == [9.0, 2.0, -math.inf, 3.0]
    assert index.tolist() == [10, 5, -1, 6]


@pytest.mark.parametrize("blocks", [1, 3])
def test_nothing_anywhere_has_no_gradient(blocks):
    """logaddexp(-inf, -inf) has the gradient NaN; here it is 0."""
    parts = [torch.full((2,), -math.inf, requires_grad=True) for _ in range(blocks)]
    merged = merge(LSE(), parts)
    assert merged.tolist() == [-math.inf] * 2
    for grad in torch.autograd.grad(merged.sum(), parts):
        assert grad.tolist() == [0.0, 0.0]


def test_expect_of_nothing_has_no_gradient():
    values = [torch.zeros(2, requires_grad=True) for _ in range(2)]
    lses = [torch.full((2,), -math.inf, requires_grad=True) for _ in range(2)]
    value, lse = merge(EXPECT(), list(map(Expectation, values, lses)))
    assert value.tolist() == [0.0, 0.0]
    assert lse.tolist() == [-math.inf] * 2
    for grad in torch.autograd.grad(value.sum() + lse.sum(), values + lses):
        assert grad.tolist() == [0.0, 0.0]


def test_large_values_do_not_overflow():
    parts = [torch.tensor([1e30]), torch.tensor([-1e30]), torch.tensor([1e30])]
    torch.testing.assert_close(merge(LSE(), parts), torch.tensor([1e30]))


def test_nan_stays_nan():
    assert merge(LSE(), [torch.tensor([math.nan]), torch.tensor([1.0])]).isnan().all()
    parts = [Maximum(torch.tensor([v]), torch.tensor([0])) for v in (math.nan, 1.0)]
    assert merge(MAX(), parts).value.isnan().all()
    assert merge(MAX(), parts[::-1]).value.isnan().all()


def test_gradcheck():
    parts = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    torch.autograd.gradcheck(lambda *p: merge(LSE(), p), parts)
    torch.autograd.gradgradcheck(lambda *p: merge(LSE(), p), parts)

    def expect(*p):
        return merge(EXPECT(), [Expectation(a, b) for a, b in zip(p[:3], p[3:], strict=True)])

    torch.autograd.gradcheck(
        expect, [*parts, *(p.detach().clone().requires_grad_() for p in parts)]
    )


def test_errors():
    with pytest.raises(ValueError, match=r"^parts: got an empty sequence"):
        merge(LSE(), [])
    with pytest.raises(ValueError, match=r"^offsets: got 2, expected 1"):
        merge(MAX(), [Maximum(torch.zeros(1), torch.zeros(1, dtype=torch.int64))], [0, 1])
