"""The backends. :mod:`.choose` has their table, from which one is selected for a call."""

from .call import (
    NAMES,
    SCHEMA,
    Gradients,
    Operands,
    PairCall,
    autocast_dtype,
    mask,
    named_in,
    run,
    stat_dtype,
    widest,
    without_autocast,
)
from .choose import available, choose
from .network import DISTRIBUTIONS, NETWORKS, SortCall
from .norms import inverse_norm, rounding, unit
from .reference.noise import gumbel
from .topk import Selection, position_keys

__all__ = [
    "DISTRIBUTIONS",
    "NAMES",
    "NETWORKS",
    "SCHEMA",
    "Gradients",
    "Operands",
    "PairCall",
    "Selection",
    "SortCall",
    "autocast_dtype",
    "available",
    "choose",
    "gumbel",
    "inverse_norm",
    "mask",
    "named_in",
    "position_keys",
    "rounding",
    "run",
    "stat_dtype",
    "unit",
    "widest",
    "without_autocast",
]
