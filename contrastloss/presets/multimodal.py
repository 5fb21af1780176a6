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
    InfoNCELoss,
    LogitScale,
    MarginRankingLoss,
    MILContrastiveLoss,
    MultiModalLoss,
    NTXentLoss,
    PairContrastiveLoss,
    PooledSupConLoss,
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
    "clippings_pairs",
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
    {"temperature": 1.0, "normalize": False},
    guess="the loss is that of Test of Time, bpiyush/TestOfTime, on which the system builds: "
    "products without temperature; nobody released the system's code",
    note="time-reversed columns as additional negatives; add the call with both sides and their "
    "reversals exchanged",
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
    note="no gradient for the text side, learned `logit_scale`; the editor adds 0.1 (1 - cos) to "
    "the error of the noise",
)
def instruct_clip() -> nn.ModuleDict:
    """Instruct-CLIP: Instruction-Guided Image Editing with Automated Data Refinement.

    ``changes(texts, images)`` trains the encoder, ``editor(images, texts)`` the editor.
    """
    editor = CosineLoss(loss_weight=0.1)
    return nn.ModuleDict({"changes": CLIPLoss(0.07), "editor": editor})


clippings = row(
    "clippings",
    35,
    "CLIPPINGS",
    "CLIPPINGS: Linking Representations with Multimodal Contrastive Learning.",
    PooledSupConLoss,
    {"temperature": 0.1, "image_weight": 0.3},
    source="dell-research-harvard/clippings",
    note="0.3 image + 0.7 text, pooled; `clippings_pairs` is its other loss",
)

clippings_pairs = row(
    "clippings_pairs",
    35,
    "CLIPPINGS",
    "CLIPPINGS, with margins: Linking Representations with Multimodal Contrastive Learning.",
    PairContrastiveLoss,
    {
        "distance": "euclidean",
        "margin": 0.5,
        "positive_margin": 0.0,
        "squared": False,
        "mean_over": "active",
    },
    source="dell-research-harvard/clippings",
    note="`clippings_pairs()(z[i], z[j], labels[i] == labels[j])` for all pairs i < j of the "
    "pooled unit vectors z",
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
    note="stage 1, and stage 2 with weight 1/2 for each direction",
)
def villa(*, released: bool = True) -> nn.ModuleDict:
    """ViLLA: Fine-Grained Vision-Language Representation Learning from Real-World Data.

    ``regions(regions, attributes, labels)`` is stage 1, whose regions are (B, R, A, D) by default,
    with a projection for each attribute, or (B, R, D); attributes are unit vectors. ``pairs`` is
    stage 2. The released code has a term :math:`e^0` for every image with the attribute in the
    denominator; ``released=False``, as in the paper, has none.
    """
    regions = RegionAttributeLoss(released, temperature=0.07)
    return nn.ModuleDict({"regions": regions, "pairs": CLIPLoss(0.07)})


@composed(
    44,
    "TIPS",
    guess="weights and temperatures; the authors released models only",
    note="captions, noisy and synthetic, crops and masked patches",
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


@composed(
    45,
    "CALICO",
    guess="all but the two kinds of contrasts and alpha, 0.5, which reviews describe; nobody "
    "released code",
    note="distillation from cameras follows, normalised per region; detach its teacher",
)
def calico(alpha: float = 0.5) -> nn.ModuleDict:
    """CALICO: Self-Supervised Camera-LiDAR Contrastive Pre-training for BEV Perception.

    The loss is the sum of two contrasts of the points of two views, with the region of each point:
    ``regions(x, y, x_ids=x_regions, y_ids=y_regions)``, where all points of the same region are
    positives, with weight ``alpha``, and ``points(x, y, ids=regions)``, where the same point is,
    and others of its region are no negatives, with the rest.
    """
    points = InfoNCELoss(0.07, loss_weight=1 - alpha)
    return nn.ModuleDict({"regions": InfoNCELoss(0.07, loss_weight=alpha), "points": points})


@composed(
    46,
    "Multiple-choice video QA",
    guess="temperature and margin; nobody released code",
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
    {"temperature": 0.5, "beta": 1.0, "tau_plus": 0.1},
    guess="temperature, beta and tau_plus; nobody released code",
    note="hard negatives in both directions",
)

macil_sd = row(
    "macil_sd",
    57,
    "MACIL-SD",
    "MACIL-SD: Modality-Aware Contrastive Instance Learning with Self-Distillation.",
    MILContrastiveLoss,
    {"temperature": 0.1, "loss_weight": 1.5, "released": True},
    source="JustinYuu/MACIL_SD",
    note="weight min(1.5, epoch / 10): set `loss_weight`; the labels are predictions, > 0.5; "
    "`released=False` counts each bag once; in addition to the cross entropy of bags",
)


@composed(
    61,
    "CLIP-Rocket",
    source="facebookresearch/clip-rocket",
    note="CLIP and, if any, one of the others; the prototypes of SwALIP are the texts",
    uses=("LogitScale",),
)
def clip_rocket(augmentations: int = 2, *, label_smoothing: float = 0.1) -> nn.ModuleDict:
    """CLIP-Rocket: Improved baselines for vision-language pre-training.

    For A augmentations of images and of texts, of two heads ("global" and "local" embeddings), the
    loss is the sum of all calls of

    - ``clip(image, text, logit_scale=scale())`` and, for each of the A² pairs of augmentations,
      ``local(image_a, text_b, logit_scale=local_scale())``; with SwALIP, ``label_smoothing=0``,
    - BarLIP: ``barlip(image, text)`` and ``barlip(image_a, text_b)`` of each pair, outputs of an
      affine BatchNorm, which the loss does not standardise again,
    - SiamLIP: ``siamlip(p_image, v_text)``, ``siamlip(p_text, v_image)``, and both for each pair,
    - SwALIP, for A = 2: ``swalip(image_1, image_2, text_a, y_prototypes=text_b)`` for (a, b) =
      (1, 2) and (2, 1), and the same with texts and images exchanged. The scale is shared:
      ``swalip.temperature = 1 / local_scale()`` in every step.
    """
    pairs = augmentations**2
    share = 2.0 / (1 + augmentations)  # of a sum of rows' and columns' losses, not a mean
    local = CLIPLoss(
        0.1,
        label_smoothing=label_smoothing,
        loss_weight=share * augmentations / max(pairs, 1),
    )
    barlip = BarlowTwinsLoss(0.005, standardize="none", loss_weight=0.025 / (1 + pairs))
    return nn.ModuleDict(
        {
            "clip": CLIPLoss(0.07, loss_weight=share),
            "local": local,
            "barlip": barlip,
            "siamlip": CosineLoss(loss_weight=1 / (1 + pairs)),
            "swalip": SwAVLoss(0.1, eps=0.05, iterations=3, loss_weight=0.05),
            "scale": LogitScale(init=0.07),
            "local_scale": LogitScale(init=0.1),
        }
    )
