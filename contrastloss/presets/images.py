"""Images and point clouds: views of instances."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..losses import (
    CMIMLoss,
    CosineLoss,
    DCLLoss,
    GroCoLoss,
    InfoNCELoss,
    MoCHiLoss,
    MoCoLoss,
    MVDHELLoss,
    MVInfoNCELoss,
    NTXentLoss,
)
from .registry import composed, row, setting

__all__ = [
    "cm_unet",
    "cmim",
    "dcl",
    "dclw",
    "floc_3d",
    "genview",
    "groco",
    "hallucinator",
    "mlvgm",
    "mochi",
    "mv_dhel",
    "mv_info_nce",
    "point_cmae",
    "scatsimclr",
]

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


@composed(15, "MLVGM", source="SerezD/mi_ml_gen")
def mlvgm() -> nn.ModuleDict:
    """MLVGM: A Mutual Information Perspective on Multiple Latent Variable Generative Models.

    ``estimator`` is what the estimator of the mutual information minimises, ``navigator`` what the
    navigator does: it maximises the former. ``byol`` and ``simsiam`` are of one direction: BYOL
    adds both, SimSiam averages them and subtracts 1. ``simclr`` trains in place of them.
    """
    scale = 0.1 / 0.07  # the temperature over a base temperature
    return nn.ModuleDict(
        {
            "estimator": NTXentLoss(0.1, loss_weight=scale),
            "navigator": NTXentLoss(0.1, loss_weight=-scale),
            "simclr": NTXentLoss(0.1, loss_weight=scale),
            "byol": CosineLoss(loss_weight=2.0),
            "simsiam": CosineLoss(),
        }
    )


point_cmae = row(
    "point_cmae",
    22,
    "Point-CMAE",
    "Point-CMAE: Bringing Masked Autoencoders Explicit Contrastive Properties for Point Clouds.",
    CosineLoss,
    {"stop_gradient": False, "pairs": "all"},
    paper={"pairs": "aligned"},
    source="Amazingren/Point-CMAE",
    note="`weights` are True for tokens that both views mask; without the constant 1e-8 that the "
    "code adds; in addition to reconstruction",
)

hallucinator = row(
    "hallucinator",
    33,
    "Hallucinator",
    """Hallucinator: Hallucination Improves the Performance of Unsupervised Visual Representation
    Learning.

    ``loss(cat([q, q2]), cat([k, k]), queue)``, where q2 is what a network of three layers makes of
    ``mixing.hallucinated_queries(q, k)``: a query with a gradient and negatives of its own.""",
    MoCoLoss,
    {"temperature": 0.2},
    source="jingwu6/Hallucination-improves-the-performance-of-unsupervised-visual-representation-"
    "learning",
    note="MoCo of 2N queries; the key of each pair enters the queue twice",
    uses=("mixing.hallucinated_queries", "memory.EmbeddingQueue", "memory.MomentumEncoder"),
)


def _constant_keys(loss: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The second argument of a loss without its gradient."""
    args = (*args[:1], *(v.detach() for v in args[1:2]), *args[2:])
    if isinstance(kwargs.get("y"), Tensor):
        kwargs = {**kwargs, "y": kwargs["y"].detach()}
    return args, kwargs


def _moco_v3(temperature: float, options: dict[str, Any]) -> InfoNCELoss:
    """Scaled by 2 tau, as in MoCo v3; the keys, of a momentum encoder, are constants."""
    loss = InfoNCELoss(temperature, **{"loss_weight": 2 * temperature, **options})
    loss.register_forward_pre_hook(_constant_keys, with_kwargs=True)
    return loss


@composed(
    39,
    "CM-UNet",
    source="CamilleChallier/Contrastive-Masked-UNet",
    note="scaled by 2 tau as in MoCo v3; keys are constants; in addition to reconstruction",
    uses=("memory.MomentumEncoder",),
)
def cm_unet(temperature: float = 0.07, **options: Any) -> InfoNCELoss:
    """CM-UNet: A Self-Supervised Learning-Based Model for Coronary Artery Segmentation."""
    return _moco_v3(temperature, options)


