"""Images and point clouds: views of instances, classes, clusters and prototypes."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    AlignmentUniformityLoss,
    CACRLoss,
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
    MoCoLoss,
    MVDHELLoss,
    MVInfoNCELoss,
    NTXentLoss,
    SelfConLoss,
    SepCLRLoss,
    SimLAPLoss,
    SoftSupConLoss,
    SpectralLoss,
    SupConLoss,
    SupReMixLoss,
    SwAVLoss,
)
from .registry import seed

__all__ = [
    "alice",
    "beclr",
    "cacr",
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
    "image_volume",
    "imaginet",
    "less_is_more",
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
    "simlap",
    "softcon",
    "spark_vs_cl",
    "supremix",
    "swav",
]


@seed(
    2,
    "Core-tuning",
    "mixing.hard_mixtures",
    note="weight 10; the paper divides by |P|, the code by N",
)
def core_tuning(**options: Any) -> FocalContrastiveLoss:
    """Core-tuning: Unleashing the Power of Contrastive Self-Supervised Visual Models."""
    return FocalContrastiveLoss(**{"temperature": 0.07, "loss_weight": 10.0, **options})


@seed(9, "ScatSimCLR", note="in addition to a pretext task of weight 0.3")
def scatsimclr(**options: Any) -> NTXentLoss:
    """ScatSimCLR: Self-supervised contrastive learning with pretext task regularization."""
    return NTXentLoss(**{"temperature": 0.5, **options})


@seed(15, "MLVGM", note="InfoNCE of the navigator, and the losses of the encoders")
def mlvgm() -> nn.ModuleDict:
    """MLVGM: A Mutual Information Perspective on Multiple Latent Variable Generative Models."""
    return nn.ModuleDict({
        "navigator": InfoNCELoss(0.1),
        "simclr": SupConLoss(0.1),
        "byol": CosineLoss(loss_weight=2.0),
    })  # fmt: skip


@seed(16, "Benefits of projection heads", note="the loss of the theory; experiments use NT-Xent")
def projection_head(**options: Any) -> SpectralLoss:
    """Investigating the Benefits of Projection Head for Representation Learning."""
    return SpectralLoss(**{"normalize": False, **options})


@seed(17, "Less is More (CT)", note="on selected slices; the selection compares hashes")
def less_is_more(**options: Any) -> SwAVLoss:
    """Less is More (CT): Selective Reduction of CT Data for Self-Supervised Pre-Training."""
    return SwAVLoss(**{"temperature": 0.1, "eps": 0.05, **options})


@seed(19, "SparK versus contrastive learning (CT)", "SwAVLoss", note="its MoCo v2, and SwAV")
def spark_vs_cl(**options: Any) -> MoCoLoss:
    """Self-supervised Learning with Contrastive and Masked Autoencoder Methods (CT)."""
    return MoCoLoss(**{"temperature": 0.07, **options})


@seed(21, "Joint image-volume (CT)", note="clusters of slices only, not of volumes")
def image_volume(**options: Any) -> SwAVLoss:
    """Joint self-supervised image-volume representation learning by contrastive clustering."""
    return SwAVLoss(**{"temperature": 0.1, "eps": 0.05, **options})


@seed(22, "Point-CMAE", note='the paper pairs the same token; released code: `pairs="all"`')
def point_cmae(**options: Any) -> CosineLoss:
    """Point-CMAE: Bringing Masked Autoencoders Explicit Contrastive Properties for Point Clouds."""
    return CosineLoss(**{"stop_gradient": False, **options})


@seed(29, "SoftCon", note='the sources do not decide between `variant="ce"` and `"bce"`')
def softcon(**options: Any) -> SoftSupConLoss:
    """SoftCon: Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation
    Pretraining.
    """
    return SoftSupConLoss(**options)


@seed(33, "Hallucinator", "mixing.extrapolated_positives", note="a second positive for the query")
def hallucinator(**options: Any) -> LatentPositiveLoss:
    """Hallucinator: Hallucination Improves the Performance of Unsupervised Visual
    Representation Learning.
    """
    return LatentPositiveLoss(**{"form": "info_nce", **options})


@seed(
    38, "G-SimCLR", note="the mean over both views, as in the paper; `loss_weight=2` gives the sum"
)
def g_simclr(**options: Any) -> ClusterNTXentLoss:
    """G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
    Labelling.
    """
    return ClusterNTXentLoss(**{"temperature": 0.1, "against": "other", **options})


@seed(39, "CM-UNet", note="scaled by 2 tau as in MoCo v3; detach the key")
def cm_unet(temperature: float = 0.07, **options: Any) -> InfoNCELoss:
    """CM-UNet: A Self-Supervised Learning-Based Model for Coronary Artery Segmentation."""
    return InfoNCELoss(temperature, **{"loss_weight": 2 * temperature, **options})


@seed(41, "ImagiNet", note="two columns of labels; -1 means no label")
def imaginet(**options: Any) -> SelfConLoss:
    """ImagiNet: A Multi-Content Dataset for Generalizable Synthetic Image Detection."""
    return SelfConLoss(**{"temperature": 0.07, **options})


@seed(43, "FLoc-3D", note="between views, and between images and surfaces")
def floc_3d(**options: Any) -> InfoNCELoss:
    """FLoc-3D: Can 3D Geometric Priors Help Visual Floorplan Localization?"""
    return InfoNCELoss(**{"temperature": 0.07, **options})


@seed(47, "Alice", "memory.MomentumEncoder", note="the image across views, and patches of one view")
def alice(**options: Any) -> DINOLoss:
    """Alice: Anatomical Invariance Modeling and Semantic Alignment for Medical Image Analysis."""
    return DINOLoss(**{"temperature": 0.1, **options})


@seed(48, "GenView", note="`row_weight` is N times the softmax of the quality of views")
def genview(temperature: float = 0.2, **options: Any) -> InfoNCELoss:
    """GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised
    Learning.
    """
    return InfoNCELoss(temperature, **{"loss_weight": 2 * temperature, **options})


@seed(50, "RKHS approximation", "BarlowTwinsLoss", "VICRegLoss", note="its three losses")
def rkhs(**options: Any) -> SpectralLoss:
    """RKHS approximation: Understanding Augmentation-based Self-Supervised Representation
    Learning.
    """
    return SpectralLoss(**{"normalize": False, **options})


@seed(
    59,
    "SupReMix",
    "mixing.label_mixtures",
    note="mixtures are additional rows; `loss_weight` is tau / a base temperature",
)
def supremix(**options: Any) -> SupReMixLoss:
    """SupReMix: Mixup Your Own Pairs: supervised contrastive regression."""
    return SupReMixLoss(**{"temperature": 0.07, **options})


@seed(60, "CACR", note="weights are differentiated; `detach_weights=True` as for ImageNet")
def cacr(**options: Any) -> CACRLoss:
    """CACR: Contrastive Attraction and Contrastive Repulsion for Representation Learning."""
    return CACRLoss(**options)


@seed(62, "SepCLR", note="alignment, uniformity, and joint entropy from one LSE")
def sepclr(**options: Any) -> SepCLRLoss:
    """SepCLR: Separating common from salient patterns with Contrastive Representation Learning."""
    return SepCLRLoss(**options)


@seed(63, "GroCo", "sorting.rank_mass", note="ranks positives above the hardest negatives")
def groco(**options: Any) -> GroCoLoss:
    """GroCo: Learning by Sorting: Self-supervised Learning with Group Ordering Constraints."""
    return GroCoLoss(**options)


@seed(64, "cMIM", note="in addition to MIM's own terms; without augmentation")
def cmim(**options: Any) -> CMIMLoss:
    """cMIM: A Contrastive Mutual Information Framework for Unified Representation Learning."""
    return CMIMLoss(**options)


@seed(66, "MCL", note="negatives only from the same cluster of the previous stage")
def mcl(**options: Any) -> ClusterNTXentLoss:
    """MCL: Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning."""
    return ClusterNTXentLoss(**{"temperature": 0.1, "against": "own", **options})


@seed(
    67,
    "MV-InfoNCE, MV-DHEL",
    "presets.mv_dhel",
    note="`same_view=True` gives the pairs of the code",
)
def mv_info_nce(**options: Any) -> MVInfoNCELoss:
    """MV-InfoNCE: A Principled Framework for Multi-View Contrastive Learning."""
    return MVInfoNCELoss(**{"temperature": 0.1, **options})


def mv_dhel(**options: Any) -> MVDHELLoss:
    """MV-DHEL: A Principled Framework for Multi-View Contrastive Learning, alignment decoupled."""
    return MVDHELLoss(**{"temperature": 0.1, **options})


@seed(70, "DCL, DCLW", "presets.dclw", note="negatives of both views; weights detached or not")
def dcl(**options: Any) -> DCLLoss:
    """DCL: Decoupled Contrastive Learning."""
    return DCLLoss(**{"temperature": 0.1, **options})


def dclw(**options: Any) -> DCLLoss:
    """DCLW: Decoupled Contrastive Learning, weighted."""
    return DCLLoss(**{"temperature": 0.1, "weight": 0.5, **options})


@seed(71, "SimLAP (Hydra)", note="products of gated queries with keys, without the gate's norm")
def simlap(**options: Any) -> SimLAPLoss:
    """SimLAP (Hydra): Rethinking Positive Pairs in Contrastive Learning."""
    return SimLAPLoss(**{"mean_over": "pairs", **options})


@seed(74, "BECLR", note="up to a constant; detach the targets yourself; no transport")
def beclr(**options: Any) -> AlignmentUniformityLoss:
    """BECLR: Batch Enhanced Contrastive Few-Shot Learning: -mean cos + 0.1 log mean e^(cos / 2)."""
    theirs = {"t": 0.25, "weight": 0.2, "across": True, "loss_weight": 0.5}
    return AlignmentUniformityLoss(**{**theirs, **options})


@seed(75, "MoCHi", "memory.EmbeddingQueue", "memory.MomentumEncoder", note="queue and mixtures")
def mochi(**options: Any) -> MoCHiLoss:
    """MoCHi: Hard Negative Mixing for Contrastive Learning."""
    return MoCHiLoss(**{"temperature": 0.2, **options})


@seed(76, "SwAV", note="predicts the codes of one crop from another; sum over pairs of crops")
def swav(**options: Any) -> SwAVLoss:
    """SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments."""
    return SwAVLoss(**{"temperature": 0.1, "eps": 0.05, "iterations": 3, **options})
