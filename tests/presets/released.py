"""How a preset is compared with the formula of released code, and how it is trained."""

import pytest
import torch


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def labels(n, k, seed=0):
    """Random integers below k, all of them if n allows it."""
    found = torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))
    found[: min(n, k)] = torch.arange(min(n, k))
    return found


def draw(*shape, seed=0):
    """Standard normal numbers in fp64."""
    generator = torch.Generator().manual_seed(hash((shape, seed)) & 0xFFFF)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def agree(loss, dense, *values, tolerance=1e-9):
    """Both functions of the same fp64 tensors give the same value, and the same gradient of every
    one of them: None where the other has none, or zeros."""
    found = []
    for function in (loss, dense):
        leaves = [
            v.detach().clone().requires_grad_() if v.is_floating_point() else v for v in values
        ]
        total = function(*leaves)
        floating = [v for v in leaves if v.is_floating_point()]
        given = torch.autograd.grad(total, floating, allow_unused=True, materialize_grads=True)
        found.append((total.detach(), given))
    (mine, my_gradients), (theirs, their_gradients) = found
    assert mine.dtype == torch.float64
    assert mine.item() == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    assert any(g.abs().sum() > 0 for g in their_gradients)
    for k, (my, their) in enumerate(zip(my_gradients, their_gradients, strict=True)):
        bound = tolerance * max(1.0, their.abs().max().item())
        assert (my - their).abs().max() <= bound, f"gradient {k}"


def trains(loss, *values, steps=5, lr=0.05):
    """A few steps of gradient descent on the tensors lower the loss; every gradient is finite."""
    leaves = [v.detach().clone().requires_grad_() if v.is_floating_point() else v for v in values]
    floating = [v for v in leaves if v.is_floating_point()]
    optimizer = torch.optim.Adam(floating, lr)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = loss(*leaves)
        total.backward()
        assert all(v.grad is None or v.grad.isfinite().all() for v in floating)
        optimizer.step()
        history.append(total.item())
    assert loss(*leaves).item() < history[0]