floc_3d = row(
    "floc_3d",
    43,
    "FLoc-3D",
    "FLoc-3D: Can 3D Geometric Priors Help Visual Floorplan Localization?",
    InfoNCELoss,
    {"temperature": 0.07},
    guess="no released loss was found: the form and the temperature",
    note="between views, and between images and surfaces",
)


@composed(
    48,
    "GenView",
    source="xiaojieli0903/genview",
    note="`row_weight` is N times the softmax of the quality of views, a constant; keys are "
    "constants",
    uses=("memory.MomentumEncoder",),
)
def genview(*, backbone: str = "vit", **options: Any) -> InfoNCELoss:
    """GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised
    Learning.

    MoCo v3, the sum of ``loss(q1, k2, row_weight=w)`` and ``loss(q2, k1, row_weight=w)``. The
    temperature is 0.2 for ``backbone="vit"`` and 1 for ``"resnet50"``, and the loss is scaled by
    twice the temperature.
    """
    tau = setting("backbone", backbone, {"vit": 0.2, "resnet50": 1.0})
    return _moco_v3(options.pop("temperature", tau), options)


groco = row(
    "groco",
    63,
    "GroCo",
    "GroCo: Learning by Sorting: Self-supervised Learning with Group Ordering Constraints.",
    GroCoLoss,
    source="ninatu/learning_by_sorting",
    note="ranks positives above the hardest negatives; `positive_views=2` with small crops",
    uses=("sorting.rank_mass",),
)

cmim = row(
    "cmim",
    64,
    "cMIM",
    "cMIM: A Contrastive Mutual Information Framework for Unified Representation Learning.",
    CMIMLoss,
    guess="no released loss was found: options are from memory of the paper",
    note="in addition to MIM's own terms; without augmentation",
)

#: by data set, of the configurations of both losses
_TEMPERATURES = {
    "cifar10": {"temperature": 0.5},
    "cifar100": {"temperature": 0.5},
    "imagenet100": {"temperature": 0.5},
    "imagenet1k": {"temperature": 0.1},
}

mv_info_nce = row(
    "mv_info_nce",
    67,
    "MV-InfoNCE, MV-DHEL",
    "MV-InfoNCE: A Principled Framework for Multi-View Contrastive Learning.",
    MVInfoNCELoss,
    {"same_view": True},
    datasets=_TEMPERATURES,
    paper={"same_view": False},
    source="pakoromilas/Multi-View-CL",
)

mv_dhel = row(
    "mv_dhel",
    67,
    "MV-InfoNCE, MV-DHEL",
    "MV-DHEL: A Principled Framework for Multi-View Contrastive Learning, alignment decoupled.",
    MVDHELLoss,
    datasets=_TEMPERATURES,
    source="pakoromilas/Multi-View-CL",
)

dcl = row(
    "dcl",
    70,
    "DCL, DCLW",
    "DCL: Decoupled Contrastive Learning.",
    DCLLoss,
    {"temperature": 0.1, "loss_weight": 2.0},
    source="raminnakhli/Decoupled-Contrastive-Learning",
    note="negatives of both views; the sum of both directions; the code is not the authors'",
)

dclw = row(
    "dclw",
    70,
    "DCL, DCLW",
    "DCLW: Decoupled Contrastive Learning, weighted; the weight has a gradient.",
    DCLLoss,
    {"temperature": 0.1, "weight": 0.5, "detach_weight": False, "loss_weight": 2.0},
    source="raminnakhli/Decoupled-Contrastive-Learning",
)

mochi = row(
    "mochi",
    75,
    "MoCHi",
    "MoCHi: Hard Negative Mixing for Contrastive Learning.",
    MoCHiLoss,
    {"temperature": 0.2},
    guess="the numbers of mixtures and the temperature are from memory of the paper; only code of "
    "others was found (davidsvy/hard-negative-mixing), whose formula is the same",
    note="queue and mixtures",
    uses=("memory.EmbeddingQueue", "memory.MomentumEncoder"),
)
