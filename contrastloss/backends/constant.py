"""Tensors that a cache may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["constant"]


def constant(
    values: Sequence[Any], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """The same whoever asks first: default device, default dtype and inference mode are those of
    one caller, and what is kept goes to all others."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device="cpu").to(device)
