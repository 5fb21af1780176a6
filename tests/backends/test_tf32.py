"""The products of fp32 that Triton makes of TF32: their error, by arithmetic that does the same."""

import pytest
import torch

from contrastloss.backends import triton

if triton.missing():
    pytest.skip("needs triton", allow_module_level=True)

from contrastloss.backends.triton.config import SHORT


def tf32(x):
    """Rounded to 11 significant bits, ties away from zero, as ``cvt.rna.tf32.f32`` does."""
    bits = x.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def split_products(x, y):
    """<x_i, y_j> of the large parts, and of large with small ones, added in fp64."""
    parts = [(tf32(v), tf32(v - tf32(v))) for v in (x, y)]
    (a, da), (b, db) = [[part.double() for part in both] for both in parts]
    return a @ b.mT + a @ db.mT + da @ b.mT


def errors(d, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (
        torch.nn.functional.normalize(torch.randn(256, d, generator=generator)) for _ in range(2)
    )
    exact = x.double() @ y.double().mT
    split, plain = split_products(x, y), (x @ y.mT).double()
    return (split - exact).abs().max().item(), (plain - exact).abs().max().item()


@pytest.mark.parametrize("d", [SHORT + 1, 64, 100, 512, 4096])
def test_three_products_are_as_exact_as_fp32(d):
    for seed in range(3):
        split, plain = errors(d, seed)
        assert split <= 2 * plain


def test_short_rows_would_not_be():
    assert any(split > 2 * plain for split, plain in (errors(2, seed) for seed in range(3)))


@pytest.mark.parametrize("d", [1, 2, 8, 64, 1000])
def test_the_bound(d):
    """What is left out is at most 3 * 2^-22 of the sum of all |x_k y_k|."""
    x, y = torch.rand(64, d) + 1.0, torch.rand(64, d) + 1.0
    exact = x.double() @ y.double().mT
    assert ((split_products(x, y) - exact).abs() <= 3 * 2.0**-22 * exact).all()
