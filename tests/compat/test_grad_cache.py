"""GradCache's losses, beside gradcache 0.0.1."""

import pytest
import torch

from compat import over_ranks
from compat.agree import agree, leaf, over_the_ranks
from compat.rivals import pair

ours, theirs = pair("grad_cache")


@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (17, 5), (65, 8), (130, 7)], ids=str)
@pytest.mark.parametrize("hard", [0, 1, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values(n, d, hard, reduction):
    given = [leaf(n, d), leaf(n * (hard + 1), d)]
    losses = (library.SimpleContrastiveLoss(n_hard_negatives=hard) for library in (ours, theirs))
    agree(*losses, given, given, reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_targets(reduction):
    x, y = leaf(5, 4), leaf(9, 4)
    target = torch.tensor([8, 0, -100, 3, 3])
    losses = (library.SimpleContrastiveLoss() for library in (ours, theirs))
    agree(*losses, (x, y, target, reduction), [x, y])


@pytest.mark.parametrize("hard", [0, 2])
@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}], ids=str)
def test_over_ranks(world, hard, n, options):
    over_the_ranks(world, over_ranks.grad_cache, 2, hard, options, n)


def test_the_share_is_said_once(world):
    (text,), *_ = world.run(over_ranks.said, 4, over_ranks.grad_cache, 0, {}, 3)
    assert text.startswith("DistributedContrastiveLoss: as in its library, gradients averaged over")


def test_without_ranks():
    with pytest.raises(RuntimeError, match="expected an initialised process group, got none"):
        ours.DistributedContrastiveLoss()
