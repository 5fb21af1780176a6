"""Soft targets by hand, against dense formulas and open_clip's, and with the properties of all
losses."""

from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, normalize

from contrastloss import CLIPLoss, SoftTargetLoss
from contrastloss.functional import soft_target
from contrastloss.testing import Subject


class Labelled(SoftTargetLoss):
    """With one to three labels for each row of both views, or none."""

    targets: str = "labels"

    @staticmethod
    def example(n, d, generator):
        x, y, *_ = SoftTargetLoss.example(n, d, generator)
        labels = torch.zeros(2, n, max(n // 4, 2), dtype=torch.int64)
        drawn = torch.randint(labels.shape[2], (2, n, 3), generator=generator)
        return x, y, *labels.scatter_(2, drawn, 1)


OPTIONS = [
    (SoftTargetLoss, {}),
    (SoftTargetLoss, {"variant": "kl", "target_temperature": 0.3}),
    (SoftTargetLoss, {"variant": "bce", "identity": 0.5}),
    (SoftTargetLoss, {"identity": 1.0, "symmetric": False}),
    (Labelled, {"identity": 1.0}),
    (Labelled, {"variant": "bce", "symmetric": False}),
]


@every_check
@pytest.mark.parametrize(("cls", "options"), OPTIONS, ids=str)
def test_properties(check, cls, options, device, backend):
    check(Subject(cls, options, device, backend, thorough=False))


def test_by_hand(device, backend):
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    # scores 1, 1 for the first row, 0, 0 for the second; 1, 0 and 1, 0 for the columns. The teacher
    # has 2, 0 and 0, 2
    m = tensor(E1, E2, device=device)
    options = {"temperature": 1.0, "target_temperature": 0.5, "backend": backend}
    p, q = 1 / (1 + exp(-2)), log(1 + e)
    columns = [q - p, q - (1 - p)]
    close(soft_target(x, y, m, m, symmetric=False, **options), log(2))
    found = soft_target(x, y, m, m, reduction="none", **options)
    close(found, [(log(2) + columns[0]) / 2, (log(2) + columns[1]) / 2])
    entropy = -p * log(p) - (1 - p) * log(1 - p)
    found = soft_target(x, y, m, m, variant="kl", reduction="none", **options)
    close(found, [(log(2) + c) / 2 - entropy for c in columns])
    # softplus of 1 and of 0
    found = soft_target(x, y, m, m, variant="bce", symmetric=False, reduction="none", **options)
    close(found, [q - 0.5, log(2)])
    # the identity target: the first row has log 2 again, the columns q - 1 and q
    found = soft_target(x, y, m, m, identity=2.0, reduction="none", **options)
    want = [(3 * log(2) + columns[0] + 2 * (q - 1)) / 2, (3 * log(2) + columns[1] + 2 * q) / 2]
    close(found, want)
    weight = torch.tensor([0.5, 2.0], device=device)
    found = soft_target(x, y, m, m, row_weight=weight, identity=2.0, reduction="none", **options)
    close(found, [0.5 * want[0], 2 * want[1]])


def test_labels_by_hand(device, backend):
    x, y = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    labels = torch.tensor([[1, 1, 0], [0, 0, 1]], device=device)
    others = torch.tensor([[1, 0, 0], [0, 0, 0]], device=device)
    options = {"temperature": 1.0, "targets": "labels", "symmetric": False, "reduction": "none"}
    options["backend"] = backend
    # the first row agrees with the first column alone, the second with none
    close(soft_target(x, y, labels, others, **options), [log(2), 0])
    t, q = 2**-0.5, log(1 + e)
    found = soft_target(x, y, labels, others, variant="bce", **options)
    close(found, [q - t / 2, log(2)])
    found = soft_target(x, y, labels, others, variant="bce", normalize_targets=False, **options)
    close(found, [q - 1 / 2, log(2)])
    # negative labels are none
    found = soft_target(x, y, labels - 2 * (labels == 0).long(), others, **options)
    close(found, [log(2), 0])


def data(n, d=7, c=5):
    g = torch.Generator().manual_seed(n)
    x, y = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    m, t = (torch.randn(n, c, generator=g, dtype=torch.float64) for _ in range(2))
    return [x.requires_grad_(), y.requires_grad_(), m, t]


@pytest.mark.parametrize("n", [1, 2, 9, 33, 130, 257])
@pytest.mark.parametrize("variant", ["ce", "kl", "bce"])
def test_dense(n, variant, backend):
    """Values and gradients of torch's own functions of all scores."""
    x, y, m, t = data(n)
    s, taught = (normalize(a) @ normalize(b).mT for a, b in ((x, y), (m, t)))
    want = 0
    for logits, targets in ((s / 0.2, taught / 0.1), (s.mT / 0.2, taught.mT / 0.1)):
        p = targets.softmax(1)
        if variant == "bce":
            one = binary_cross_entropy_with_logits(logits, p)
        elif variant == "kl":
            one = kl_div(logits.log_softmax(1), p, reduction="batchmean")
        else:
            one = cross_entropy(logits, p)
        want = want + one / 2
    found = soft_target(
        x, y, m, t, temperature=0.2, target_temperature=0.1, variant=variant, backend=backend
    )
    torch.testing.assert_close(found, want)
    grads = [torch.autograd.grad(value, (x, y)) for value in (found, want)]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 40, 129])
