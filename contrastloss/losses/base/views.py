"""Shared by losses of V views of each instance, (N, V, D)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...ops.check import check_embeddings, shape
from .checks import check_finite
from .loss import ScoreLoss

__all__ = ["check_views", "views_example"]


def check_views(loss: ScoreLoss, z: Tensor) -> None:
    check_embeddings("z", z)
    if z.ndim != 3 or z.shape[1] < 2 or z.shape[2] < 1:
        raise ValueError(f"z: got shape {shape(z)}, expected (N, V, D) with V >= 2 views")
    if loss.validate:
        check_finite(z=z)


def views_example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Three views around a direction per instance, about as similar as the hardest negative."""
    cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
    x = normalize(torch.randn(n, 4, d, generator=generator, dtype=torch.float64), dim=-1)
    return (1.5 * (math.sqrt(cosine) * x[:, :1] + math.sqrt(1 - cosine) * x[:, 1:]),)
