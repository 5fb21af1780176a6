"""The learnable temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...options import Positive, checked

__all__ = ["LogitScale"]


class LogitScale(nn.Module):
    """Holds the logarithm of the inverse temperature, as CLIP does; calling it gives the scale.

    Keep it in the model, where DDP and FSDP see it, and pass ``logit_scale=temperature()``. The
    parameter is clipped in place to the logarithms of ``min_scale`` and ``max_scale`` when it is
    read, so it never runs away and its gradient is never cut off.

    Args:
        init: the initial temperature, 0.07.
        max_scale: the largest inverse temperature, 100.
        min_scale: the smallest one, 0.01.
    """

    def __init__(
        self, init: float = 0.07, max_scale: float = 100.0, min_scale: float = 0.01
    ) -> None:
        super().__init__()
        self.init = checked("init", init, Positive)
        self.max_scale = checked("max_scale", max_scale, Positive)
        self.min_scale = checked("min_scale", min_scale, Positive)
        if self.min_scale > self.max_scale:
            got = f"{min_scale} with max_scale={max_scale}"
            raise ValueError(f"min_scale: got {got}, expected at most that")
        # of one element, since FSDP shards no parameter without dimensions
        self.log_scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to ``init``."""
        nn.init.constant_(self.log_scale, -math.log(self.init))

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.log_scale.clamp_(math.log(self.min_scale), math.log(self.max_scale))
        return self.log_scale.exp().sum()

    def extra_repr(self) -> str:
        return f"max_scale={self.max_scale}, min_scale={self.min_scale}"
