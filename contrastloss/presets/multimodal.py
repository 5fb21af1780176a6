"""Several modalities: images, text, audio, motion and graphs of text."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    BarlowTwinsLoss,
    CleanCLIPLoss,
    CLIPLoss,
    CosineLoss,
    DINOLoss,
    HardNegativeCLIPLoss,
    MarginRankingLoss,
    MILContrastiveLoss,
    MultiModalLoss,
    NTXentLoss,
    PooledSupConLoss,
    ProtoNCELoss,
    RegionAttributeLoss,
    SampledContrastiveLoss,
    SwAVLoss,
    TemporalCLIPLoss,
)
from .registry import seed

__all__ = [
    "astrom3",
    "audio_sheet",
    "calico",
    "cleanclip",
    "clip_rocket",
    "clippings",
    "har_hns",
    "hicmae",
    "instruct_clip",
    "macil_sd",
    "teminal",
    "tips",
    "video_qa",
    "villa",
]


@seed(7, "CleanCLIP", note="one scale for terms within and across modalities")
def cleanclip(**options: Any) -> CleanCLIPLoss:
    """CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive Learning."""
    return CleanCLIPLoss(**options)


@seed(10, "Audio-sheet retrieval", note="the code also uses the margin, 0.5 or 0.6, as tau")
def audio_sheet() -> nn.ModuleDict:
    """Self-Supervised Contrastive Learning for Robust Audio-Sheet Music Retrieval Systems."""
    return nn.ModuleDict({"pretraining": NTXentLoss(0.5), "tuning": MarginRankingLoss(margin=0.6)})


@seed(18, "TeminAL", note="time-reversed columns as additional negatives")
def teminal(**options: Any) -> TemporalCLIPLoss:
    """TeminAL: Enhancing Audio-Language Models through Self-Supervised Post-Training."""
    return TemporalCLIPLoss(**options)


@seed(
    20, "HiCMAE", note="one layer per leading dimension; weight 0.0025 in the script, otherwise 0.1"
)
def hicmae(**options: Any) -> MultiModalLoss:
    """HiCMAE: Hierarchical Contrastive Masked Autoencoder for Audio-Visual Emotion Recognition."""
    return MultiModalLoss(**{"temperature": 0.07, "loss_weight": 0.0025, **options})


@seed(31, "Instruct-CLIP", note="no gradient for the text side; the editor adds 1 - cos")
def instruct_clip() -> nn.ModuleDict:
    """Instruct-CLIP: Instruction-Guided Image Editing with Automated Data Refinement."""
    return nn.ModuleDict({"changes": CLIPLoss(), "editor": CosineLoss()})


@seed(35, "CLIPPINGS", "PairContrastiveLoss", note="0.3 image + 0.7 text, pooled")
def clippings(**options: Any) -> PooledSupConLoss:
    """CLIPPINGS: Linking Representations with Multimodal Contrastive Learning."""
    return PooledSupConLoss(**{"temperature": 0.1, "image_weight": 0.3, **options})


@seed(36, "AstroM3", note="sum of the six cross entropies of three pairs; one scale per pair")
def astrom3(**options: Any) -> MultiModalLoss:
    """AstroM3: A self-supervised multimodal model for astronomy."""
    return MultiModalLoss(**{"temperature": 0.01, "directions": "sum", **options})


@seed(37, "ViLLA", note="stage 1, and stage 2 with weight 1/2 for each direction")
def villa() -> nn.ModuleDict:
    """ViLLA: Fine-Grained Vision-Language Representation Learning from Real-World Data."""
    return nn.ModuleDict(
        {"regions": RegionAttributeLoss(temperature=0.07), "pairs": CLIPLoss(0.07)}
    )


@seed(
    44,
    "TIPS",
    note="captions, crops and masked patches; the weights of distillation are unverified",
)
def tips() -> nn.ModuleDict:
    """TIPS: Text-Image Pretraining with Spatial Awareness."""
    return nn.ModuleDict({
        "captions": CLIPLoss(loss_weight=0.5),
        "crops": DINOLoss(),
        "patches": DINOLoss(loss_weight=2.0),
    })  # fmt: skip


@seed(45, "CALICO", note="points are assigned to regions; detach the teacher")
def calico(**options: Any) -> ProtoNCELoss:
    """CALICO: Self-Supervised Camera-LiDAR Contrastive Pre-training for BEV Perception."""
    return ProtoNCELoss(**{"temperature": 0.07, **options})


@seed(
    46, "Multiple-choice video QA", "InfoNCELoss", note="the candidates of each row are `negatives`"
)
def video_qa() -> nn.ModuleDict:
    """Self-supervised pre-training and contrastive learning for multiple-choice video QA."""
    margin = MarginRankingLoss(in_batch_negatives=False)
    return nn.ModuleDict({"choice": SampledContrastiveLoss(), "margin": margin})


@seed(56, "HAR-HNS", note="hard negatives in both directions")
def har_hns(**options: Any) -> HardNegativeCLIPLoss:
    """HAR-HNS: Multimodal Contrastive Learning with Hard Negative Sampling for Activity
    Recognition.
    """
    return HardNegativeCLIPLoss(**options)


@seed(
    57, "MACIL-SD", note="weight 1.5, raised over epochs; in addition to the cross entropy of bags"
)
def macil_sd(**options: Any) -> MILContrastiveLoss:
    """MACIL-SD: Modality-Aware Contrastive Instance Learning with Self-Distillation."""
    return MILContrastiveLoss(**{"temperature": 0.1, "loss_weight": 1.5, **options})


@seed(61, "CLIP-Rocket", note="CLIP and one of the others; the prototypes of SwALIP are the texts")
def clip_rocket() -> nn.ModuleDict:
    """CLIP-Rocket: Improved baselines for vision-language pre-training."""
    return nn.ModuleDict({
        "clip": CLIPLoss(),
        "barlip": BarlowTwinsLoss(0.005, loss_weight=0.025),
        "siamlip": CosineLoss(loss_weight=2.0),
        "swalip": SwAVLoss(0.07, eps=0.05, iterations=3, loss_weight=0.2),
    })  # fmt: skip
