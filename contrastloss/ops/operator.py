"""Operators of torch.library: what compilers and exporters see of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["define"]


def define(
    name: str,
    schema: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    gradients: Callable[..., Any] | None = None,
    setup: Callable[..., Any] | None = None,
) -> None:
    """Make the operator ``contrastloss::name``.

    Args:
        schema: its arguments and results, in the notation of torch.library.
        function: what computes it, on every device.
        fake: the same arguments to empty results of the right shapes and dtypes.
        gradients: a context and the results' gradients to those of the arguments; None for an
            operator without gradients.
        setup: what saves, in the context, the arguments and results that ``gradients`` takes.
    """
    name = f"contrastloss::{name}"
    torch.library.define(name, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(name, "CompositeExplicitAutograd", function)
    torch.library.register_fake(name, fake)
    if gradients is not None:
        torch.library.register_autograd(name, gradients, setup_context=setup)
