"""Images: cluster codes, weighted pairs, mixtures and memories."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    BECLRLoss,
    CACRLoss,
    CosineLoss,
    InfoNCELoss,
    LogitScale,
    MoCoLoss,
    MomentumCACRLoss,
    ProtoNCELoss,
    SimLAPLoss,
    SupReMixLoss,
    SwAVLoss,
)
from .registry import composed, row, setting

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

#: SwAV's options, of prototypes that are normalised before every step
_SWAV: dict[str, Any] = {"temperature": 0.1, "eps": 0.05, "iterations": 3, "constant_norms": True}

swav = row(
    "swav",
    76,
    "SwAV",
    "SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.",
    SwAVLoss,
    _SWAV,
    source="facebookresearch/swav",
    note="two large crops, and six small ones as `crops`; `queues` and `group` as there. "
    "Normalise the prototypes before every step",
)

less_is_more = row(
    "less_is_more",
    17,
    "Less is More (CT)",
    "Less is More (CT): Selective Reduction of CT Data for Self-Supervised Pre-Training.",
    SwAVLoss,
    _SWAV,
    source="Wolfda95/SSL-MedicalImagining-CL-MAE",
    note="SwAV with two large and six small crops, on slices selected by their hashes",
)


@composed(
    19,
    "SparK versus contrastive learning (CT)",
    source="Wolfda95/SSL-MedicalImagining-CL-MAE",
    note="the MoCo v2, SwAV and BYOL that it compares; SwAV with two large and six small crops, "
    "BYOL but for a constant",
    uses=("memory.EmbeddingQueue", "memory.MomentumEncoder"),
)
def spark_vs_cl() -> nn.ModuleDict:
    """Self-supervised Learning with Contrastive and Masked Autoencoder Methods (CT).

    Returns three losses, of which a training takes one.
    """
    return nn.ModuleDict(
        {
            "moco": MoCoLoss(0.07),
            "swav": SwAVLoss(**_SWAV),
            "byol": CosineLoss(loss_weight=2.0),
        }
    )


@composed(
    21,
    "Joint image-volume (CT)",
    source="duyhominhnguyen/Self-supervised-Image-Volume-Intra-Inter-Contrastive",
    note="of slices and of volumes, each with its own prototypes; the agreement of both and the "
    "masked regression are not here",
)
def image_volume() -> nn.ModuleDict:
    """Joint self-supervised image-volume representation learning by contrastive clustering.

    Returns SwAV and DeepCluster-v2, of which a training takes one. DeepCluster-v2 is the cross
    entropy of the rows of all crops with their image's cluster of k-means, -100 where there is
    none, whose centres are the prototypes, without gradient.
    """
    return nn.ModuleDict({"swav": SwAVLoss(**_SWAV), "deepcluster": ProtoNCELoss(0.1)})


supremix = row(
    "supremix",
    59,
    "SupReMix",
    "SupReMix: Mixup Your Own Pairs: supervised contrastive regression.",
    SupReMixLoss,
    {"temperature": 0.3, "separate_maxima": True},
    datasets={"imdb_wiki": {"temperature": 0.3}, "sts_b": {"temperature": 0.1}},
    paper={"separate_maxima": False},
    source="files that cite yilei-wu/SupReMix",
    note="with `mixtures=loss.mixtures(labels)`, whose window is 5 for IMDB-WIKI and 1 for STS-B, "
    "and whose shares are Beta(2, 8), (8, 2) or (5, 5); the code also cuts all rows to the fewest "
    "mixtures of any row",
)

#: the losses of CACR by data set
_CACR: dict[str, tuple[type[CACRLoss] | type[MomentumCACRLoss], dict[str, Any]]] = {
    "cifar10": (CACRLoss, {"t_negative": 1.0}),
    "cifar100": (CACRLoss, {"t_negative": 2.0}),
    "stl10": (CACRLoss, {"t_negative": 2.0}),
    "imagenet": (MomentumCACRLoss, {"temperature": 1.0}),
    "label_shift": (CACRLoss, {"t_negative": 2.0}),
}


@composed(
    60,
    "CACR",
    source="JegZheng/CACR-SSL",
    note="five views as (N, 5, D) for small images",
    uses=("memory.EmbeddingQueue", "memory.MomentumEncoder"),
)
def cacr(dataset: str = "cifar10", **options: Any) -> nn.Module:
    """CACR: Contrastive Attraction and Contrastive Repulsion for Representation Learning.

    ``dataset="cifar10"``, ``"cifar100"`` and ``"stl10"`` take all views of an instance. t- is 1 for
    the first, as by default in the code (its page says 0.9), and 2 for the others. ``tau_plus=0.1``
    debiases.

    ``"imagenet"`` takes queries and a momentum encoder's key; ``cost="euclidean"`` sums over the
    rows of all ranks.

    ``"label_shift"`` returns two losses of every view's queries q, whose means over views are
    added: ``attraction(q, keys)`` to the keys (N, V - 1, D) of the other views, which are constant,
    and ``repulsion(q, q, memory=queue)``.
    """
    loss, theirs = setting("dataset", dataset, _CACR)
    if dataset == "label_shift":
        constant = {**theirs, "beta": 0.0, "detach_weights": True, **options}
        repulsion = {**theirs, "alpha": 0.0, **options}
        return nn.ModuleDict(
            {"attraction": CACRLoss(**constant), "repulsion": CACRLoss(**repulsion)}
        )
    if dataset == "imagenet":
        tau = options.get("temperature", theirs["temperature"])
        euclidean = options.get("cost") == "euclidean"
        theirs = theirs | ({"reduction": "sum"} if euclidean else {"loss_weight": 2.0 * tau})
    return loss(**{**theirs, **options})


@composed(
    71,
    "SimLAP (Hydra)",
    source="files that cite arXiv:2410.18200",
    note="both terms are means over the two views; detach the keys of the momentum encoder, and "
    "gather those of all ranks",
)
def simlap(
    temperature: float = 0.2,
    beta: float = 1.0,
    *,
    scale: str = "fixed",
    renormalize: bool = True,
) -> nn.ModuleDict:
    """SimLAP (Hydra): Rethinking Positive Pairs in Contrastive Learning.

    Returns the instance term, its weight 1 / (1 + beta), and that of pairs of classes, its weight
    beta / (1 + beta). ``scale="learned"`` adds the logit scale of the pairs, 20 at first.
    ``renormalize=False`` multiplies with the square of the gate, as one of the files does.
    """
    setting("scale", scale, {"fixed": None, "learned": None})
    pairs: dict[str, Any] = {"mean_over": "pairs", "renormalize": renormalize}
    losses: dict[str, nn.Module] = {
        "instance": InfoNCELoss(temperature, loss_weight=1.0 / (1.0 + beta)),
        "pairs": SimLAPLoss(temperature, loss_weight=beta / (1.0 + beta), **pairs),
    }
    if scale == "learned":
        losses["scale"] = LogitScale(1.0 / 20.0)
    return nn.ModuleDict(losses)


beclr = row(
    "beclr",
    74,
    "BECLR",
    "BECLR: Batch Enhanced Contrastive Few-Shot Learning.",
    BECLRLoss,
    {"temperature": 2.0, "weight": 0.1, "threshold": 0.8},
    source="stypoumic/BECLR",
    note="each of the three tensors with the 5 nearest embeddings of its own memory, "
    "`BECLRLoss.with_neighbors`; no transport at evaluation",
)
