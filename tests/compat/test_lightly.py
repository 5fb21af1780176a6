"""lightly's losses, beside lightly 1.6."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from lightly.loss.hypersphere_loss import HypersphereLoss as TheirHypersphereLoss
from lightly.models.modules.memory_bank import MemoryBankModule as TheirMemoryBank

from compat import over_ranks
from compat.agree import agree, close, leaf, over_the_ranks
from compat.rivals import pair

ours, theirs = pair("lightly")

SIZES = [(1, 1), (2, 3), (3, 8), (17, 5), (64, 32), (65, 33), (130, 7)]
sizes = pytest.mark.parametrize(("n", "d"), SIZES, ids=str)
several = pytest.mark.parametrize(("n", "d"), SIZES[1:], ids=str)  # more than one row


def both(name, **options):
    other = TheirHypersphereLoss if name == "HypersphereLoss" else getattr(theirs, name)
    return [cls(**options).double() for cls in (getattr(ours, name), other)]


def apart(x, y):
    """Weights of rows, which have a gradient."""
    return (x - y).square().sum(1)


def label(value):
    """Of a name or options, the same in every process."""
    if isinstance(value, dict):
        return str({k: getattr(v, "__name__", v) for k, v in value.items()})
    return value


TWO_VIEWS = [
    ("NTXentLoss", {}),
    ("NTXentLoss", {"temperature": 0.07}),
    ("NTXentLoss", {"temperature": -1.0, "gather_distributed": True}),
    ("DirectCLRLoss", {}),
    ("DirectCLRLoss", {"loss_dim": 3, "temperature": 0.2}),
    ("DCLLoss", {}),
    ("DCLLoss", {"temperature": -0.5}),
    ("DCLLoss", {"temperature": 0.3, "weight_fn": apart, "gather_distributed": True}),
    ("DCLWLoss", {}),
    ("DCLWLoss", {"temperature": 0.3, "sigma": 0.2}),
    ("HypersphereLoss", {}),
    ("HypersphereLoss", {"t": 3.0, "lam": 0.4, "alpha": 1.0}),
    ("NegativeCosineSimilarity", {}),
    ("NegativeCosineSimilarity", {"dim": 0, "eps": 2.0}),
]
FEATURES = [
    ("BarlowTwinsLoss", {}),
    ("BarlowTwinsLoss", {"lambda_param": 0.0}),
    ("BarlowTwinsLoss", {"lambda_param": 0.7, "gather_distributed": True}),
    ("VICRegLoss", {}),
    ("VICRegLoss", {"lambda_param": 3.0, "mu_param": 7.0, "nu_param": 0.0}),
    ("VICRegLoss", {"nu_param": 5.0, "gather_distributed": True, "eps": 0.3}),
]


@several
@pytest.mark.parametrize(("name", "options"), [*TWO_VIEWS, *FEATURES], ids=label)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_two_views(name, options, n, d):
    given = [leaf(n, d), leaf(n, d)]
    agree(*both(name, **options), given, given)


@pytest.mark.parametrize(("name", "options"), TWO_VIEWS, ids=label)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_one_row(name, options):
    """Infinite and undefined losses are theirs."""
    x, y = leaf(1, 5).detach(), leaf(1, 5).detach()
    mine, other = (loss(x, y) for loss in both(name, **options))
    torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_one_row_is_refused():
    x = torch.ones(1, 4)
    for loss in both("BarlowTwinsLoss"):
        with pytest.raises(ValueError, match="ected"):
            loss(x, x)
    for loss in both("VICRegLoss"):
        with pytest.raises(AssertionError, match="1"):
            loss(x, x)
        with pytest.raises(AssertionError, match="shape"):
            loss(torch.ones(3, 4), torch.ones(3, 5))


@pytest.mark.parametrize("n", [2, 3, 33])
def test_features_of_patches(n):
    given = [leaf(n, 3, 2, 5), leaf(n, 3, 2, 5)]
    agree(*both("VICRegLoss"), given, given)
    flat = [leaf(n, 3, 20), leaf(n, 3, 20)]
    agree(*both("DirectCLRLoss", loss_dim=7), flat, flat)


@sizes
@pytest.mark.parametrize("options", [{}, {"p": 1.0}, {"p": 3.0, "eps": 0.05}], ids=str)
def test_neighbours(n, d, options):
    if (n, d, options) != (1, 1, {}):
        d = max(d, 2)  # all cosines of one component are 1 or -1
    x = leaf(n, d)
    agree(*both("KoLeoLoss", **options), [x], [x])


def test_neighbours_that_are_copies():
    with torch.no_grad():
        x = leaf(9, 4)
        x[4] = 3 * x[1]
        x[6] = 0.0
    x = x.detach().requires_grad_()
    agree(*both("KoLeoLoss"), [x], [x])


# ---- the memory bank -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 16, 130])
@pytest.mark.parametrize("slots", [1, 7, 15, 16, 17, 129])
@pytest.mark.parametrize("temperature", [0.07, -1.0])
def test_memory(n, slots, temperature):
    """Five steps, of which one needs no gradient: the same values, gradients and banks."""
    losses = []
    for library in (ours, theirs):
        torch.manual_seed(1)
        losses.append(library.NTXentLoss(temperature, (slots, 6)).double())
    for step in range(5):
        x, y = leaf(n, 6), leaf(n, 6)
        if step == 3:
            x, y = x.detach(), y.detach()
        agree(*losses, [x, y], [x, y])  # each loss stores y once
        mine, other = (loss.memory_bank for loss in losses)
        close(mine.bank, other.bank, "bank")
        assert torch.equal(mine.bank_ptr, other.bank_ptr)
        assert list(losses[0].state_dict()) == list(losses[1].state_dict()) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_bank_alone(first):
    banks = []
    for cls in (ours.MemoryBankModule, TheirMemoryBank):
        torch.manual_seed(2)
        banks.append(cls((5, 3), feature_dim_first=first))
    x = torch.randn(2, 3)
    for bank in banks:
        bank(x, update=True)
    for mine, other in zip(*(bank(x) for bank in banks), strict=True):
        assert torch.equal(mine, other)
    assert banks[0](x)[1].requires_grad is False
    assert ours.MemoryBankModule(0)(x) == (x, None)
    for size in (4, (4,), (-1, 3), (1, 2, 3)):
        for cls in (ours.MemoryBankModule, TheirMemoryBank):
            with pytest.raises(ValueError, match=r"[Mm]emory bank|size: got"):
                cls(size)


# ---- scores with prototypes ----------------------------------------------------------------------

SWAV = [
    {},
    {"temperature": 0.3, "sinkhorn_iterations": 0},
    {"sinkhorn_iterations": 1, "sinkhorn_epsilon": 0.3, "sinkhorn_gather_distributed": True},
    {"sinkhorn_iterations": 10},
]


@sizes
@pytest.mark.parametrize("options", SWAV, ids=str)
@pytest.mark.parametrize(("high", "low", "queued"), [(2, 0, 0), (2, 3, 7), (3, 1, 1), (1, 1, 0)])
def test_swav(n, d, options, high, low, queued):
    crops = [0.3 * leaf(n, d) for _ in range(high + low)]
    crops = [crop.detach().requires_grad_() for crop in crops]
    queue = [0.3 * leaf(queued, d) for _ in range(high)] if queued else None
    given = crops[:high], crops[high:], queue
    agree(*both("SwaVLoss", **options), given, crops)


def test_swav_of_one_crop_is_undefined():
    crop = torch.randn(3, 4)
    for loss in both("SwaVLoss"):
        assert loss([crop], []).isnan().all()


@sizes
@pytest.mark.parametrize(("teachers", "students"), [(2, 2), (2, 5), (1, 3), (3, 2)])
@pytest.mark.parametrize("learns", [False, True], ids=["teacher", "teacher that learns"])
def test_dino(n, d, teachers, students, learns):
    """Three steps, with a centre that moves."""
    losses = both("DINOLoss", output_dim=d, warmup_teacher_temp=0.02, center_momentum=0.7)
    for given in ({}, {"teacher_temp": 0.1}, {"epoch": 7}, {"epoch": 30}):
        t = [0.2 * leaf(n, d) for _ in range(teachers)]
        t = [v.detach().requires_grad_(learns) for v in t]
        s = [leaf(n, d) for _ in range(students)]
        agree(*losses, (t, s), [*s, *t] if learns else s, **given)
        close(losses[0].center, losses[1].center, "centre")
    assert list(losses[0].state_dict()) == list(losses[1].state_dict()) == ["center"]


def test_dino_in_fp32():
    losses = ours.DINOLoss(5, student_temp=0.3), theirs.DINOLoss(5, student_temp=0.3)
    t, s = torch.randn(2, 3, 9, 5).unbind()
    for _ in range(3):
        mine, other = (loss(list(t), list(s)) for loss in losses)
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(losses[0].center, losses[1].center)
    copy.deepcopy(losses[0]).load_state_dict(losses[1].state_dict())


def test_symmetric_cosines():
    """It is no longer in lightly: the formula of its last version."""
    given = [(leaf(9, 4), leaf(9, 4)) for _ in range(2)]

    def dense(a, b):
        return -sum(
            F.cosine_similarity(p, z.detach(), dim=-1).mean() / 2
            for p, z in ((a[1], b[0]), (b[1], a[0]))
        )

    agree(ours.SymNegCosineSimilarityLoss(), dense, given, [*given[0], *given[1]])


# ---- over ranks ----------------------------------------------------------------------------------

SPREAD = [
    (name, {"gather_distributed": True, **options})
    for name, options in (
        ("NTXentLoss", {}),
        ("NTXentLoss", {"temperature": -0.7}),
        ("NTXentLoss", {"memory_bank_size": (19, 6)}),
        ("DirectCLRLoss", {"loss_dim": 4}),
        ("DCLLoss", {}),
        ("DCLWLoss", {"temperature": 0.4}),
        ("BarlowTwinsLoss", {}),
        ("VICRegLoss", {}),
    )
]
SPREAD += [
    ("NTXentLoss", {}),
    ("SwaVLoss", {"sinkhorn_gather_distributed": True}),
    ("SwaVLoss", {"sinkhorn_gather_distributed": True, "sinkhorn_iterations": 0}),
    ("DINOLoss", {"output_dim": 6}),
]


@pytest.mark.parametrize(("name", "options"), SPREAD, ids=label)
@pytest.mark.parametrize("n", [2, 7])
def test_over_ranks(world, name, options, n):
    over_the_ranks(world, over_ranks.lightly, 2, name, options, n)


def test_one_row_per_rank(world):
    for name in ("NTXentLoss", "DCLLoss"):
        over_the_ranks(world, over_ranks.lightly, 2, name, {"gather_distributed": True}, 1)


BAD = {
    "temperature: got 1e-09": ("NTXentLoss", {"temperature": 1e-9}),
    "temperature: got 0.0": ("DirectCLRLoss", {"temperature": 0.0}),
    "size: got 3": ("NTXentLoss", {"memory_bank_size": 3}),
    "center_mode: got 'sum'": ("DINOLoss", {"center_mode": "sum"}),
}


@pytest.mark.parametrize("message", BAD)
def test_both_refuse(message):
    name, options = BAD[message]
    with pytest.raises(ValueError, match=message):
        getattr(ours, name)(**options)
    with pytest.raises(ValueError, match=r"\w"):  # in words of their own
        getattr(theirs, name)(**options)
    one = [torch.ones(2, 4)]
    for library in (ours, theirs):
        with pytest.raises(ValueError, match="view"):
            library.DINOLoss(4)(one, one)


@pytest.mark.parametrize(
    "name", ["NTXentLoss", "DCLLoss", "DCLWLoss", "BarlowTwinsLoss", "VICRegLoss", "SwaVLoss"]
)
def test_gathering_without_ranks(name, monkeypatch):
    option = "sinkhorn_gather_distributed" if name == "SwaVLoss" else "gather_distributed"
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    for library in (ours, theirs):
        with pytest.raises(ValueError, match="gather_distributed"):
            getattr(library, name)(**{option: True})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes(dtype):
    """A loss in fp32, and gradients in the inputs' dtype."""
    logging.getLogger("lightly").setLevel(logging.ERROR)
    for name, options in [*TWO_VIEWS, *FEATURES, ("NTXentLoss", {"memory_bank_size": (9, 5)})]:
        x, y = (torch.randn(6, 5).to(dtype).requires_grad_() for _ in range(2))
        loss = getattr(ours, name)(**options)(x, y)
        loss.backward()
        assert loss.dtype == torch.float32
        assert x.grad.dtype == dtype
        assert x.grad.isfinite().all()
