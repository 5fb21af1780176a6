"""The properties of a loss, one function each."""

from __future__ import annotations

from collections.abc import Callable

from .data import check_degenerate, check_layouts, check_permutation, check_shapes
from .results import check_reductions, check_sharded, check_statistics
from .running import check_autocast, check_compile, check_copies, check_export, check_scaling
from .subject import Subject
from .values import (
    check_accuracy,
    check_frozen,
    check_gradients,
    check_low_precision,
    check_reference,
)

__all__ = ["CHECKS"]

#: all properties; the first failure in this order explains most
CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_reference, check_gradients, check_reductions, check_shapes, check_layouts, check_frozen,
    check_permutation, check_degenerate, check_accuracy, check_low_precision, check_statistics,
    check_sharded, check_copies, check_autocast, check_scaling, check_compile, check_export,
)  # fmt: skip
