"""Gumbel noise of pairs, identical to the last bit on every backend.

The 32 random bits h of a pair are a hash of its row's and its column's keys. With ``w = (h + 1/2) /
2^32`` uniform on (0, 1), ``g = -log E`` for the exponential variate ``E = -log(1 - w)``. Both
logarithms are the series of ``2 artanh`` in fp32. Every product and every sum is rounded
separately: a backend may not use another order or a fused multiply-add.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..topk import mixed

__all__ = [
    "gumbel",
]

_LN2 = 0.6931471824645996  # the nearest fp32 number


def gumbel(row_keys: Tensor, col_keys: Tensor) -> Tensor:
    """fp32 noise for keys (..., 2), which broadcast against each other."""
    first = mixed((row_keys[..., 0] + col_keys[..., 0]) & 0xFFFFFFFF)
    return _from_bits(mixed(first ^ ((row_keys[..., 1] + col_keys[..., 1]) & 0xFFFFFFFF)))


def _from_bits(h: Tensor) -> Tensor:
    low = h < 1 << 31
    w = _unit_interval(torch.where(low, h, 0xFFFFFFFF - h))  # w, or 1 - w where w >= 1/2
    exponential = torch.where(low, _artanh2(w / (2.0 - w)), -_log(w))
    return -_log(exponential)


def _unit_interval(h: Tensor) -> Tensor:
    """(h + 1/2) / 2^32, rounded from the exact 16-bit halves of h."""
    whole = (h >> 16).to(torch.float32) * 65536.0 + (h & 0xFFFF).to(torch.float32)
    return (whole + 0.5) * 2.0**-32


def _artanh2(z: Tensor) -> Tensor:
    """log((1 + z) / (1 - z)) for |z| <= 1/3."""
    z2 = z * z
    p = torch.full_like(z, 1 / 13)
    for k in (11, 9, 7, 5, 3, 1):
        p = p * z2 + torch.tensor(1 / k, dtype=torch.float32, device="cpu")
    return 2.0 * (z * p)


def _log(x: Tensor) -> Tensor:
    """log x of a positive normal number x = 2^e m with m in [sqrt(1/2), sqrt(2)), from its bits."""
    bits = x.view(torch.int32)
    e = (bits - 0x3F3504F3) >> 23
    m = (bits - (e << 23)).view(torch.float32)
    return e.to(torch.float32) * _LN2 + _artanh2((m - 1.0) / (m + 1.0))