def test_clip_distillation(n, backend):
    """open_clip's DistillClipLoss: the sum of its contrastive and its distillation loss."""
    x, y, m, t = data(n)
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    taught = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    units = [normalize(v) for v in (x, y, m, t)]
    logits, targets = (s * a @ b.mT for s, a, b in ((scale, *units[:2]), (taught, *units[2:])))
    own, want = torch.arange(n), 0
    for a, b in ((logits, targets), (logits.mT, targets.mT)):
        want = want + cross_entropy(a, own) / 2
        want = want - (b.softmax(dim=1) * a.log_softmax(dim=1)).sum(dim=1).mean() / 2
    loss = SoftTargetLoss(identity=1.0, normalize=False, normalize_targets=False, backend=backend)
    found = loss(*units, logit_scale=scale, target_scale=taught)
    torch.testing.assert_close(found, want)
    grads = [
        torch.autograd.grad(value, (x, y, scale), retain_graph=True) for value in (found, want)
    ]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)
    (none,) = torch.autograd.grad(found, taught, allow_unused=True)
    assert none is None  # the teacher's scale is constant, too


def test_the_sum_of_two_losses():
    """The identity target's loss, and that of soft targets, as SoftCon adds them."""
    x, y, m, t = data(20)
    both = SoftTargetLoss(0.3, identity=0.7)(x, y, m, t)
    soft = SoftTargetLoss(0.3)(x, y, m, t)
    torch.testing.assert_close(both, soft + 0.7 * CLIPLoss(0.3)(x, y))


def test_queries_and_documents(backend):
    """InfoNCE distillation of rows: more columns than rows."""
    x, _, m, _ = data(6)
    _, y, _, t = data(15)
    found = SoftTargetLoss(0.3, symmetric=False, target_temperature=0.2, backend=backend)(
        x, y, m, t
    )
    s, taught = (normalize(a) @ normalize(b).mT for a, b in ((x, y), (m, t)))
    torch.testing.assert_close(found, cross_entropy(s / 0.3, (taught / 0.2).softmax(1)))


def test_one_teacher_for_both_sides_is_learnt():
    """With the teacher's own embeddings KL is 0, and so is its gradient."""
    _, _, m, t = data(30)
    x, y = m.clone().requires_grad_(), t.clone().requires_grad_()
    found = SoftTargetLoss(0.1, "kl", target_temperature=0.1)(x, y, m, t)
    assert abs(found) < 1e-12
    assert max(g.norm() for g in torch.autograd.grad(found, (x, y))) < 1e-12


def test_errors():
    x, y, m, t = data(4)
    with pytest.raises(ValueError, match=r"y: got shape \(3, 7\), expected \(4, 7\), or symmetric"):
        SoftTargetLoss()(x, y[:3], m, t[:3])
    with pytest.raises(ValueError, match=r"y: got shape \(3, 7\), expected \(4, 7\), or symmetric"):
        SoftTargetLoss(symmetric=False, identity=1.0)(x, y[:3], m, t[:3])
    with pytest.raises(ValueError, match=r"target_y: got shape \(3, 5\), expected \(4, 5\)"):
        SoftTargetLoss()(x, y, m, t[:3])
    with pytest.raises(ValueError, match=r"target_y: got shape \(4, 4\), expected \(4, 5\)"):
        SoftTargetLoss()(x, y, m, t[:, :4])
    with pytest.raises(ValueError, match="variant: got 'kl' with targets='labels', expected 'ce'"):
        SoftTargetLoss(variant="kl", targets="labels")
    with pytest.raises(ValueError, match=r"target_temperature: got 0\.0, expected a positive"):
        SoftTargetLoss(target_temperature=0.0)
    with pytest.raises(ValueError, match=r"identity: got -1\.0, expected a finite number >= 0"):
        SoftTargetLoss(identity=-1.0)
    with pytest.raises(ValueError, match=r"target_x: got -2.*, expected none below 0 \(validate=T"):
        SoftTargetLoss(targets="labels", validate=True)(x, y, m.clamp(-2, -2), t.abs())
    with pytest.raises(ValueError, match="return_stats: got True, expected none: its targets are"):
        SoftTargetLoss(return_stats=True)
