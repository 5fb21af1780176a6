"""Tensors that can be cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(
    values: Sequence[Any] | float, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """A tensor that does not depend on the first caller's default device, default dtype or
    inference mode, since the cache returns it to all later callers."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device="cpu").to(device)
