"""The backends, side by side. :mod:`.choose` picks one for a call."""

from .call import Gradients, PairCall, mask, stat_dtype
from .choose import available, choose

__all__ = ["Gradients", "PairCall", "available", "choose", "mask", "stat_dtype"]
