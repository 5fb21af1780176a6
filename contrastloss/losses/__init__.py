"""The losses, one file each."""

from .base import LOSSES, CrossLoss, PairLoss, PositiveLoss, TwoViewLoss
from .clip import CLIPLoss
from .dcl import DCLLoss
from .hard_negative import HardNegativeLoss
from .info_nce import InfoNCELoss
from .mochi import MoCHiLoss
from .moco import MoCoLoss
from .nt_xent import NTXentLoss
from .siglip import SigLIPLoss
from .supcon import SupConLoss
from .temperature import LearnableTemperature

__all__ = [
    "LOSSES",
    "CLIPLoss",
    "CrossLoss",
    "DCLLoss",
    "HardNegativeLoss",
    "InfoNCELoss",
    "LearnableTemperature",
    "MoCHiLoss",
    "MoCoLoss",
    "NTXentLoss",
    "PairLoss",
    "PositiveLoss",
    "SigLIPLoss",
    "SupConLoss",
    "TwoViewLoss",
]
