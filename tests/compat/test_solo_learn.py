"""solo-learn's loss functions, whose last state is in no package: beside their formulas."""

import pytest
import torch

from compat import over_ranks, solo
from compat.agree import agree, leaf, over_the_ranks
from contrastloss.compat import solo_learn

SIZES = [(1, 1), (2, 3), (3, 8), (17, 5), (64, 32), (65, 33)]
sizes = pytest.mark.parametrize(("n", "d"), SIZES, ids=str)


def both(name):
    return [getattr(library, name) for library in (solo_learn, solo)]


@sizes
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}], ids=str)
@pytest.mark.parametrize("kind", ["views", "labels", "floats"])
def test_simclr(n, d, options, kind):
    """Two views of n instances, and supervised."""
    z = leaf(2 * n, d)
    indexes = torch.arange(n).repeat(2)
    if kind != "views":
        indexes = indexes % max(n // 4, 1)
    if kind == "floats":
        indexes = indexes / 7
    agree(*both("simclr_loss_func"), (z, indexes), [z], **options)


def test_a_row_without_positives_makes_the_loss_infinite():
    z = leaf(3, 4).detach()
    for function in both("simclr_loss_func"):
        assert function(z, torch.tensor([0, 0, 1])) == torch.inf


@sizes
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}], ids=str)
@pytest.mark.parametrize("k", [1, 129])
def test_moco(n, d, options, k):
    given = [leaf(n, d), leaf(n, d), leaf(d, k)]
    agree(*both("mocov2plus_loss_func"), given, given, **options)


TWO_VIEWS = [
    ("barlow_loss_func", {}),
    ("barlow_loss_func", {"lamb": 0.5, "scale_loss": 1.0}),
    ("vicreg_loss_func", {}),
    ("vicreg_loss_func", {"sim_loss_weight": 3.0, "var_loss_weight": 7.0}),
    ("vicreg_loss_func", {"cov_loss_weight": 0.5}),
    ("byol_loss_func", {}),
    ("byol_loss_func", {"simplified": False}),
]


@pytest.mark.parametrize(("n", "d"), [*SIZES[1:], (130, 7)], ids=str)
@pytest.mark.parametrize(("name", "options"), TWO_VIEWS, ids=str)
def test_two_views(name, options, n, d):
    given = [leaf(n, d), leaf(n, d)]
    agree(*both(name), given, given, **options)


@pytest.mark.filterwarnings("ignore:var")
def test_one_row():
    x, y = leaf(1, 5), leaf(1, 5)
    agree(*both("byol_loss_func"), (x, y), [x])
    for function in both("vicreg_loss_func"):
        assert function(x, y).isnan()
    for function in both("barlow_loss_func"):
        with pytest.raises(ValueError, match="ected"):
            function(x, y)


@pytest.mark.parametrize("n", [2, 7])
@pytest.mark.parametrize("name", ["simclr_loss_func", "barlow_loss_func", "vicreg_loss_func"])
def test_over_ranks(world, name, n):
    over_the_ranks(world, over_ranks.solo_learn, 2, name, n)


def test_the_share_is_said_once(world):
    (text,), *_ = world.run(over_ranks.said, 4, over_ranks.solo_learn, "barlow_loss_func", 3)
    assert text.startswith("barlow_loss_func: as in its library, gradients averaged over")
