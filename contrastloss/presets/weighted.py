"""Images: cluster codes, weighted pairs, mixtures and memories."""

from __future__ import annotations

from typing import Any

from ..losses import AlignmentUniformityLoss, CACRLoss, MoCoLoss, SimLAPLoss, SupReMixLoss, SwAVLoss
from .registry import composed, row

__all__ = [
    "beclr",
    "cacr",
    "image_volume",
    "less_is_more",
    "simlap",
    "spark_vs_cl",
    "supremix",
    "swav",
]

less_is_more = row(
    "less_is_more",
    17,
    "Less is More (CT)",
    "Less is More (CT): Selective Reduction of CT Data for Self-Supervised Pre-Training.",
    SwAVLoss,
    {"temperature": 0.1, "eps": 0.05},
    source="Wolfda95/Less_is_More",
    guess="not yet compared with the released code",
    note="on selected slices; the selection compares hashes",
)

spark_vs_cl = row(
    "spark_vs_cl",
    19,
    "SparK versus contrastive learning (CT)",
    "Self-supervised Learning with Contrastive and Masked Autoencoder Methods (CT).",
    MoCoLoss,
    {"temperature": 0.07},
    source="Wolfda95/SSL-MedicalImagining-CL-MAE",
    guess="not yet compared with the released code",
    note="its MoCo v2, and SwAV",
    uses=("SwAVLoss",),
)

image_volume = row(
    "image_volume",
    21,
    "Joint image-volume (CT)",
    "Joint self-supervised image-volume representation learning by contrastive clustering.",
    SwAVLoss,
    {"temperature": 0.1, "eps": 0.05},
    guess="not yet compared with the released code",
    note="clusters of slices only, not of volumes",
)

supremix = row(
    "supremix",
    59,
    "SupReMix",
    "SupReMix: Mixup Your Own Pairs: supervised contrastive regression.",
    SupReMixLoss,
    {"temperature": 0.07},
    guess="not yet compared with the released code",
    note="mixtures are additional rows; `loss_weight` is tau / a base temperature",
    uses=("mixing.label_mixtures",),
)

cacr = row(
    "cacr",
    60,
    "CACR",
    "CACR: Contrastive Attraction and Contrastive Repulsion for Representation Learning.",
    CACRLoss,
    source="JegZheng/CACR-SSL",
    guess="not yet compared with the released code",
    note="weights are differentiated; `detach_weights=True` as for ImageNet",
)

simlap = row(
    "simlap",
    71,
    "SimLAP (Hydra)",
    "SimLAP (Hydra): Rethinking Positive Pairs in Contrastive Learning.",
    SimLAPLoss,
    {"mean_over": "pairs"},
    guess="not yet compared with the released code",
    note="products of gated queries with keys, without the gate's norm",
)


@composed(
    74,
    "BECLR",
    source="stypoumic/BECLR",
    guess="not yet compared with the released code",
    note="up to a constant; detach the targets yourself; no transport",
)
def beclr(**options: Any) -> AlignmentUniformityLoss:
    """BECLR: Batch Enhanced Contrastive Few-Shot Learning: -mean cos + 0.1 log mean e^(cos / 2)."""
    theirs = {"t": 0.25, "weight": 0.2, "across": True, "loss_weight": 0.5}
    return AlignmentUniformityLoss(**{**theirs, **options})


swav = row(
    "swav",
    76,
    "SwAV",
    "SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.",
    SwAVLoss,
    {"temperature": 0.1, "eps": 0.05, "iterations": 3},
    source="facebookresearch/swav",
    guess="not yet compared with the released code",
    note="predicts the codes of one crop from another; sum over pairs of crops",
)
