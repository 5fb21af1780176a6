"""Speech, music, motion, biosignals and other series; patches of an image in order."""

from __future__ import annotations

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
from .registry import composed, row

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

ad_l_jepa = row(
    "ad_l_jepa",
    11,
    "AD-L-JEPA",
    "AD-L-JEPA: Self-Supervised Spatial World Models with Joint Embedding Predictive Architecture.",
    JEPALoss,
    source="HaoranZhuExplorer/AD-L-JEPA-Release",
    guess="not yet compared with the released code",
    note="beta 1 on KITTI, 10 on Waymo",
)


@composed(
    13,
    "SSCL-TSF",
    source="chiyuzhang94/contrastive_learning_time-series_e2e",
    guess="not yet compared with the released code",
    note="one of the three, with weight 0.5",
)
def sscl_tsf() -> nn.ModuleDict:
    """SSCL-TSF: What Constitutes Good Contrastive Learning in Time-Series Forecasting?"""
    return nn.ModuleDict(
        {
            "moco": MoCoLoss(loss_weight=0.5),
            "ts2vec": HierarchicalContrastiveLoss(loss_weight=0.5),
            "cost": CoSTLoss(loss_weight=0.5),
        }
    )


@composed(
    24,
    "w2v-BERT",
    source="facebookresearch/fairseq",
    guess="not yet compared with the released code",
    note="100 distractors from the same utterance; in addition to masked modelling",
)
def w2v_bert() -> nn.ModuleDict:
    """w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Speech
    Pre-Training.
    """
    return nn.ModuleDict(
        {
            "contrast": SampledContrastiveLoss(0.1),
            "diversity": CodebookDiversityLoss(loss_weight=0.1),
        }
    )


halp = row(
    "halp",
    27,
    "HaLP",
    "HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised Learning.",
    LatentPositiveLoss,
    {"temperature": 0.07, "weight": 2.0},
    source="anshulbshah/HaLP",
    guess="not yet compared with the released code",
    note="the weight is from the script",
    uses=("mixing.latent_positives",),
)


@composed(
    28,
    "Wearable biosignals",
    guess="options are from memory of the paper",
    note="compared with an EMA of the encoder",
    uses=("memory.MomentumEncoder",),
)
def wearable() -> nn.ModuleDict:
    """Large-scale Training of Foundation Models for Wearable Biosignals."""
    return nn.ModuleDict({"contrast": CLIPLoss(0.04), "spread": KoLeoLoss(loss_weight=0.1)})


clmr = row(
    "clmr",
    30,
    "CLMR",
    "CLMR: Contrastive Learning of Musical Representations.",
    NTXentLoss,
    {"temperature": 0.5},
    source="Spijkervet/CLMR",
)

selfie = row(
    "selfie",
    49,
    "Selfie",
    "Selfie: Self-supervised Pretraining for Image Embedding.",
    SampledContrastiveLoss,
    {"temperature": 1.0, "normalize": False},
    guess="options are from memory of the paper",
    note="other masked patches of the image are the distractors",
)


@composed(
    53,
    "MMC",
    guess="options are from memory of the paper",
    note="details unverified; distillation is on patches",
    uses=("memory.MomentumEncoder",),
)
def mmc() -> nn.ModuleDict:
    """MMC: Masked Momentum Contrastive Learning for Zero-shot Semantic Understanding."""
    return nn.ModuleDict({"contrast": InfoNCELoss(), "distillation": DINOLoss()})


@composed(
    72,
    "COCONUT",
    guess="options are from memory of the paper",
    note="positives from the teacher, denominators from the student",
)
def coconut() -> nn.ModuleDict:
    """COCONUT: Continual Contrastive Spoken Language Understanding."""
    return nn.ModuleDict({"rehearsal": NSPTLoss(), "audio_text": CrossSupConLoss()})
