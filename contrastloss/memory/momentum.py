"""Momentum encoder: a copy of a module that follows it by an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..ops.copies import check_forward, settled
from ..options import Fraction, validated

__all__ = ["MomentumEncoder"]


class MomentumEncoder(nn.Module):
    r"""A copy of a module whose parameters follow it as an exponential moving average.

    :math:`\theta \leftarrow m\,\theta + (1 - m)\,\theta_{\text{module}}`

    at every :meth:`update`; buffers are copied. The copy runs without gradients, and its parameters
    require none. They have the dtype of the module's parameters. In bf16 or fp16, most steps of
    size 1 - m round to zero: keep the parameters in fp32 and use autocast. In a backward pass it
    raises, since ``torch.utils.checkpoint`` would recompute outputs after an update has changed the
    parameters: call it outside checkpointed regions.

    Args:
        module: the module to copy and follow. No reference to it is kept. Make the copy before DDP
            or FSDP wraps the module; :meth:`update` also takes the wrapper.
        momentum: m, in [0, 1], 0.999. An attribute that a schedule may set.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.
    """

    @validated
    def __init__(self, module: nn.Module, momentum: Fraction = 0.999) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            check_forward("momentum encoder: got a call")
        with torch.no_grad():
            found = self.module(*args, **kwargs)
        if torch.compiler.is_compiling() and torch.is_grad_enabled():
            # an update in the same graph must not change what the backward pass needs
            found = tree_map_only(Tensor, settled, found)
        return found

    @torch.no_grad()
    @validated
    def update(self, module: nn.Module) -> None:
        """One step towards ``module``; call it after the optimizer step.

        Raises:
            ValueError: its parameters or buffers do not have the shapes of the copied module's.
            RuntimeError: in a backward pass.
        """
        check_forward("momentum encoder: got an update")
        parameters, buffers = self._beside(module)
        moving = [(p, v) for p, v in parameters if p.is_floating_point() or p.is_complex()]
        if moving:
            own, ends = zip(*((p, v.to(p.dtype)) for p, v in moving), strict=True)
            torch._foreach_lerp_(own, ends, 1 - self.momentum)
        _copy([(p, v) for p, v in parameters if not (p.is_floating_point() or p.is_complex())])
        _copy(buffers)

    @torch.no_grad()
    def reset(self, module: nn.Module) -> None:
        """Copy ``module`` again, for example after ``to_empty()``. Raises as :meth:`update`."""
        for pairs in self._beside(module):
            _copy(pairs)

    def _beside(self, module: nn.Module) -> list[list[tuple[Tensor, Tensor]]]:
        """For parameters and for buffers: own tensors, each paired with that of ``module``."""
        found = []
        for kind in ("parameters", "buffers"):
            own, given = (list(getattr(m, kind)()) for m in (self.module, module))
            shapes, expected = ([tuple(v.shape) for v in values] for values in (given, own))
            if shapes != expected:
                raise ValueError(f"module: got {kind} of shapes {shapes}, expected {expected}")
            found.append([*zip(own, given, strict=True)])
        return found

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}"


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    for own, value in pairs:
        own.copy_(value)
