"""Pairs of equal ids are neither positive nor negative: in the batch, given, and in a queue."""

from inspect import signature

import pytest
import torch
from properties import close

from contrastloss.losses import LOSSES, TwoViewLoss
from contrastloss.losses.base.label_loss import LabelLoss
from contrastloss.memory import EmbeddingQueue
from contrastloss.testing import Subject

APART = [
    n
    for n, c in LOSSES.items()
    if n not in ("moco", "mochi") and "negatives_ids" in signature(c.forward).parameters
]
#: options with which a loss takes another way
VARIANTS = [
    *[(name, {}) for name in APART],
    ("info_nce", {"top_k": 3}),
    ("info_nce", {"hardness": 2.0}),
    ("triplet", {"mining": "hard"}),
    ("triplet", {"mining": "semihard"}),
    ("triplet", {"mining": "all", "margin": 1.0}),
]
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
N, D = 6, 5
#: instances 0 and 3 are one
IDS = torch.tensor([4, 1, 2, 4, 0, 7])


def inputs(name):
    torch.manual_seed(1)
    found = Subject(LOSSES[name]).inputs(n=N, d=D)
    if name in ("supcon", "triplet", "circle", "multi_similarity", "focal_contrastive"):
        found[-1] = torch.tensor([0, 1, 0, 0, 1, 1])
    return found


def rows(loss, given, *, keep=None, **more):
    """The rows' losses of the instances ``keep``, (views, N), and statistics."""
    given = [v if keep is None else v[keep] for v in given]
    value = loss(*given, **more)
    value = value[0] if isinstance(value, tuple) else value
    return value.view(2, -1) if isinstance(loss, TwoViewLoss) else value[None]


@every_variant
def test_as_in_a_batch_without_the_other(name, options, backend):
    """Row 0 is as in the batch without instance 3, row 3 as in that without 0, and all others are
    as they were."""
    loss = LOSSES[name](**options, reduction="none", backend=backend)
    given = inputs(name)
    leaves = [v.clone().requires_grad_(v.is_floating_point()) for v in given]
    found, plain = rows(loss, leaves, ids=IDS), rows(loss, given)
    for own, other in ((0, 3), (3, 0)):
        keep = torch.tensor([k for k in range(N) if k != other])
        place = int((keep == own).nonzero())
        fewer = [v.clone().requires_grad_(v.is_floating_point()) for v in given]
        want = rows(loss, fewer, keep=keep)
        close(found[:, own], want[:, place])
        floating = [v for v in leaves if v.requires_grad]
        grads = torch.autograd.grad(found[:, own].sum(), floating, retain_graph=True)
        wanted = torch.autograd.grad(want[:, place].sum(), [v for v in fewer if v.requires_grad])
        for a, b in zip(grads, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    others = [1, 2, 4, 5]
    close(found[:, others], plain[:, others])
    distinct = rows(loss, given, ids=torch.arange(N))
    close(distinct, plain)


@every_variant
def test_given_and_stored_ones_too(name, options, backend):
    """Columns with the id of a row are as if they were not there for it."""
    loss = LOSSES[name](**options, reduction="none", backend=backend)
    given, ids = inputs(name), torch.arange(N)
    extra, numbers = torch.randn(4, D, dtype=torch.float64), torch.tensor([2, 9, 9, 2])
    want = rows(loss, given, negatives=extra)
    fewer = rows(loss, given, negatives=extra[1:3])
    mask = ids[:, None] != numbers
    own, offsets = extra.expand(N, 4, D), torch.arange(0, 4 * N + 1, 4)
    each = numbers.expand(N, 4)
    queues = [EmbeddingQueue(4, D, labels=True, ids=True, dtype=torch.float64) for _ in "xy"]
    queues[0].enqueue(extra, torch.arange(70, 74), ids=numbers)
    for more in (
        {"negatives": extra, "negatives_ids": numbers},
        {"negatives": own, "negatives_ids": each},
        {"negatives": own, "negatives_mask": mask},
        {
            "negatives": own.flatten(0, 1),
            "negatives_ids": each.flatten(),
            "negatives_offsets": offsets,
        },
        {"memory": tuple(queues) if loss.both_sides else queues[0]},
    ):
        if not more.keys() <= signature(loss.forward).parameters.keys():
            continue
        found = rows(loss, given, ids=ids, **more)
        close(found[:, 2], fewer[:, 2])
        close(found[:, [0, 1, 3, 4, 5]], want[:, [0, 1, 3, 4, 5]])


@pytest.mark.parametrize("name", APART)
def test_statistics_leave_them_out(name, backend):
    loss = LOSSES[name](return_stats=True, backend=backend)
    given = inputs(name)
    _, same = loss(*given, ids=torch.arange(N))
    _, plain = loss(*given)
    for key, value in plain.items():
        close(same[key], value)
    if not issubclass(LOSSES[name], LabelLoss):
        near = [v.clone() for v in given]
        near[1][3] = near[0][0] * 1.5  # a duplicate of row 0 that is no negative
        _, found = loss(*near, ids=IDS)
        assert found["hardest_negative"] < loss(*near)[1]["hardest_negative"]


def test_bad_ids():
    x, loss = torch.randn(4, 3), LOSSES["info_nce"]()
    for arguments, message in (
        ({"ids": torch.arange(3)}, r"ids: got shape \(3,\), expected \(4,\)"),
        ({"negatives_ids": torch.arange(4)}, "negatives_ids: got a value, expected None without n"),
        (
            {"negatives": x, "negatives_ids": torch.arange(4)},
            "negatives_ids: got a value, expected None without ids",
        ),
        (
            {"negatives": x, "negatives_ids": torch.arange(3), "ids": torch.arange(4)},
            r"negatives_ids: got shape \(3,\), expected",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            loss(x, x, **arguments)
