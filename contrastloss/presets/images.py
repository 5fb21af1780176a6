"""Images and point clouds: views of instances, and labels."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    ClusterNTXentLoss,
    CMIMLoss,
    CosineLoss,
    DCLLoss,
    DINOLoss,
    FocalContrastiveLoss,
    GroCoLoss,
    InfoNCELoss,
    LatentPositiveLoss,
    MoCHiLoss,
    MVDHELLoss,
    MVInfoNCELoss,
    NTXentLoss,
    SelfConLoss,
    SepCLRLoss,
    SoftSupConLoss,
    SpectralLoss,
    SupConLoss,
)
from .registry import composed, row

__all__ = [
    "alice",
    "cm_unet",
    "cmim",
    "core_tuning",
    "dcl",
    "dclw",
    "floc_3d",
    "g_simclr",
    "genview",
    "groco",
    "hallucinator",
    "imaginet",
    "mcl",
    "mlvgm",
    "mochi",
    "mv_dhel",
    "mv_info_nce",
    "point_cmae",
    "projection_head",
    "rkhs",
    "scatsimclr",
    "sepclr",
    "softcon",
]

core_tuning = row(
    "core_tuning",
    2,
    "Core-tuning",
    "Core-tuning: Unleashing the Power of Contrastive Self-Supervised Visual Models.",
    FocalContrastiveLoss,
    {"temperature": 0.07, "loss_weight": 10.0},
    source="Vanint/Core-tuning",
    guess="not yet compared with the released code",
    note="weight 10; the paper divides by |P|, the code by N",
    uses=("mixing.hard_mixtures",),
)

scatsimclr = row(
    "scatsimclr",
    9,
    "ScatSimCLR",
    "ScatSimCLR: Self-supervised contrastive learning with pretext task regularization.",
    NTXentLoss,
    {"temperature": 0.5},
    source="vkinakh/scatsimclr",
    note="in addition to a pretext task of weight 0.3",
)


@composed(
    15,
    "MLVGM",
    source="SerezD/mi_ml_gen",
    guess="not yet compared with the released code",
    note="InfoNCE of the navigator, and the losses of the encoders",
)
def mlvgm() -> nn.ModuleDict:
    """MLVGM: A Mutual Information Perspective on Multiple Latent Variable Generative Models."""
    return nn.ModuleDict(
        {
            "navigator": InfoNCELoss(0.1),
            "simclr": SupConLoss(0.1),
            "byol": CosineLoss(loss_weight=2.0),
        }
    )


projection_head = row(
    "projection_head",
    16,
    "Benefits of projection heads",
    "Investigating the Benefits of Projection Head for Representation Learning.",
    SpectralLoss,
    {"normalize": False},
    guess="not yet compared with the released code",
    note="the loss of the theory; experiments use NT-Xent",
)

point_cmae = row(
    "point_cmae",
    22,
    "Point-CMAE",
    "Point-CMAE: Bringing Masked Autoencoders Explicit Contrastive Properties for Point Clouds.",
    CosineLoss,
    {"stop_gradient": False},
    source="Amazingren/Point-CMAE",
    guess="not yet compared with the released code",
    note='the paper pairs the same token; released code: `pairs="all"`',
)

softcon = row(
    "softcon",
    29,
    "SoftCon",
    "SoftCon: Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation "
    "Pretraining.",
    SoftSupConLoss,
    guess="options are from memory of the paper",
    note='the sources do not decide between `variant="ce"` and `"bce"`',
)

hallucinator = row(
    "hallucinator",
    33,
    "Hallucinator",
    "Hallucinator: Hallucination Improves the Performance of Unsupervised Visual "
    "Representation Learning.",
    LatentPositiveLoss,
    {"form": "info_nce"},
    guess="options are from memory of the paper",
    note="a second positive for the query",
    uses=("mixing.hallucinated_queries",),
)

g_simclr = row(
    "g_simclr",
    38,
    "G-SimCLR",
    "G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo Labelling.",
    ClusterNTXentLoss,
    {"temperature": 0.1, "against": "other"},
    source="ariG23498/G-SimCLR",
    guess="not yet compared with the released code",
    note="the mean over both views, as in the paper; `loss_weight=2` gives the sum",
)


@composed(
    39,
    "CM-UNet",
    source="CamilleChallier/Contrastive-Masked-UNet",
    guess="not yet compared with the released code",
    note="scaled by 2 tau as in MoCo v3; detach the key",
)
def cm_unet(temperature: float = 0.07, **options: Any) -> InfoNCELoss:
    """CM-UNet: A Self-Supervised Learning-Based Model for Coronary Artery Segmentation."""
    return InfoNCELoss(temperature, **{"loss_weight": 2 * temperature, **options})


imaginet = row(
    "imaginet",
    41,
    "ImagiNet",
    "ImagiNet: A Multi-Content Dataset for Generalizable Synthetic Image Detection.",
    SelfConLoss,
    {"temperature": 0.07},
    source="delyan-boychev/imaginet",
    note="two columns of labels; -1 means no label",
)

floc_3d = row(
    "floc_3d",
    43,
    "FLoc-3D",
    "FLoc-3D: Can 3D Geometric Priors Help Visual Floorplan Localization?",
    InfoNCELoss,
    {"temperature": 0.07},
    guess="options are from memory of the paper",
    note="between views, and between images and surfaces",
)

alice = row(
    "alice",
    47,
    "Alice",
    "Alice: Anatomical Invariance Modeling and Semantic Alignment for Medical Image Analysis.",
    DINOLoss,
    {"temperature": 0.1},
    source="alibaba-damo-academy/alice",
    guess="not yet compared with the released code",
    note="the image across views, and patches of one view",
    uses=("memory.MomentumEncoder",),
)


@composed(
    48,
    "GenView",
    source="xiaojieli0903/genview",
    guess="options are from memory of the paper",
    note="`row_weight` is N times the softmax of the quality of views",
)
def genview(temperature: float = 0.2, **options: Any) -> InfoNCELoss:
    """GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised
    Learning.
    """
    return InfoNCELoss(temperature, **{"loss_weight": 2 * temperature, **options})


rkhs = row(
    "rkhs",
    50,
    "RKHS approximation",
    "RKHS approximation: Understanding Augmentation-based Self-Supervised Representation Learning.",
    SpectralLoss,
    {"normalize": False},
    guess="options are from memory of the paper",
    note="its three losses",
    uses=("BarlowTwinsLoss", "VICRegLoss"),
)

sepclr = row(
    "sepclr",
    62,
    "SepCLR",
    "SepCLR: Separating common from salient patterns with Contrastive Representation Learning.",
    SepCLRLoss,
    source="neurospin-projects/2024_rlouiset_sep_clr",
    guess="not yet compared with the released code",
    note="alignment, uniformity, and joint entropy from one LSE",
)

groco = row(
    "groco",
    63,
    "GroCo",
    "GroCo: Learning by Sorting: Self-supervised Learning with Group Ordering Constraints.",
    GroCoLoss,
    source="ninatu/learning_by_sorting",
    note="ranks positives above the hardest negatives",
    uses=("sorting.rank_mass",),
)

cmim = row(
    "cmim",
    64,
    "cMIM",
    "cMIM: A Contrastive Mutual Information Framework for Unified Representation Learning.",
    CMIMLoss,
    guess="options are from memory of the paper",
    note="in addition to MIM's own terms; without augmentation",
)

mcl = row(
    "mcl",
    66,
    "MCL",
    "MCL: Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning.",
    ClusterNTXentLoss,
    {"temperature": 0.1, "against": "own"},
    source="MajorDavidZhang/MCL",
    guess="options are from memory of the paper",
    note="negatives only from the same cluster of the previous stage",
)

mv_info_nce = row(
    "mv_info_nce",
    67,
    "MV-InfoNCE, MV-DHEL",
    "MV-InfoNCE: A Principled Framework for Multi-View Contrastive Learning.",
    MVInfoNCELoss,
    {"temperature": 0.1},
    source="pakoromilas/Multi-View-CL",
    guess="not yet compared with the released code",
    note="`same_view=True` gives the pairs of the code",
)

mv_dhel = row(
    "mv_dhel",
    67,
    "MV-InfoNCE, MV-DHEL",
    "MV-DHEL: A Principled Framework for Multi-View Contrastive Learning, alignment decoupled.",
    MVDHELLoss,
    {"temperature": 0.1},
    source="pakoromilas/Multi-View-CL",
    guess="not yet compared with the released code",
)

dcl = row(
    "dcl",
    70,
    "DCL, DCLW",
    "DCL: Decoupled Contrastive Learning.",
    DCLLoss,
    {"temperature": 0.1},
    source="raminnakhli/Decoupled-Contrastive-Learning",
    guess="not yet compared with the released code",
    note="negatives of both views; weights detached or not",
)

dclw = row(
    "dclw",
    70,
    "DCL, DCLW",
    "DCLW: Decoupled Contrastive Learning, weighted.",
    DCLLoss,
    {"temperature": 0.1, "weight": 0.5},
    source="raminnakhli/Decoupled-Contrastive-Learning",
    guess="not yet compared with the released code",
)

mochi = row(
    "mochi",
    75,
    "MoCHi",
    "MoCHi: Hard Negative Mixing for Contrastive Learning.",
    MoCHiLoss,
    {"temperature": 0.2},
    guess="options are from memory of the paper",
    note="queue and mixtures",
    uses=("memory.EmbeddingQueue", "memory.MomentumEncoder"),
)
