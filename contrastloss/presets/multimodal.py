"""Several modalities: images, text, audio, motion and graphs of text."""

from __future__ import annotations

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
from .registry import composed, row

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

cleanclip = row(
    "cleanclip",
    7,
    "CleanCLIP",
    "CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive Learning.",
    CleanCLIPLoss,
    source="nishadsinghi/CleanCLIP",
    note="one scale for terms within and across modalities",
)


@composed(
    10,
    "Audio-sheet retrieval",
    source="luisfvc/ucasr",
    note="the code also uses the margin, 0.5 or 0.6, as tau",
)
def audio_sheet() -> nn.ModuleDict:
    """Self-Supervised Contrastive Learning for Robust Audio-Sheet Music Retrieval Systems."""
    return nn.ModuleDict({"pretraining": NTXentLoss(0.5), "tuning": MarginRankingLoss(margin=0.6)})


teminal = row(
    "teminal",
    18,
    "TeminAL",
    "TeminAL: Enhancing Audio-Language Models through Self-Supervised Post-Training.",
    TemporalCLIPLoss,
    guess="options are from memory of the paper",
    note="time-reversed columns as additional negatives",
)

hicmae = row(
    "hicmae",
    20,
    "HiCMAE",
    "HiCMAE: Hierarchical Contrastive Masked Autoencoder for Audio-Visual Emotion Recognition.",
    MultiModalLoss,
    {"temperature": 0.07, "loss_weight": 0.0025},
    source="sunlicai/HiCMAE",
    note="one layer per leading dimension; weight 0.0025 in the script, otherwise 0.1",
)


@composed(
    31,
    "Instruct-CLIP",
    source="SherryXTChen/Instruct-CLIP",
    guess="not yet compared with the released code",
    note="no gradient for the text side; the editor adds 1 - cos",
)
def instruct_clip() -> nn.ModuleDict:
    """Instruct-CLIP: Instruction-Guided Image Editing with Automated Data Refinement."""
    return nn.ModuleDict({"changes": CLIPLoss(), "editor": CosineLoss()})


clippings = row(
    "clippings",
    35,
    "CLIPPINGS",
    "CLIPPINGS: Linking Representations with Multimodal Contrastive Learning.",
    PooledSupConLoss,
    {"temperature": 0.1, "image_weight": 0.3},
    source="dell-research-harvard/clippings",
    guess="not yet compared with the released code",
    note="0.3 image + 0.7 text, pooled",
    uses=("PairContrastiveLoss",),
)

astrom3 = row(
    "astrom3",
    36,
    "AstroM3",
    "AstroM3: A self-supervised multimodal model for astronomy.",
    MultiModalLoss,
    {"temperature": 0.01, "directions": "sum"},
    source="MeriDK/AstroM3",
    note="sum of the six cross entropies of three pairs; one scale per pair",
)


@composed(
    37,
    "ViLLA",
    source="StanfordMIMI/villa",
    guess="not yet compared with the released code",
    note="stage 1, and stage 2 with weight 1/2 for each direction",
)
def villa() -> nn.ModuleDict:
    """ViLLA: Fine-Grained Vision-Language Representation Learning from Real-World Data."""
    return nn.ModuleDict(
        {"regions": RegionAttributeLoss(temperature=0.07), "pairs": CLIPLoss(0.07)}
    )


@composed(
    44,
    "TIPS",
    guess="options are from memory of the paper",
    note="captions, crops and masked patches; the weights of distillation are unverified",
)
def tips() -> nn.ModuleDict:
    """TIPS: Text-Image Pretraining with Spatial Awareness."""
    return nn.ModuleDict(
        {
            "captions": CLIPLoss(loss_weight=0.5),
            "crops": DINOLoss(),
            "patches": DINOLoss(loss_weight=2.0),
        }
    )


calico = row(
    "calico",
    45,
    "CALICO",
    "CALICO: Self-Supervised Camera-LiDAR Contrastive Pre-training for BEV Perception.",
    ProtoNCELoss,
    {"temperature": 0.07},
    guess="options are from memory of the paper",
    note="points are assigned to regions; detach the teacher",
)


@composed(
    46,
    "Multiple-choice video QA",
    guess="options are from memory of the paper",
    note="the candidates of each row are `negatives`",
    uses=("InfoNCELoss",),
)
def video_qa() -> nn.ModuleDict:
    """Self-supervised pre-training and contrastive learning for multiple-choice video QA."""
    margin = MarginRankingLoss(in_batch_negatives=False)
    return nn.ModuleDict({"choice": SampledContrastiveLoss(), "margin": margin})


har_hns = row(
    "har_hns",
    56,
    "HAR-HNS",
    "HAR-HNS: Multimodal Contrastive Learning with Hard Negative Sampling for Activity "
    "Recognition.",
    HardNegativeCLIPLoss,
    guess="options are from memory of the paper",
    note="hard negatives in both directions",
)

macil_sd = row(
    "macil_sd",
    57,
    "MACIL-SD",
    "MACIL-SD: Modality-Aware Contrastive Instance Learning with Self-Distillation.",
    MILContrastiveLoss,
    {"temperature": 0.1, "loss_weight": 1.5},
    source="JustinYuu/MACIL_SD",
    guess="not yet compared with the released code",
    note="weight 1.5, raised over epochs; in addition to the cross entropy of bags",
)


@composed(
    61,
    "CLIP-Rocket",
    source="facebookresearch/clip-rocket",
    guess="not yet compared with the released code",
    note="CLIP and one of the others; the prototypes of SwALIP are the texts",
)
def clip_rocket() -> nn.ModuleDict:
    """CLIP-Rocket: Improved baselines for vision-language pre-training."""
    return nn.ModuleDict(
        {
            "clip": CLIPLoss(),
            "barlip": BarlowTwinsLoss(0.005, loss_weight=0.025),
            "siamlip": CosineLoss(loss_weight=2.0),
            "swalip": SwAVLoss(0.07, eps=0.05, iterations=3, loss_weight=0.2),
        }
    )
