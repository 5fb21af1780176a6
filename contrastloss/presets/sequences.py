"""Speech, music, motion, biosignals and other series; patches of an image in order."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    CLIPLoss,
    CodebookDiversityLoss,
    CoSTLoss,
    CrossSupConLoss,
    DINOLoss,
    HierarchicalContrastiveLoss,
    InfoNCELoss,
    JEPALoss,
    KoLeoLoss,
    LatentPositiveLoss,
    MoCoLoss,
    NSPTLoss,
    NTXentLoss,
    SampledContrastiveLoss,
)
from .registry import seed

__all__ = [
    "ad_l_jepa",
    "clmr",
    "coconut",
    "halp",
    "mmc",
    "selfie",
    "sscl_tsf",
    "w2v_bert",
    "wearable",
]


@seed(11, "AD-L-JEPA", note="beta 1 on KITTI, 10 on Waymo")
def ad_l_jepa(**options: Any) -> JEPALoss:
    """AD-L-JEPA: Self-Supervised Spatial World Models with Joint Embedding Predictive
    Architecture.
    """
    return JEPALoss(**options)


@seed(13, "SSCL-TSF", note="one of the three, with weight 0.5")
def sscl_tsf() -> nn.ModuleDict:
    """SSCL-TSF: What Constitutes Good Contrastive Learning in Time-Series Forecasting?"""
    return nn.ModuleDict({
        "moco": MoCoLoss(loss_weight=0.5),
        "ts2vec": HierarchicalContrastiveLoss(loss_weight=0.5),
        "cost": CoSTLoss(loss_weight=0.5),
    })  # fmt: skip


@seed(
    24, "w2v-BERT", note="100 distractors from the same utterance; in addition to masked modelling"
)
def w2v_bert() -> nn.ModuleDict:
    """w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Speech
    Pre-Training.
    """
    return nn.ModuleDict({
        "contrast": SampledContrastiveLoss(0.1),
        "diversity": CodebookDiversityLoss(loss_weight=0.1),
    })  # fmt: skip


@seed(27, "HaLP", "mixing.latent_positives", note="the weight is from the script")
def halp(**options: Any) -> LatentPositiveLoss:
    """HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised Learning."""
    return LatentPositiveLoss(**{"temperature": 0.07, "weight": 2.0, **options})


@seed(
    28, "Wearable biosignals", "memory.MomentumEncoder", note="compared with an EMA of the encoder"
)
def wearable() -> nn.ModuleDict:
    """Large-scale Training of Foundation Models for Wearable Biosignals."""
    return nn.ModuleDict({"contrast": CLIPLoss(0.04), "spread": KoLeoLoss(loss_weight=0.1)})


@seed(30, "CLMR")
def clmr(**options: Any) -> NTXentLoss:
    """CLMR: Contrastive Learning of Musical Representations."""
    return NTXentLoss(**{"temperature": 0.5, **options})


@seed(49, "Selfie", note="other masked patches of the image are the distractors")
def selfie(**options: Any) -> SampledContrastiveLoss:
    """Selfie: Self-supervised Pretraining for Image Embedding."""
    return SampledContrastiveLoss(**{"temperature": 1.0, "normalize": False, **options})


@seed(53, "MMC", "memory.MomentumEncoder", note="details unverified; distillation is on patches")
def mmc() -> nn.ModuleDict:
    """MMC: Masked Momentum Contrastive Learning for Zero-shot Semantic Understanding."""
    return nn.ModuleDict({"contrast": InfoNCELoss(), "distillation": DINOLoss()})


@seed(72, "COCONUT", note="positives from the teacher, denominators from the student")
def coconut() -> nn.ModuleDict:
    """COCONUT: Continual Contrastive Spoken Language Understanding."""
    return nn.ModuleDict({"rehearsal": NSPTLoss(), "audio_text": CrossSupConLoss()})
