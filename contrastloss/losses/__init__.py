"""The losses, one file each."""

from .base import LOSSES, CrossLoss, PairLoss, PositiveLoss, TwoViewLoss
from .circle import CircleLoss
from .clip import CLIPLoss
from .dcl import DCLLoss
from .diff_sort import DiffSortLoss
from .gist import GISTLoss
from .groco import GroCoLoss
from .hard_negative import HardNegativeLoss
from .info_nce import InfoNCELoss
from .mochi import MoCHiLoss
from .moco import MoCoLoss
from .multi_similarity import MultiSimilarityLoss
from .nt_xent import NTXentLoss
from .ordering import ORDERING, OrderingLoss
from .recall_at_k import RecallAtKLoss
from .sampled import SampledContrastiveLoss
from .siglip import SigLIPLoss
from .smooth_ap import SmoothAPLoss
from .spearman import SpearmanLoss
from .supcon import SupConLoss
from .temperature import LearnableTemperature
from .topk_cross_entropy import TopKCrossEntropyLoss
from .triplet import TripletLoss

#: every public loss by the name of its function in :mod:`contrastloss.functional`
BY_NAME: dict[str, type[PairLoss] | type[OrderingLoss]] = {**LOSSES, **ORDERING}

__all__ = [
    "BY_NAME",
    "LOSSES",
    "ORDERING",
    "CLIPLoss",
    "CircleLoss",
    "CrossLoss",
    "DCLLoss",
    "DiffSortLoss",
    "GISTLoss",
    "GroCoLoss",
    "HardNegativeLoss",
    "InfoNCELoss",
    "LearnableTemperature",
    "MoCHiLoss",
    "MoCoLoss",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "OrderingLoss",
    "PairLoss",
    "PositiveLoss",
    "RecallAtKLoss",
    "SampledContrastiveLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpearmanLoss",
    "SupConLoss",
    "TopKCrossEntropyLoss",
    "TripletLoss",
    "TwoViewLoss",
]
