"""The learnable temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LogitScale"]


class LogitScale(nn.Module):
    """Holds the logarithm of the inverse temperature, as CLIP does; calling it gives the scale.

    Keep it in the model, where DDP and FSDP see it, and pass ``logit_scale=temperature()``. The
    parameter is clipped in place to ``log(max_scale)`` when it is read, so it never runs away and
    its gradient is never cut off.

    Args:
        init: the initial temperature, 0.07.
        max_scale: the largest inverse temperature, 100.
    """

    def __init__(self, init: float = 0.07, max_scale: float = 100.0) -> None:
        super().__init__()
        for name, value in (("init", init), ("max_scale", max_scale)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: got {value}, expected a positive finite number")
        self.init, self.max_scale = init, max_scale
        # of one element, since FSDP shards no parameter without dimensions
        self.log_scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to ``init``."""
        nn.init.constant_(self.log_scale, -math.log(self.init))

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(self.max_scale))
        return self.log_scale.exp().sum()

    def extra_repr(self) -> str:
        return f"max_scale={self.max_scale}"
