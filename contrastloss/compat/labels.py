"""Labels of other libraries, which may be of any dtype, as the integers that tests compare."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["numbered"]


def numbered(labels: Tensor, *others: Tensor) -> list[Tensor]:
    """Vectors of labels as integers with the same equalities, also across vectors. The same vector
    stays the same one."""
    every = labels, *others
    if any(values.is_floating_point() for values in every):
        found = torch.unique(torch.cat(every), return_inverse=True)[1]
        return list(found.split([len(values) for values in every]))
    first = labels.long()
    return [first, *[first if values is labels else values.long() for values in others]]
