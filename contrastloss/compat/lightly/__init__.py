"""The losses of lightly (``lightly.loss``). They need only torch.

As there, a loss that gathers over ranks returns the mean of this rank's rows, and gradients that
DDP averages are those of the whole batch.
"""

from .contrastive import DCLLoss, DCLWLoss, DirectCLRLoss, MemoryBankModule, NTXentLoss
from .features import (
    BarlowTwinsLoss,
    HypersphereLoss,
    KoLeoLoss,
    NegativeCosineSimilarity,
    SymNegCosineSimilarityLoss,
    VICRegLoss,
)
from .prototypes import DINOLoss, SwaVLoss

__all__ = [
    "BarlowTwinsLoss",
    "DCLLoss",
    "DCLWLoss",
    "DINOLoss",
    "DirectCLRLoss",
    "HypersphereLoss",
    "KoLeoLoss",
    "MemoryBankModule",
    "NTXentLoss",
    "NegativeCosineSimilarity",
    "SwaVLoss",
    "SymNegCosineSimilarityLoss",
    "VICRegLoss",
]
