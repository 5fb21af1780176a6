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
from .loss import BY_NAME, Loss, RowLoss, ScoreLoss
from .mochi import MoCHiLoss
from .moco import MoCoLoss
from .multi_similarity import MultiSimilarityLoss
from .nt_xent import NTXentLoss
from .recall_at_k import RecallAtKLoss
from .sampled import SampledContrastiveLoss
from .siglip import SigLIPLoss
from .smooth_ap import SmoothAPLoss
from .spearman import SpearmanLoss
from .supcon import SupConLoss
from .temperature import LearnableTemperature
from .topk_cross_entropy import TopKCrossEntropyLoss
from .triplet import TripletLoss

__all__ = [
    "BY_NAME",
    "LOSSES",
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
    "Loss",
    "MoCHiLoss",
    "MoCoLoss",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "PairLoss",
    "PositiveLoss",
    "RecallAtKLoss",
    "RowLoss",
    "SampledContrastiveLoss",
    "ScoreLoss",
    "SigLIPLoss",
    "SmoothAPLoss",
    "SpearmanLoss",
    "SupConLoss",
    "TopKCrossEntropyLoss",
    "TripletLoss",
    "TwoViewLoss",
]
