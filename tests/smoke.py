"""Checks that an installed package works at all. It needs only the package.

python smoke.py BACKEND...    the backends that must be available
"""

import pkgutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import torch
from torch.nn.functional import cross_entropy, normalize

import contrastloss
from contrastloss import backends, compat


def dense_clip(x, y, temperature):
    s = normalize(x) @ normalize(y).T / temperature
    target = torch.arange(len(x))
    return (cross_entropy(s, target) + cross_entropy(s.T, target)) / 2


def dense_nt_xent(x, y, temperature):
    z = normalize(torch.cat([x, y]))
    s = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return cross_entropy(s, torch.arange(len(z)).roll(len(x)))


def check(module, dense, backend):
    x = torch.randn(97, 33)
    y = x + torch.randn(97, 33)
    x.requires_grad_()
    y.requires_grad_()
    ours, theirs = module(x, y), dense(x, y, module.temperature)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (x, y)), torch.autograd.grad(theirs, (x, y)), rtol=1e-4, atol=1e-6
    )
    print(f"{backend}: {type(module).__name__} {ours.item():.6f}, dense {theirs.item():.6f}")


def check_adapters():
    """Every adapter imports without its library, or says which one it inherits from."""
    for _, name, _ in pkgutil.iter_modules(compat.__path__):
        try:
            import_module(f"contrastloss.compat.{name}")
        except ImportError as error:
            if find_spec(name) is not None or "inherits from" not in str(error):
                raise
    x, y = normalize(torch.randn(2, 97, 33), dim=2).unbind()
    value = compat.open_clip.ClipLoss()(x, y, 5.0)
    torch.testing.assert_close(value, dense_clip(x, y, 0.2), rtol=1e-5, atol=1e-6)


def main(wanted):
    torch.manual_seed(0)
    print(f"contrastloss of {contrastloss.__path__[0]}")
    present = backends.available()
    for name in wanted:
        assert present.get(name, "unknown") is None, f"{name} is missing: {present.get(name)}"
    for backend in (None, *wanted):
        for module, dense in (
            (contrastloss.NTXentLoss(temperature=0.2, backend=backend), dense_nt_xent),
            (contrastloss.CLIPLoss(temperature=0.2, backend=backend), dense_clip),
        ):
            check(module, dense, backend or "automatic")
    check_adapters()
    subprocess.run([sys.executable, "-m", "contrastloss", "info"], check=True)
    print(f"contrastloss {contrastloss.__version__} works")


if __name__ == "__main__":
    main(sys.argv[1:])
