from math import atan, log, pi

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch import nn

from contrastloss import GroCoLoss
from contrastloss.functional import groco
from contrastloss.testing import Subject
from contrastloss.testing.subject import dense_rows


def views(n, d, generator, count=3):
    """Views of one image are about as similar as the most similar images within a view."""
    z = torch.randn(1, n, 8, generator=generator).double()
    return [z + 0.7 * torch.randn(count, n, 8, generator=generator).double()]


CASES = [
    Subject(GroCoLoss, {"topk_neg": 4, **options}, thorough=False, make=views)
    for options in (
        {"positive_views": 2, "stop_grad": False, "network": "bitonic", "steepness": 8.0},
        {"topk_neg": 20, "stop_grad": False, "distribution": "logistic"},
    )
]


pytestmark = pytest.mark.operators("pair_topk", "sort_network")


@every_check
@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.options))
def test_properties(check, case, device, backend):
    check(case.on(device, backend))


def test_by_hand(device, backend):
    # anchor e1: positive score 0.6, only negative e2 in its view with score 0; in the other view
    # the negative pair is (0.6, 0.8) and (-0.8, 0.6), with score 0, too
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], [-0.8, 0.6], device=device)
    rows = groco([x, y], steepness=5.0, reduction="none", backend=backend)
    close(rows, [[-log(atan(5 * 0.6) / pi + 0.5)] * 2] * 2)


@pytest.mark.parametrize(("steepness", "floor"), [(1.0, 0.147), (10.0, 0.0148)])
def test_perfect_separation_has_a_floor(steepness, floor, device, backend):
    """The first anchor has ten negatives with cosine -1 and a positive with cosine 1."""
    x = tensor(E1, *[[-1.0, 0.0]] * 10, device=device)
    rows = GroCoLoss(steepness=steepness, reduction="none", backend=backend)(torch.stack([x, x]))
    for row in rows[:, 0]:
        assert row.item() == pytest.approx(floor, abs=5e-5)


def test_all_equal(device, backend):
    z = torch.ones(2, 11, 3, device=device, dtype=torch.float64)
    for steepness in (1.0, 10.0):
        rows = GroCoLoss(steepness=steepness, reduction="none", backend=backend)(z)
        torch.testing.assert_close(rows, torch.full_like(rows, 0.202), rtol=0, atol=5e-4)
        close(rows, rows[0, 0].expand(2, 11))


def test_gradients_stop_at_positives_and_negatives(device, backend):
    """The loss of one anchor has a gradient for that anchor only."""
    (z,) = CASES[0].on(device).inputs(12)
    for stop_grad in (True, False):
        leaf = z.clone().requires_grad_()
        rows = GroCoLoss(4, stop_grad=stop_grad, reduction="none", backend=backend)(leaf)
        moved = gradients(rows[1, 3], leaf)[0].norm(dim=-1) > 0
        assert moved[1, 3]
        assert moved.sum() == (1 if stop_grad else 1 + 2 + 4)


def test_the_gradient_of_anchors_is_that_of_the_dense_formula(device, backend):
    case = Subject(GroCoLoss, {"topk_neg": 4, "positive_views": 2}, device, make=views)
    found = []
    for function in (case.on(device, backend).rows(), dense_rows(case.loss())):
        leaf = case.inputs(12)[0].requires_grad_()
        found.append(gradients(function(leaf).pow(2).sum(), leaf)[0])
    close(*found)


def test_a_list_is_a_stack_and_small_crops_are_anchors_alone(device, backend):
    (z,) = CASES[0].on(device).inputs(12)
    loss = GroCoLoss(4, positive_views=2, reduction="none", backend=backend)
    rows = loss(list(z))
    close(rows, loss(z))
    close(rows[:2], GroCoLoss(4, reduction="none", backend=backend)(z[:2]))
    assert rows.shape == (3, 12)


def test_fewer_images_than_negatives(device, backend):
    (z,) = CASES[0].on(device).inputs(6)
    close(GroCoLoss(10, backend=backend)(z), GroCoLoss(5, backend=backend)(z))
    for n in (0, 1):
        leaf = z[:, :n].clone().requires_grad_()
        value = GroCoLoss(backend=backend)(leaf)
        assert value.item() == 0.0
        assert not gradients(value, leaf)[0].any()


