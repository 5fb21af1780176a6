"""The losses, one file each."""

from .ada_meow import AdaMEOWLoss
from .adjacency import AdjacencyContrastiveLoss
from .alignment_uniformity import AlignmentUniformityLoss
from .bank import BankContrastiveLoss
from .barlow_twins import BarlowTwinsLoss
from .base.loss import LOSSES, Loss, RowLoss, ScoreLoss
from .base.pair_loss import PairLoss
from .base.positive_loss import CrossLoss, PositiveLoss, TwoViewLoss
from .base.temperature import LogitScale
from .beclr import BECLRLoss
from .binary_nce import BinaryNCELoss
from .cacr import CACRLoss
from .circle import CircleLoss
from .clan import CLANLoss
from .clean_clip import CleanCLIPLoss
from .clip import CLIPLoss
from .cluster_nt_xent import ClusterNTXentLoss
from .cmim import CMIMLoss
from .codebook_diversity import CodebookDiversityLoss
from .cosine import CosineLoss
from .cost import CoSTLoss
from .cross_supcon import CrossSupConLoss
from .dcl import DCLLoss
from .diff_sort import DiffSortLoss
from .dino import DINOLoss
from .focal_contrastive import FocalContrastiveLoss
from .gist import GISTLoss
from .groco import GroCoLoss
from .hard_negative import HardNegativeLoss
from .hard_negative_clip import HardNegativeCLIPLoss
from .hierarchical import HierarchicalContrastiveLoss
from .info_nce import InfoNCELoss
from .jepa import JEPALoss
from .koleo import KoLeoLoss
from .latent_positive import LatentPositiveLoss
from .margin_ranking import MarginRankingLoss
from .matryoshka import MatryoshkaLoss
from .meow import MEOWLoss
from .mil_contrastive import MILContrastiveLoss
from .mochi import MoCHiLoss
from .moco import MoCoLoss
from .momentum_cacr import MomentumCACRLoss
from .multi_modal import MultiModalLoss
from .multi_similarity import MultiSimilarityLoss
from .mv_dhel import MVDHELLoss
from .mv_info_nce import MVInfoNCELoss
from .nspt import NSPTLoss
from .nt_xent import NTXentLoss
from .pair_contrastive import PairContrastiveLoss
from .pooled_supcon import PooledSupConLoss
from .proto_nce import ProtoNCELoss
from .recall_at_k import RecallAtKLoss
from .region_attribute import RegionAttributeLoss
from .sampled import SampledContrastiveLoss
from .selfcon import SelfConLoss
from .sepclr import SepCLRLoss
from .siglip import SigLIPLoss
from .simctg import SimCTGLoss
from .simlap import SimLAPLoss
from .smooth_ap import SmoothAPLoss
from .soft_supcon import SoftSupConLoss
from .soft_target import SoftTargetLoss
from .spearman import SpearmanLoss
from .spectral import SpectralLoss
from .supcon import SupConLoss
from .supremix import SupReMixLoss
from .swav import SwAVLoss
from .temporal_clip import TemporalCLIPLoss
from .topk_cross_entropy import TopKCrossEntropyLoss
from .triplet import TripletLoss
from .vicreg import VICRegLoss

__all__ = [
    "LOSSES",
    "AdaMEOWLoss",
    "AdjacencyContrastiveLoss",
    "AlignmentUniformityLoss",
    "BECLRLoss",
    "BankContrastiveLoss",
    "BarlowTwinsLoss",
    "BinaryNCELoss",
    "CACRLoss",
    "CLANLoss",
    "CLIPLoss",
    "CMIMLoss",
    "CircleLoss",
    "CleanCLIPLoss",
    "ClusterNTXentLoss",
    "CoSTLoss",
    "CodebookDiversityLoss",
    "CosineLoss",
    "CrossLoss",
    "CrossSupConLoss",
    "DCLLoss",
    "DINOLoss",
    "DiffSortLoss",
    "FocalContrastiveLoss",
    "GISTLoss",
    "GroCoLoss",
    "HardNegativeCLIPLoss",
    "HardNegativeLoss",
    "HierarchicalContrastiveLoss",
    "InfoNCELoss",
    "JEPALoss",
    "KoLeoLoss",
    "LatentPositiveLoss",
    "LogitScale",
    "Loss",
    "MEOWLoss",
    "MILContrastiveLoss",
    "MVDHELLoss",
    "MVInfoNCELoss",
    "MarginRankingLoss",
    "MatryoshkaLoss",
    "MoCHiLoss",
    "MoCoLoss",
    "MomentumCACRLoss",
    "MultiModalLoss",
    "MultiSimilarityLoss",
    "NSPTLoss",
    "NTXentLoss",
    "PairContrastiveLoss",
    "PairLoss",
    "PooledSupConLoss",
    "PositiveLoss",
    "ProtoNCELoss",
    "RecallAtKLoss",
    "RegionAttributeLoss",
    "RowLoss",
    "SampledContrastiveLoss",
    "ScoreLoss",
    "SelfConLoss",
    "SepCLRLoss",
    "SigLIPLoss",
    "SimCTGLoss",
    "SimLAPLoss",
    "SmoothAPLoss",
    "SoftSupConLoss",
    "SoftTargetLoss",
    "SpearmanLoss",
    "SpectralLoss",
    "SupConLoss",
    "SupReMixLoss",
    "SwAVLoss",
    "TemporalCLIPLoss",
    "TopKCrossEntropyLoss",
    "TripletLoss",
    "TwoViewLoss",
    "VICRegLoss",
]
