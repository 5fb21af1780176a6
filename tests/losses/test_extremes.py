"""Losses on cosines: rows whose squares overflow or underflow, and zero rows."""

import pytest
import torch

from contrastloss import AlignmentUniformityLoss, CACRLoss, KoLeoLoss
from contrastloss.losses import LOSSES
from contrastloss.testing import Subject, dense, example
from contrastloss.testing.compare import assert_same

#: not functions of directions alone: random numbers in each call; weights and biases of a layer;
#: the length of a gate; distances; no cosines by default
OTHERS = {"mochi", "ada_meow", "simlap", "pair_contrastive", "hierarchical_contrastive", "jepa"}
COSINES = {name for name, cls in LOSSES.items() if "normalize" in cls.__dataclass_fields__}
DIRECTIONS = {"clan", "cosine", "groco", "smooth_ap", "recall_at_k"} | COSINES - OTHERS


@pytest.mark.parametrize("name", sorted(DIRECTIONS))
def test_squares_that_overflow(name, backend, device):
    """Embeddings scaled by a power of two: the same loss, and gradients divided by it."""
    values = example(LOSSES[name], 7, 5, torch.Generator().manual_seed(0))
    values = [v.to(device) if isinstance(v, torch.Tensor) else v for v in values]
    loss = LOSSES[name](backend=backend)

    def at(factor):
        scaled, leaves = [], []
        for v in values:
            if isinstance(v, torch.Tensor) and v.is_floating_point():
                v = (v.float() * factor).requires_grad_()
                leaves.append(v)
            scaled.append(v)
        total = loss(*scaled).sum()
        grads = torch.autograd.grad(total, leaves, allow_unused=True)
        return [total.detach(), *(g * factor for g in grads if g is not None)]

    assert_same(at(2.0**80), at(1.0), "(loss, gradients)", 1e-5)


def squared(x, y):
    """2 - 2 cos, where a zero vector has cosine 0."""
    norms = [v.norm(dim=-1, keepdim=True) for v in (x, y)]
    x, y = (v / torch.where(n == 0, 1.0, n) for v, n in zip((x, y), norms, strict=True))
    return 2 - 2 * x @ y.mT


def some_zero(device, *zeros):
    g = torch.Generator().manual_seed(0)
    found = []
    for rows in zeros:
        x = torch.randn(6, 3, generator=g, dtype=torch.float64)
        x[rows] = 0
        found.append(x.to(device))
    return found


def gradients_of(loss, inputs, want):
    """Check the value, finite gradients, and zero gradients of zero rows; return the gradients."""
    value, *grads = Subject(type(loss)).run(loss, inputs)
    torch.testing.assert_close(value, want, rtol=1e-12, atol=0)
    for x, grad in zip(inputs, grads, strict=True):
        assert grad.isfinite().all()
        assert not grad[(x == 0).all(1)].any()
    return grads


def test_koleo_of_zero_vectors(backend, device):
    (z,) = some_zero(device, [1, 4])
    far = squared(z, z).fill_diagonal_(torch.inf).amin(1).sqrt()
    want = -torch.log(far + 1e-8).mean()
    (grad,) = gradients_of(KoLeoLoss(backend=backend), [z], want)
    leaf = z.clone().requires_grad_()
    value = KoLeoLoss.reference(leaf, eps=1e-8, normalize=True).mean()
    (slope,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(value, want)
    kept = [0, 2, 3, 5]
    assert_same(grad[kept], slope[kept], "gradient")


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("alpha", [2.0, 1.0])
def test_alignment_and_uniformity_of_zero_vectors(alpha, across, backend, device):
    x, y = some_zero(device, [1, 4], [1, 2])
    z = torch.cat([x, y])
    off = ~torch.eye(6, dtype=torch.bool, device=device)
    parts = [squared(z, z)[off.repeat(2, 2)]] if across else [squared(v, v)[off] for v in (x, y)]
    spread = sum(part.mul(-2).exp().mean().log() for part in parts) / len(parts)
    want = squared(x, y).diag().pow(alpha / 2).mean() + spread
    options = {"alpha": alpha, "across": across}
    gradients_of(AlignmentUniformityLoss(**options, backend=backend), [x, y], want)
    options |= {"t": 2.0, "weight": 1.0, "normalize": True}
    torch.testing.assert_close(AlignmentUniformityLoss.reference(x, y, **options), want)


def test_cacr_of_zero_vectors(backend, device):
    x, y = some_zero(device, [1, 4], [1, 2])
    d = squared(x, y)
    far = (-2 * d).fill_diagonal_(-torch.inf).softmax(1)
    want = (d.diag() - (far * d).sum(1)).mean()
    gradients_of(CACRLoss(backend=backend), [x, y], want)
    torch.testing.assert_close(dense(CACRLoss(), x, y)[0].mean(), want)