def test_hundreds_of_negatives(device, backend):
    (z,) = CASES[0].on(device).inputs(300, dtype=torch.float32)
    value = GroCoLoss(256, steepness=10.0, network="bitonic", backend=backend)(z.requires_grad_())
    assert 0 < value < 1
    assert gradients(value, z)[0].isfinite().all()


def test_a_learned_steepness(device, backend):
    (z,) = CASES[0].on(device).inputs(12)
    steepness = nn.Parameter(torch.tensor(2.0, device=device, dtype=torch.float64))
    loss = GroCoLoss(4, steepness=steepness, backend=backend)
    assert list(loss.parameters()) == [steepness]
    close(loss(z), GroCoLoss(4, steepness=2.0, backend=backend)(z))
    assert gradients(loss(z), steepness)[0] < 0  # a larger steepness has a smaller loss
    buffered = GroCoLoss(4, steepness=steepness.detach(), backend=backend)
    assert [name for name, _ in buffered.named_buffers()] == ["steepness"]
    close(buffered(z), loss(z))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nonfinite_scores_give_nan(value, device, backend):
    (z,) = CASES[0].on(device).inputs(12)
    z[0, 3, 1] = value
    rows = GroCoLoss(4, reduction="none", backend=backend)(z)
    bad = torch.zeros_like(rows, dtype=torch.bool)
    bad[:, 3] = True  # as an anchor and as a positive
    assert rows[bad].isnan().all()
    assert rows[~bad].isfinite().all()


def test_nonfinite_negatives_give_nan(device, backend):
    """An image without scores is a negative of all anchors of its view: their losses are NaN."""
    (z,) = CASES[0].on(device).inputs(5)
    z[0, 3] = torch.nan
    rows = GroCoLoss(4, positive_views=2, reduction="none", backend=backend)(z[:2])
    assert rows[0].isnan().all()
    assert rows[1].isnan().tolist() == [False, False, False, True, False]


def test_saturated_masses_give_a_finite_loss(device, backend):
    """A positive so far below its negatives that its mass is zero."""
    x, y = tensor(E1, E1, device=device), tensor([-1, 0], [-1, 0], device=device)
    z = torch.stack([x, y]).float().requires_grad_()
    value = GroCoLoss(steepness=1e4, distribution="logistic", backend=backend)(z)
    finfo = torch.finfo(torch.float32)
    assert value.item() == pytest.approx(-(log(finfo.tiny) + log(finfo.eps)) / 2, rel=1e-3)
    assert gradients(value, z)[0].isfinite().all()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"topk_neg": 0}, ValueError),
        ({"topk_neg": 2.0}, TypeError),
        ({"topk_neg": True}, TypeError),
        ({"positive_views": 1}, ValueError),
        ({"steepness": 0.0}, ValueError),
        ({"network": "bubble"}, ValueError),
        ({"distribution": "normal"}, ValueError),
        ({"art_lambda": -1.0}, ValueError),
    ],
    ids=str,
)
def test_options(options, kind):
    (name,) = options
    with pytest.raises(kind, match=f"^{name}: got .*expected"):
        GroCoLoss(**options)


@pytest.mark.parametrize(
    ("argument", "kind", "message"),
    [
        (torch.ones(3, 4), ValueError, r"views: got shape \(3, 4\), expected \(V, N, D\)"),
        (torch.ones(1, 3, 4), ValueError, r"views: got shape \(1, 3, 4\), expected"),
        (torch.ones(2, 3, 4).long(), TypeError, r"views: got dtype torch.int64, expected"),
        ([torch.ones(3, 4)], ValueError, "views: got 1, expected at least 2"),
        ([], ValueError, "views: got 0, expected at least 2"),
        (3.0, TypeError, "views: got float, expected a tensor or a sequence of tensors"),
        ([torch.ones(3, 4), torch.ones(3)], ValueError, r"views\[1\]: got shape \(3,\), expected"),
        ([torch.ones(3, 4), torch.ones(2, 4)], ValueError, r"views\[1\]: got .*views\[0\]'s"),
        ([torch.ones(3, 4), torch.ones(3, 4).half()], TypeError, r"views\[1\]: got dtype .*views"),
        ([torch.ones(3, 4), [1.0]], TypeError, r"views\[1\]: got list, expected a tensor"),
    ],
)
def test_errors(argument, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        GroCoLoss()(argument)


def test_more_positive_views_than_views():
    with pytest.raises(ValueError, match=r"^positive_views: got 3, expected at most 2, the number"):
        GroCoLoss(positive_views=3)(torch.ones(2, 3, 4))
