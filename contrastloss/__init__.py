"""Contrastive losses for PyTorch, exact, in O(N) memory.

Every loss is a module (:class:`CLIPLoss`) and a function (:func:`contrastloss.functional.clip`);
:mod:`contrastloss.ops` holds the operators they are made of.
"""

from importlib.metadata import PackageNotFoundError, version

from . import distributed, functional, losses, ops
from .losses import (
    CLIPLoss,
    DCLLoss,
    HardNegativeLoss,
    InfoNCELoss,
    LearnableTemperature,
    NTXentLoss,
    SigLIPLoss,
    SupConLoss,
)

try:
    __version__ = version("contrastloss")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "CLIPLoss",
    "DCLLoss",
    "HardNegativeLoss",
    "InfoNCELoss",
    "LearnableTemperature",
    "NTXentLoss",
    "SigLIPLoss",
    "SupConLoss",
    "distributed",
    "functional",
    "losses",
    "ops",
]
