"""Graphs, recommendation, tables and network traffic."""

from __future__ import annotations

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
from .registry import composed, row

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

clan = row(
    "clan",
    1,
    "CLAN",
    "CLAN: Contrastive Self-Supervised Network Intrusion Detection using Augmented Negative Pairs.",
    CLANLoss,
    {"alpha": 0.5, "margin": 0.5},
    source="jackwilkie/CLAN",
    note="augmented views are the negatives; margin of its training script, its class has 1",
)


@composed(
    3,
    "Contrastive UCB",
    source="Baichenjia/Contrastive-UCB",
    guess="not yet compared with the released code",
    note="`theory` is the paper's; `released` is the SPR term of the code",
)
def contrastive_ucb() -> nn.ModuleDict:
    """Contrastive UCB: Provably Efficient Contrastive Self-Supervised Learning in Online
    Reinforcement Learning.
    """
    return nn.ModuleDict({"theory": BinaryNCELoss(), "released": CosineLoss(loss_weight=2.0)})


scgc = row(
    "scgc",
    8,
    "SCGC",
    "SCGC: Self-Supervised Contrastive Graph Clustering.",
    AdjacencyContrastiveLoss,
    {"loss_weight": 2.0},
    source="gayanku/SCGC",
    guess="not yet compared with the released code",
    note="weight 2; released code: `self_score=True, eps=1e-8`",
)


@composed(
    14,
    "GraphCLIP",
    source="ZhuYun97/GraphCLIP",
    note="`forward(..., logit_scale=temperature())`",
    uses=("LogitScale",),
)
def graphclip() -> nn.ModuleDict:
    """GraphCLIP: Enhancing Transferability in Graph Foundation Models for Text-Attributed
    Graphs.
    """
    return nn.ModuleDict({"loss": CLIPLoss(), "temperature": LogitScale(init=0.07)})


@composed(
    26,
    "GAugLLM",
    source="NYUSHCS/GAugLLM",
    guess="not yet compared with the released code",
    note="for use with BGRL (`cosine`) and Barlow Twins, whose lambda is 1 / D",
)
def gaugllm() -> nn.ModuleDict:
    """GAugLLM: Improving Graph Contrastive Learning for Text-Attributed Graphs with LLMs."""
    return nn.ModuleDict(
        {
            "bgrl": CosineLoss(loss_weight=2.0),
            "barlow_twins": BarlowTwinsLoss(None),
        }
    )


dccf = row(
    "dccf",
    32,
    "DCCF",
    "DCCF: Disentangled Contrastive Collaborative Filtering.",
    InfoNCELoss,
    {"temperature": 1.0, "loss_weight": 0.1},
    source="HKUDS/DCCF",
    guess="not yet compared with the released code",
    note="in addition to BPR; calls for each layer and side, on unique users or items",
)

table_integration = row(
    "table_integration",
    34,
    "SSACL (Robust Table Integration)",
    "Robust Table Integration in Data Lakes.",
    PairContrastiveLoss,
    {"variant": "bce"},
    guess="options are from memory of the paper",
    note="`bce` is the cross entropy of a classifier",
)

urlbert = row(
    "urlbert",
    40,
    "URLBERT",
    "URLBERT: Contrastive and Adversarial Pre-trained Model for URL Classification.",
    NTXentLoss,
    {"temperature": 0.1},
    source="Davidup1/URLBERT",
    note="two perturbed passes; in addition to masked language modelling",
)


@composed(
    65,
    "SSL-Rec",
    guess="options are from memory of the paper",
    note="batch softmax with logQ correction, and two masked views of an item",
)
def ssl_rec() -> nn.ModuleDict:
    """SSL-Rec: Self-supervised Learning for Large-scale Item Recommendations."""
    return nn.ModuleDict({"softmax": InfoNCELoss(0.1), "views": InfoNCELoss(0.1)})


@composed(
    77,
    "MEOW, AdaMEOW",
    source="jianxiangyu/MEOW",
    guess="not yet compared with the released code",
    note="the pair weights of AdaMEOW take O(N^2) time",
)
def meow() -> nn.ModuleDict:
    """MEOW: Heterogeneous Graph Contrastive Learning."""
    return nn.ModuleDict({"meow": MEOWLoss(0.5), "prototypes": ProtoNCELoss()})


ada_meow = row(
    "ada_meow",
    77,
    "MEOW, AdaMEOW",
    "AdaMEOW: Heterogeneous Graph Contrastive Learning, with learnt weights.",
    AdaMEOWLoss,
    {"temperature": 0.5},
    source="jianxiangyu/MEOW",
    guess="not yet compared with the released code",
)
