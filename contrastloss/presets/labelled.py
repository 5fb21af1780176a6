"""Images with labels, clusters or teachers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    ClusterNTXentLoss,
    DINOLoss,
    FocalContrastiveLoss,
    SelfConLoss,
    SepCLRLoss,
    SoftTargetLoss,
    SpectralLoss,
    SupConLoss,
)
from .registry import composed, row

__all__ = [
    "alice",
    "core_tuning",
    "g_simclr",
    "imaginet",
    "mcl",
    "projection_head",
    "rkhs",
    "sepclr",
    "sepclr_dsprites",
    "softcon",
]

core_tuning = row(
    "core_tuning",
    2,
    "Core-tuning",
    """Core-tuning: Unleashing the Power of Contrastive Self-Supervised Visual Models.

    With features z of the batch and ``m = mixing.hard_mixtures(z, labels, released=True)``, its
    rows are ``head(cat([z.detach(), m.features]))``, with the labels ``cat([labels, m.labels])``.
    The paper's mixtures are those with ``released=False``.""",
    FocalContrastiveLoss,
    {"temperature": 0.07, "loss_weight": 10.0, "divisor": "batch"},
    paper={"divisor": "positives"},
    source="Vanint/Core-tuning",
    note="in addition to the cross entropy of the mixtures' soft labels; these are compared as "
    "they are, not as decimal codes in fp32",
    uses=("mixing.hard_mixtures",),
)


@composed(
    16,
    "Benefits of projection heads",
    source="jiayini1119/projection-head-experiments",
    note="SupCon of single views, as in the experiments",
)
def projection_head(*, released: bool = True, **options: Any) -> SupConLoss | SpectralLoss:
    """Investigating the Benefits of Projection Head for Representation Learning.

    ``released=False`` is the loss of the paper's theory, ``SpectralLoss(normalize=False)``.
    """
    if released:
        return SupConLoss(**{"temperature": 0.5, **options})
    return SpectralLoss(**{"normalize": False, **options})


softcon = row(
    "softcon",
    29,
    "SoftCon",
    """SoftCon: Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation
    Pretraining.

    ``loss(x, k.detach(), labels, labels)`` is of one view x of the student and another one, k, of
    the averaged teacher; the system adds the call of the other two.""",
    SoftTargetLoss,
    {"targets": "labels", "identity": 1.0, "symmetric": False},
    guess="the encoders are released, not the training: whether the soft term is `variant='ce'` or "
    "`'bce'`, its temperature and the weight of the identity's are from the paper",
    note="the sum of the terms whose targets are the identity and the similarity of labels",
    uses=("memory.MomentumEncoder",),
)

g_simclr = row(
    "g_simclr",
    38,
    "G-SimCLR",
    "G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo Labelling.",
    ClusterNTXentLoss,
    {"temperature": 0.1, "against": "other"},
    source="ariG23498/G-SimCLR",
    note="the mean over both views; its batches have each cluster once, here others may, too",
)

imaginet = row(
    "imaginet",
    41,
    "ImagiNet",
    "ImagiNet: A Multi-Content Dataset for Generalizable Synthetic Image Detection.",
    SelfConLoss,
    {"temperature": 0.07},
    source="delyan-boychev/imaginet",
    note="two columns of labels: whether an image is synthetic, and its model, -1 where it is not",
)


@composed(
    47,
    "Alice",
    source="alibaba-damo-academy/alice",
    note="the temperature of the teacher rises from 0.008 over 30 epochs; in addition to the error "
    "of reconstruction, the mean square times 1/2, times 1 or, in older versions, 10",
    uses=("memory.MomentumEncoder",),
)
def alice(teacher_temperature: float = 0.01) -> nn.ModuleDict:
    """Alice: Anatomical Invariance Modeling and Semantic Alignment for Medical Image Analysis.

    ``image`` compares the image's token with the teacher's of the other view, ``patches`` patches
    with the teacher's of the same view: the outputs of the alignment module are logits, so that
    their prototypes are ``torch.eye(D)``. Each is the mean over both views.
    """
    how: dict[str, Any] = {"temperature": 0.1, "teacher_temperature": teacher_temperature}
    return nn.ModuleDict(
        {
            "image": DINOLoss(**how),
            "patches": DINOLoss(**how, normalize=False),
        }
    )


rkhs = row(
    "rkhs",
    50,
    "RKHS approximation",
    "RKHS approximation: Understanding Augmentation-based Self-Supervised Representation Learning.",
    SpectralLoss,
    {"normalize": False},
    guess="no released loss was found: the theory's form, without weights",
    note="its three losses",
    uses=("BarlowTwinsLoss", "VICRegLoss"),
)

#: (salient, background) by data set
_WEIGHTS = {
    "cifar_mnist": (1000.0, 1000.0),
    "celeba": (1000.0, 1000.0),
    "chexpert": (1.0, 10.0),
    "odir": (1.0, 100.0),
}

sepclr = row(
    "sepclr",
    62,
    "SepCLR",
    "SepCLR: Separating common from salient patterns with Contrastive Representation Learning.",
    SepCLRLoss,
    datasets={
        name: {"salient": salient, "background": background}
        for name, (salient, background) in _WEIGHTS.items()
    },
    source="neurospin-projects/2024_rlouiset_sep_clr",
    note="alignment, uniformity, and joint entropy from one LSE",
)


@composed(62, "SepCLR", source="neurospin-projects/2024_rlouiset_sep_clr")
def sepclr_dsprites() -> nn.ModuleDict:
    """SepCLR on dSprites: every salient coordinate has a label.

    With two common views c, c', one salient view s of five coordinates, the targets t and five
    labels y, the loss is the sum of ``common(c, c', s, s, t)``; ``shape(c, c, s[:, :1], s[:, :1],
    t, y[:, 0])``, whose label is a class; ``attribute(c, c, s[:, k:k+1], s[:, k:k+1], t, y[:, k])``
    for each of the other four; and ``joint(c, c, s, s, t)``.
    """
    none: dict[str, Any] = {"common": 0.0, "salient": 0.0, "background": 0.0, "joint": 0.0}
    of_label = {**none, "salient": 10.0}
    return nn.ModuleDict(
        {
            "common": SepCLRLoss(**{**none, "common": 1.0, "uniformity": 1.0}),
            "shape": SepCLRLoss(**{**of_label, "background": 10.0, "label_variance": 5e-6}),
            "attribute": SepCLRLoss(**{**of_label, "background": 200.0}),
            "joint": SepCLRLoss(**{**none, "joint": 10.0}),
        }
    )


mcl = row(
    "mcl",
    66,
    "MCL",
    "MCL: Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning.",
    ClusterNTXentLoss,
    {"temperature": 0.07, "against": "own", "across": True},
    source="MajorDavidZhang/MCL",
    note="CLIP within clusters, whose number joins those of all earlier stages; the scale is "
    "learnt: `forward(..., logit_scale=temperature())`; `across=False` is the form of SimCLR",
    uses=("LogitScale",),
)
