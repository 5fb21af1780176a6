"""The backends. :mod:`.choose` has their table, from which one is selected for a call."""

from .call import (
    NAMES as NAMES,
    SCHEMA as SCHEMA,
    Gradients as Gradients,
    Operands as Operands,
    PairCall as PairCall,
    autocast_dtype as autocast_dtype,
    mask as mask,
    named_in as named_in,
    stat_dtype as stat_dtype,
    widest as widest,
    without_autocast as without_autocast,
)
from .choose import (
    available,
    choose as choose,
    preference as preference,
    run as run,
    serving as serving,
)
from .network import DISTRIBUTIONS as DISTRIBUTIONS, NETWORKS as NETWORKS, SortCall as SortCall
from .norms import inverse_norm as inverse_norm, rounding as rounding, unit as unit
from .reference.noise import gumbel as gumbel
from .topk import Selection as Selection, position_keys as position_keys

# "name as name": what other layers use, but users should not
__all__ = ["available"]
