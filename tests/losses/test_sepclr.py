from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import SepCLRLoss
from contrastloss.functional import sepclr
from contrastloss.testing import CHECKS, Subject


def spaces(n, d, generator):
    common, noise = torch.randn(2, n, 6, generator=generator).double()
    salient, other = torch.randn(2, n, 3, generator=generator).double()
    targets = torch.arange(n) % 2 == 0
    return [common, common + noise, salient, salient + 0.5 * other, targets]


def labelled(n, d, generator):
    labels = torch.randint(100, 103, (n, 2), generator=generator)
    return [*spaces(n, d, generator), labels]


OPTIONS = {"common": 0.7, "salient": 1.5, "background": 3.0, "joint": 2.0, "temperature": 0.8}


@every_check
def test_properties(check, device):
    options = {**OPTIONS, "label_variance": 0.6}
    check(Subject(SepCLRLoss, options, device, thorough=False, make=labelled))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(SepCLRLoss, {"uniformity": 0.5}, device, backend, make=spaces))


# one target, two other rows
COMMON = E1, E1, E2
SALIENT = [3.0], [1.0], [2.0]


def test_by_hand(device, backend):
    c, s = tensor(*COMMON, device=device), tensor(*SALIENT, device=device)
    targets = torch.tensor([True, False, False], device=device)
    names = ("common", "salient", "background", "joint")

    def term(name, *given):
        only = {other: float(other == name) for other in names}
        return sepclr(*given, **only, temperature=1.0, backend=backend)

    # squared distances of pairs 01, 02, 12: in c 0, 2, 2; in s (3, 0 and 0) 9, 9, 0
    given = 2 * c, c.flip(1), s, s + 1, targets
    close(term("common", *given), 2 / 2 + 2 * log((1 + 2 * exp(-1)) / 3))
    uniform = [log((1 + 2 * exp(-v * v / 2)) / 3) for v in (3, 4)]
    close(term("salient", *given), 1 / 2 + uniform[0] + uniform[1])
    close(term("background", *given), ((1 + 4) / 2 + (4 + 9) / 2) / 2 / 2)
    joint = [
        log((1 + exp(-v / 2) + exp(-(2 + v) / 2)) / 3) + log((1 + exp(-v / 2) + exp(-1)) / 3)
        + log((1 + exp(-(2 + v) / 2) + exp(-1)) / 3)
        for v in (9, 16)
    ]  # fmt: skip
    close(term("joint", *given), sum(joint) / 6)
    parts = [term(name, *given) for name in names]
    want = parts[0] + parts[1] + parts[2] + 10 * parts[3]
    close(sepclr(*given, temperature=1.0, backend=backend), want)


def test_labels_by_hand(device, backend):
    c = tensor(*COMMON, device=device)
    s = tensor(*SALIENT, device=device)
    labels = tensor(7.0, 7.2, 9.0, device=device)
    options = {"common": 0.0, "joint": 0.0, "uniformity": 0.0, "background": 0.0}
    kernel = exp(-(0.2**2) / (2 * 0.025))
    targets = torch.tensor([True, True, False], device=device)
    near = labels - tensor(0.0, 0.0, 2.0, device=device)  # the third row is not a target
    value = sepclr(c, c, s, 2 * s, targets, near, **options, backend=backend)
    torch.testing.assert_close(value.item(), kernel * (4 + 16) / 2, rtol=1e-12, atol=0.0)
    # with three targets: the kernels of the other pairs are below 1e-30
    value = sepclr(c, c, s, 2 * s, None, labels, **options, backend=backend)
    torch.testing.assert_close(value.item(), kernel * (4 + 16) / 2 / 3, rtol=1e-12, atol=0.0)


def test_labels_of_other_rows_do_not_matter(device, backend):
    *inputs, targets, labels = (
        v.to(device) for v in labelled(8, 6, torch.Generator().manual_seed(0))
    )
    labels = labels.double()
    want = sepclr(*inputs, targets, labels, backend=backend)
    for other in (-999.0, torch.nan):
        given = torch.where(targets[:, None], labels, other)
        close(sepclr(*inputs, targets, given, backend=backend), want)


def test_without_targets_others_pairs_or_rows(device, backend):
    c = torch.randn(3, 2, dtype=torch.float64, device=device, requires_grad=True)
    s = torch.randn(3, 1, dtype=torch.float64, device=device, requires_grad=True)
    every = torch.ones(3, dtype=torch.bool, device=device)
    labels = torch.arange(3, device=device)
    for targets in (every, ~every):
        for own in (None, labels):
            value = sepclr(c, c, s, s, targets, own, backend=backend)
            for grad in gradients(value, c, s):
                assert grad.isfinite().all()
    close(sepclr(c[:1], c[:1], s[:1], s[:1], every[:1], labels[:1], backend=backend), 0.0)
    value = sepclr(c[:0], c[:0], s[:0], s[:0], backend=backend)
    close(value, 0.0)
    assert not any(g.any() for g in gradients(value, c, s))


def test_errors(device):
    c, s = torch.ones(3, 2, device=device), torch.ones(3, 1, device=device)
    with pytest.raises(ValueError, match=r"^common_y: got shape \(2, 2\), expected common_x's"):
        sepclr(c, c[:2], s, s)
    with pytest.raises(ValueError, match=r"^salient_x: got shape \(2, 1\), expected \(3, S\)"):
        sepclr(c, c, s[:2], s[:2])
    with pytest.raises(TypeError, match=r"^targets: got dtype torch.float32, expected torch.bool"):
        sepclr(c, c, s, s, s[:, 0])
    with pytest.raises(ValueError, match=r"^labels: got shape \(2, 1\), expected \(3,\) or \(3, L"):
        sepclr(c, c, s, s, None, s[:2])
