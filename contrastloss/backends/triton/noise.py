"""Gumbel noise of pairs, identical to the last bit on every backend. It repeats ``gumbel`` of
:mod:`..reference.noise` operation by operation; kernels that call it are compiled without fused
multiply-adds."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["gumbel"]


@triton.jit
def gumbel(row, row_more, col, col_more):
    """fp32 noise of a tile, from the two keys (uint32) of its rows and those of its columns."""
    return from_bits(mixed(mixed(row + col) ^ (row_more + col_more)))


@triton.jit
def mixed(v):
    v = (v ^ (v >> 16)) * 0x21F0AAAD
    v = (v ^ (v >> 15)) * 0xD35A2D97
    return v ^ (v >> 15)


@triton.jit
def from_bits(h):
    low = h < 0x80000000
    w = unit_interval(tl.where(low, h, 0xFFFFFFFF - h))  # w, or 1 - w where w >= 1/2
    return -log(tl.where(low, artanh2(tl.div_rn(w, 2.0 - w)), -log(w)))


@triton.jit
def unit_interval(h):
    """(h + 1/2) / 2^32 for h < 2^31, rounded from the exact 16-bit halves of h."""
    whole = (h >> 16).to(tl.float32) * 65536.0 + (h & 0xFFFF).to(tl.float32)
    return (whole + 0.5) * 2.0**-32


@triton.jit
def artanh2(z):
    """log((1 + z) / (1 - z)) for |z| <= 1/3."""
    z2 = z * z
    p = tl.full(z.shape, 1.0 / 13, tl.float32)
    for k in tl.static_range(6):
        p = p * z2 + 1.0 / (11 - 2 * k)
    return 2.0 * (z * p)


@triton.jit
def log(x):
    """log x of a positive normal number x = 2^e m with m in [sqrt(1/2), sqrt(2)), from its bits."""
    bits = x.to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23
    m = (bits - (e << 23)).to(tl.float32, bitcast=True)
    return e.to(tl.float32) * 0.6931471824645996 + artanh2(tl.div_rn(m - 1.0, m + 1.0))
