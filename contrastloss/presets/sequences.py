"""Speech, music, motion, biosignals and other series; patches of an image in order."""

from __future__ import annotations

from torch import nn

from ..losses import (
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
    {"normalize": True, "stop_gradient": False},
    datasets={"kitti": {"beta": 1.0}, "waymo": {"beta": 10.0}},
    source="HaoranZhuExplorer/AD-L-JEPA-Release",
    note="maps are unit vectors; detach the target encoder's cells, not the empty token, which "
    "learns in the target, too",
)


@composed(
    13,
    "SSCL-TSF",
    source="chiyuzhang94/contrastive_learning_time-series_e2e",
    note="one of the three, with weight lambda, beside the error of the forecast with 1 - lambda",
)
def sscl_tsf(weight: float = 0.5, *, released: bool = True) -> nn.ModuleDict:
    """SSCL-TSF: What Constitutes Good Contrastive Learning in Time-Series Forecasting?

    ``weight`` is lambda. The released code gives its flag for normalisation, False, to TS2Vec in
    place of alpha: only the temporal term is left. ``released=False``, as in the paper: alpha is
    0.5. The temperatures are 1; MoCo compares products, CoST cosines.
    """
    alpha = 0.0 if released else 0.5
    return nn.ModuleDict(
        {
            "moco": MoCoLoss(1.0, normalize=False, loss_weight=weight),
            "ts2vec": HierarchicalContrastiveLoss(alpha, loss_weight=weight),
            "cost": CoSTLoss(temperature=1.0, loss_weight=weight),
        }
    )


@composed(
    24,
    "w2v-BERT",
    source="facebookresearch/fairseq2",
    note="100 distractors from the same utterance; in addition to masked modelling, whose cross "
    "entropy of codes is no loss of embeddings",
)
def w2v_bert(*, released: bool = True) -> nn.ModuleDict:
    """w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Speech
    Pre-Training.

    The loss is ``contrast(x, y, index) + diversity(probabilities)``, per masked step. The public
    code, of fairseq and fairseq2, has the diversity of perplexity, and adds 1e-7 to probabilities
    in the logarithm, which the preset does not; ``released=False`` is the paper's, of entropy.
    """
    form = CodebookDiversityLoss("perplexity" if released else "entropy", loss_weight=0.1)
    return nn.ModuleDict({"contrast": SampledContrastiveLoss(0.1), "diversity": form})


halp = row(
    "halp",
    27,
    "HaLP",
    "HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised Learning of Actions.",
    LatentPositiveLoss,
    {"temperature": 0.07, "weight": 2.0},
    source="anshulbshah/HaLP",
    note="`mixing.latent_positives(key, prototypes, 100, least=0.2, nearest=False)`, where the 20 "
    "prototypes are of spherical k-means over the newest 256 entries of the queue; the weight is "
    "from the script, the default is 1",
    uses=("mixing.latent_positives",),
)


@composed(
    28,
    "Wearable biosignals",
    guess="the formula and its options are the paper's, as third parties implement it; the authors "
    "released no code",
    note="compared with an EMA of the encoder, momentum 0.99",
    uses=("memory.MomentumEncoder",),
)
def wearable() -> nn.ModuleDict:
    """Large-scale Training of Foundation Models for Wearable Biosignals.

    The loss is ``contrast(z1, k2) + contrast(z2, k1) + spread(z1) + spread(z2)``, with the views
    z1, z2 and the momentum encoder's k1, k2, which are constants.
    """
    contrast = InfoNCELoss(0.04, loss_weight=0.5)
    return nn.ModuleDict({"contrast": contrast, "spread": KoLeoLoss(loss_weight=0.05)})


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
    guess="only third parties released code, with which it agrees",
    note="other masked patches of the image are the distractors",
)


@composed(
    53,
    "MMC",
    guess="which terms there are, their temperatures and weights; nobody released code",
    note="distillation is on patches",
    uses=("memory.MomentumEncoder",),
)
def mmc() -> nn.ModuleDict:
    """MMC: Masked Momentum Contrastive Learning for Zero-shot Semantic Understanding."""
    return nn.ModuleDict({"contrast": InfoNCELoss(), "distillation": DINOLoss()})


@composed(
    72,
    "COCONUT",
    guess="temperatures and weights; nobody released code",
    note="positives from the teacher, denominators from the student",
)
def coconut() -> nn.ModuleDict:
    """COCONUT: Continual Contrastive Spoken Language Understanding."""
    return nn.ModuleDict({"rehearsal": NSPTLoss(), "audio_text": CrossSupConLoss()})
