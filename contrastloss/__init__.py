"""Contrastive losses for PyTorch, exact, in O(N) memory.

Every loss is a module (:class:`CLIPLoss`) and a function (:func:`contrastloss.functional.clip`);
:mod:`contrastloss.ops` holds the operators they are made of.
"""

from importlib.metadata import PackageNotFoundError, version

from . import distributed, functional, losses, memory, mining, ops, sorting
from .losses import (
    CircleLoss,
    CLIPLoss,
    DCLLoss,
    DiffSortLoss,
    GISTLoss,
    GroCoLoss,
    HardNegativeLoss,
    InfoNCELoss,
    LearnableTemperature,
    MoCHiLoss,
    MoCoLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    RecallAtKLoss,
    SampledContrastiveLoss,
    SigLIPLoss,
    SmoothAPLoss,
    SpearmanLoss,
    SupConLoss,
    TopKCrossEntropyLoss,
    TripletLoss,
)
from .memory import CrossBatchMemory, EmbeddingQueue, MomentumEncoder

try:
    __version__ = version("contrastloss")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "CLIPLoss",
    "CircleLoss",
    "CrossBatchMemory",
    "DCLLoss",
    "DiffSortLoss",
    "EmbeddingQueue",
    "GISTLoss",
    "GroCoLoss",
    "HardNegativeLoss",
    "InfoNCELoss",
    "LearnableTemperature",
    "MoCHiLoss",
    "MoCoLoss",
    "MomentumEncoder",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "RecallAtKLoss",
    "SampledContrastiveLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpearmanLoss",
    "SupConLoss",
    "TopKCrossEntropyLoss",
    "TripletLoss",
    "distributed",
    "functional",
    "losses",
    "memory",
    "mining",
    "ops",
    "sorting",
]
