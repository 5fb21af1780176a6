"""Adapters that need no other library, under torch.compile's default backend, with gradients."""

import pytest
import torch

from compat.agree import agree, leaf
from contrastloss.compat import (
    grad_cache,
    info_nce,
    lightly,
    open_clip,
    solo_learn,
    supcontrast,
)

CENTRED = lightly.DINOLoss(6, center_momentum=1.0)
STUDENT = open_clip.DistillClipLoss()
COMPILED = {
    "ClipLoss": open_clip.ClipLoss(),
    "SigLipLoss": lambda x, y, scale: open_clip.SigLipLoss()(x, y, scale, scale - 9),
    "DistillClipLoss": lambda x, y, scale: STUDENT(
        x, y, scale, x.detach().roll(1, 1), y.detach().roll(1, 1), scale.detach()
    ),
    "InfoNCE": lambda x, y, scale: info_nce.InfoNCE()(x, scale * y),
    "SupConLoss": lambda x, y, scale: supcontrast.SupConLoss(2.0)(
        scale * torch.stack([x, y], 1), torch.arange(len(x)) // 3
    ),
    "NTXentLoss": lambda x, y, scale: lightly.NTXentLoss()(x, scale * y),
    "BarlowTwinsLoss": lambda x, y, scale: lightly.BarlowTwinsLoss()(x, scale * y + x),
    "KoLeoLoss": lambda x, y, scale: lightly.KoLeoLoss()(x + scale * y),
    "SwaVLoss": lambda x, y, scale: lightly.SwaVLoss()([x / 2, y / 2], [scale * x]),
    "DINOLoss": lambda x, y, scale: CENTRED([x.detach(), y.detach()], [x, y, scale * x]),
    "simclr_loss_func": lambda x, y, scale: solo_learn.simclr_loss_func(
        x + scale * y, torch.arange(len(x)) // 3
    ),
    "SimpleContrastiveLoss": lambda x, y, scale: grad_cache.SimpleContrastiveLoss()(x, scale * y),
}

#: adapters that do more than rename the arguments of a loss; the others are extra tests
OWN_CODE = (
    "ClipLoss", "DistillClipLoss", "InfoNCE", "SupConLoss", "SwaVLoss", "DINOLoss"
)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [n if n in OWN_CODE else pytest.param(n, marks=pytest.mark.extra) for n in COMPILED],
)
def test_one_graph(name):
    torch.compiler.reset()
    function = COMPILED[name]
    compiled = torch.compile(function, fullgraph=True)
    given = leaf(17, 6), leaf(17, 6), leaf(1).sum().detach().requires_grad_()
    agree(compiled, function, given, given)
