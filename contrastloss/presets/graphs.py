"""Graphs, recommendation, tables and network traffic."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    AdaMEOWLoss,
    AdjacencyContrastiveLoss,
    BarlowTwinsLoss,
    BinaryNCELoss,
    CLANLoss,
    CLIPLoss,
    CosineLoss,
    InfoNCELoss,
    LogitScale,
    MEOWLoss,
    NTXentLoss,
    PairContrastiveLoss,
    ProtoNCELoss,
)
from .registry import seed

__all__ = [
    "ada_meow",
    "clan",
    "contrastive_ucb",
    "dccf",
    "gaugllm",
    "graphclip",
    "meow",
    "scgc",
    "ssl_rec",
    "table_integration",
    "urlbert",
]


@seed(
    1,
    "CLAN",
    note="augmented views are the negatives; margin of its training script, its class has 1",
)
def clan(**options: Any) -> CLANLoss:
    """CLAN: Contrastive Self-Supervised Network Intrusion Detection using Augmented Negative
    Pairs.
    """
    return CLANLoss(**{"alpha": 0.5, "margin": 0.5, **options})


@seed(3, "Contrastive UCB", note="`theory` is the paper's; `released` is the SPR term of the code")
def contrastive_ucb() -> nn.ModuleDict:
    """Contrastive UCB: Provably Efficient Contrastive Self-Supervised Learning in Online
    Reinforcement Learning.
    """
    return nn.ModuleDict({"theory": BinaryNCELoss(), "released": CosineLoss(loss_weight=2.0)})


@seed(8, "SCGC", note="weight 2; released code: `self_score=True, eps=1e-8`")
def scgc(**options: Any) -> AdjacencyContrastiveLoss:
    """SCGC: Self-Supervised Contrastive Graph Clustering."""
    return AdjacencyContrastiveLoss(**{"loss_weight": 2.0, **options})


@seed(14, "GraphCLIP", "LogitScale", note="`forward(..., logit_scale=temperature())`")
def graphclip() -> nn.ModuleDict:
    """GraphCLIP: Enhancing Transferability in Graph Foundation Models for Text-Attributed
    Graphs.
    """
    return nn.ModuleDict({"loss": CLIPLoss(), "temperature": LogitScale(init=0.07)})


@seed(26, "GAugLLM", note="for use with BGRL (`cosine`) and Barlow Twins, whose lambda is 1 / D")
def gaugllm() -> nn.ModuleDict:
    """GAugLLM: Improving Graph Contrastive Learning for Text-Attributed Graphs with LLMs."""
    return nn.ModuleDict({
        "bgrl": CosineLoss(loss_weight=2.0),
        "barlow_twins": BarlowTwinsLoss(None),
    })  # fmt: skip


@seed(
    32, "DCCF", note="in addition to BPR; calls for each layer and side, on unique users or items"
)
def dccf(**options: Any) -> InfoNCELoss:
    """DCCF: Disentangled Contrastive Collaborative Filtering."""
    return InfoNCELoss(**{"temperature": 1.0, "loss_weight": 0.1, **options})


@seed(34, "SSACL (Robust Table Integration)", note="`bce` is the cross entropy of a classifier")
def table_integration(**options: Any) -> PairContrastiveLoss:
    """Robust Table Integration in Data Lakes."""
    return PairContrastiveLoss(**{"variant": "bce", **options})


@seed(40, "URLBERT", note="two perturbed passes; in addition to masked language modelling")
def urlbert(**options: Any) -> NTXentLoss:
    """URLBERT: Contrastive and Adversarial Pre-trained Model for URL Classification."""
    return NTXentLoss(**{"temperature": 0.1, **options})


@seed(65, "SSL-Rec", note="batch softmax with logQ correction, and two masked views of an item")
def ssl_rec() -> nn.ModuleDict:
    """SSL-Rec: Self-supervised Learning for Large-scale Item Recommendations."""
    return nn.ModuleDict({"softmax": InfoNCELoss(0.1), "views": InfoNCELoss(0.1)})


@seed(77, "MEOW, AdaMEOW", "presets.ada_meow", note="the pair weights of AdaMEOW take O(N^2) time")
def meow() -> nn.ModuleDict:
    """MEOW: Heterogeneous Graph Contrastive Learning."""
    return nn.ModuleDict({"meow": MEOWLoss(0.5), "prototypes": ProtoNCELoss()})


def ada_meow(**options: Any) -> AdaMEOWLoss:
    """AdaMEOW: Heterogeneous Graph Contrastive Learning, with learnt weights."""
    return AdaMEOWLoss(**{"temperature": 0.5, **options})
