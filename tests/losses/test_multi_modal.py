from math import exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLIPLoss, MultiModalLoss
from contrastloss.functional import multi_modal
from contrastloss.testing import CHECKS, Subject


class Layers(MultiModalLoss):
    """Two modalities of three layers each."""

    @staticmethod
    def example(n, d, generator):
        made = [MultiModalLoss.example(n, d, generator)[:2] for _ in range(3)]
        return tuple(torch.stack(layers) for layers in zip(*made, strict=True))


@every_check
def test_properties(check, device):
    check(Subject(MultiModalLoss, {"weights": (1.0, 0.5, 2.0)}, device, thorough=False))


@pytest.mark.parametrize("cls", [MultiModalLoss, Layers])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {"directions": "sum"}, device, backend))


def test_by_hand(device):
    # s = [[0.6, 1.0], [0.8, 0.0]] between the first two, the identity between 1 and 3, and
    # s = [[0.6, 0.8], [1.0, 0.0]] between 2 and 3
    x, y = tensor(E1, E2, device=device), tensor([0.6, 0.8], E1, device=device)
    rows = multi_modal(x, y, x, temperature=1.0, reduction="none")
    first = (log(1 + exp(0.4)) + log(1 + exp(0.2))) / 2
    second = (log(1 + exp(0.8)) + log(1 + exp(1.0))) / 2
    own = log(1 + exp(-1))
    close(rows, [2 * first + own, 2 * second + own])
    rows = multi_modal(
        x, y, x, weights=(1, 3, 0), directions="sum", temperature=1.0, reduction="none"
    )
    close(rows, [2 * (first + 3 * own), 2 * (second + 3 * own)])


def test_layers_are_summed(device):
    x, y = torch.randn(2, 3, 7, 4, device=device, dtype=torch.float64)
    want = sum(CLIPLoss()(x[k], y[k]) for k in range(3))
    close(MultiModalLoss()(x, y), want)


def test_scales_of_pairs(device):
    """One scale per pair, in a tensor or a list, each with a gradient."""
    x = torch.randn(3, 7, 4, device=device, dtype=torch.float64)
    scales = torch.tensor([3.0, 5.0, 9.0], device=device, dtype=torch.float64, requires_grad=True)
    loss = MultiModalLoss()
    value = loss(*x, logit_scales=scales)
    close(loss(*x, logit_scales=[3.0, scales[1], 9.0]), value)
    pairs = [(x[0], x[1]), (x[0], x[2]), (x[1], x[2])]
    want = sum(
        CLIPLoss()(a, b, logit_scale=k) for (a, b), k in zip(pairs, scales.unbind(), strict=True)
    )
    close(value, want)
    close(gradients(value, scales)[0], gradients(want, scales)[0])


def test_one_row_has_no_negative(device):
    x = torch.randn(3, 1, 4, device=device, requires_grad=True)
    value = MultiModalLoss()(*x)
    assert value.item() == 0.0
    assert not gradients(value, x)[0].any()


def test_errors():
    x, loss = torch.randn(4, 3), MultiModalLoss()
    for bad, kind, message in (
        (x[:3], ValueError, r"embeddings\[1\]: got shape \(3, 3\), expected embeddings\[0\]'s"),
        (x.double(), TypeError, r"embeddings\[1\]: got dtype torch.float64, expected embeddings"),
        ([1.0], TypeError, r"embeddings\[1\]: got list, expected a tensor"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            loss(x, bad)
    with pytest.raises(ValueError, match=r"^embeddings: got 1, expected at least two"):
        loss(x)
    with pytest.raises(
        ValueError, match=r"^embeddings\[0\]: got shape \(3,\), expected \(.*N, D\)"
    ):
        loss(x[0], x[0])
    with pytest.raises(ValueError, match=r"^logit_scales: got 2, expected 1, one per pair"):
        loss(x, x, logit_scales=torch.ones(2))
    with pytest.raises(ValueError, match=r"^weights: got 3, expected 1, one per pair"):
        MultiModalLoss((1.0, 1.0, 2.0))(x, x)
    with pytest.raises(ValueError, match=r"^weights: got \(0.0,\), expected at least one nonzero"):
        MultiModalLoss((0.0,))(x, x)
    with pytest.raises(ValueError, match=r"^logit_scale: got a value and logit_scales, expected"):
        loss(x, x, logit_scale=2.0, logit_scales=[2.0])
    with pytest.raises(
        ValueError, match=r"^embeddings\[0\]: got shape .*, expected \(N, D\) or \("
    ):
        loss(x[None, None], x[None, None])
    layers = torch.ones(2, 4, 3)
    layers[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^embeddings\[1\]: got NaN or infinity in 1 of 8 rows"):
        MultiModalLoss(validate=True)(torch.ones(2, 4, 3), layers)
