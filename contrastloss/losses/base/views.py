"""Shared by losses of V views of each instance, (N, V, D)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["views_example"]


def views_example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Three views around a direction per instance, about as similar as the hardest negative."""
    cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
    x = normalize(torch.randn(n, 4, d, generator=generator, dtype=torch.float64), dim=-1)
    return (1.5 * (math.sqrt(cosine) * x[:, :1] + math.sqrt(1 - cosine) * x[:, 1:]),)
