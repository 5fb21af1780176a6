"""The backends. :mod:`.choose` selects one for a call."""

from .call import (
    Gradients,
    PairCall,
    mask,
    stat_dtype,
    widest,
)
from .choose import available, choose
from .network import DISTRIBUTIONS, NETWORKS, SortCall
from .norms import inverse_norm, rounding, unit
from .reference.noise import gumbel
from .topk import Selection, position_keys

__all__ = [
    "DISTRIBUTIONS",
    "NETWORKS",
    "Gradients",
    "PairCall",
    "Selection",
    "SortCall",
    "available",
    "choose",
    "gumbel",
    "inverse_norm",
    "mask",
    "position_keys",
    "rounding",
    "stat_dtype",
    "unit",
    "widest",
]
