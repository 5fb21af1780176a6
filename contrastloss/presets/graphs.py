"""Graphs, recommendation, tables and network traffic."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    AdaMEOWLoss,
    AdjacencyContrastiveLoss,
    BarlowTwinsLoss,
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
from .registry import composed, row, setting

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
    note="augmented views are the negatives; margin of its training script, its class has 1; 1e-6 "
    "is not added to counts",
)


@composed(
    3,
    "Contrastive UCB",
    source="Baichenjia/Contrastive-UCB",
    note="weight 5 on the mean over jumps >= 1, jump 0 has none: call with these jumps, and with "
    "`weights` 0 from a terminal on; `released=False` is the paper's term",
)
def contrastive_ucb(*, released: bool = True, **options: Any) -> CosineLoss | PairContrastiveLoss:
    """Contrastive UCB: Provably Efficient Contrastive Self-Supervised Learning in Online
    Reinforcement Learning.

    Returns ``CosineLoss(loss_weight=10.0)``, SPR's :math:`5 (2 - 2 \\cos)`, for the predictions and
    targets of jumps 1, 2, ..., (jumps, B, D). ``released=False``, as in the paper: binary NCE with
    :math:`f = \\langle \\phi(s, a), \\psi(s') \\rangle > 0` over pairs that are transitions or not,
    ``PairContrastiveLoss(variant='ratio', normalize=False)``.
    """
    if released:
        return CosineLoss(**{"loss_weight": 10.0, **options})
    return PairContrastiveLoss(**{"variant": "ratio", "normalize": False, **options})


scgc = row(
    "scgc",
    8,
    "SCGC",
    "SCGC: Self-Supervised Contrastive Graph Clustering.",
    AdjacencyContrastiveLoss,
    {"loss_weight": 2.0, "temperature": 1.0, "self_score": True, "eps": 1e-8},
    datasets={
        "any": {},
        **{
            name: {"loss_weight": weight, "temperature": 1 / scale}
            for name, weight, scale in (
                ("usps", 1.0, 0.5),
                ("hhar", 1.0, 2.25),
                ("reut", 3.0, 1.0),
                ("acm", 0.5, 0.25),
                ("dblp", 0.5, 0.25),
                ("cite", 1.0, 0.25),
                ("usps*", 4.0, 0.25),
                ("hhar*", 1.0, 2.25),
                ("reut*", 0.5, 0.25),
                ("acm*", 1.0, 0.25),
                ("dblp*", 1.0, 0.25),
                ("cite*", 1.0, 0.25),
            )
        },
    },
    paper={"self_score": False, "eps": 0.0},
    source="gayanku/SCGC",
    note="in addition to clustering; the weights of edges are those of a power of the adjacency, "
    "with self loops; `*` is SCGC*",
)


@composed(
    14,
    "GraphCLIP",
    source="ZhuYun97/GraphCLIP",
    note="`loss(graphs, texts, logit_scale=temperature())`; the scale has no limit",
    uses=("LogitScale",),
)
def graphclip() -> nn.ModuleDict:
    """GraphCLIP: Enhancing Transferability in Graph Foundation Models for Text-Attributed
    Graphs.
    """
    temperature = LogitScale(init=0.07, max_scale=1e30, min_scale=1e-30)
    return nn.ModuleDict({"loss": CLIPLoss(), "temperature": temperature})


@composed(
    26,
    "GAugLLM",
    source="NYUSHCS/GAugLLM",
    note="for use with one of BGRL, Graph Barlow Twins, GraphCL and GraphMAE",
)
def gaugllm() -> nn.ModuleDict:
    """GAugLLM: Improving Graph Contrastive Learning for Text-Attributed Graphs with LLMs.

    One term for each method that it extends:

    - BGRL: ``bgrl(q1, y2) + bgrl(q2, y1)``, predictions and targets of both views.
    - Graph Barlow Twins: ``barlow_twins(z1, z2)``.
    - GraphCL: ``graphcl(h, (c1 + c2) @ W.T, real)`` for the N nodes of the graph and of another
      one, h (2N, D) and real (2N,), where :math:`c_1, c_2` are the sigmoids of the mean nodes of
      both views, expanded to (2N, D), and W is bilinear. A bias b of the bilinear form is
      ``bias=2 b``: it is added for each view. The released code draws W anew in every step.
    - GraphMAE: ``graphmae(reconstruction, x)`` of masked nodes.
    """
    return nn.ModuleDict(
        {
            "bgrl": CosineLoss(),
            "barlow_twins": BarlowTwinsLoss(None, eps=1e-15, standardize="unbiased"),
            "graphcl": PairContrastiveLoss(variant="bce", normalize=False),
            "graphmae": CosineLoss(power=2.0),
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
    note="in addition to BPR; the sum of three calls for each layer and for users and items, on "
    "unique ones: the graph's embeddings against those of intents and of both augmentations. "
    "1e-8 is not added to fractions",
)

table_integration = row(
    "table_integration",
    34,
    "SSACL (Robust Table Integration)",
    "Robust Table Integration in Data Lakes.",
    PairContrastiveLoss,
    {"variant": "bce"},
    guess="the logit is a cosine; a third party has the logit of a classifier, whose cross entropy "
    "is no loss of embeddings, and an adversarial term",
    note="cross entropy of pairs of tuples, augmented or perturbed",
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
    source="Coder-Yu/SELFRec",
    guess="both temperatures and the weight of `views` are those of a third party, SELFRec; the "
    "authors released no code",
    note="batch softmax, which takes `log_q`, and two masked views of an item",
)
def ssl_rec() -> nn.ModuleDict:
    """SSL-Rec: Self-supervised Learning for Large-scale Item Recommendations.

    The loss is ``softmax(query, item) + views(view1, view2)``.
    """
    views = InfoNCELoss(0.07, loss_weight=0.1)
    return nn.ModuleDict({"softmax": InfoNCELoss(0.07), "views": views})


#: of MEOW, by data set: temperature, and weight of the prototypes' term
_MEOW = {"acm": (0.4, 1.0), "dblp": (0.9, 1.0), "aminer": (0.9, 0.1)}


@composed(
    77,
    "MEOW, AdaMEOW",
    source="jianxiangyu/MEOW",
    note="the pair weights of AdaMEOW take O(N^2) time",
)
def meow(*, dataset: str = "acm") -> nn.ModuleDict:
    """MEOW: Heterogeneous Graph Contrastive Learning.

    The loss is ``meow(coarse, fine, clusters)`` plus the mean over clusterings of the fine
    embeddings of ``prototypes(coarse, centres, clusters[:, t], density=density)``, with
    ``ProtoNCELoss.density(fine, centres, clusters[:, t], alpha=5, by='product',
    temperature=prototypes.temperature)``. The released code averages over the K prototypes in a
    denominator and multiplies by N, which adds :math:`\\log(N / K)`, a constant, to its second
    term, times its weight.

    ``dataset``: acm, dblp or aminer, with temperatures 0.4, 0.9 and 0.9, and weights 1, 1 and 0.1
    of the second term.
    """
    temperature, weight = setting("dataset", dataset, _MEOW)
    prototypes = ProtoNCELoss(temperature, loss_weight=weight)
    return nn.ModuleDict({"meow": MEOWLoss(temperature), "prototypes": prototypes})


ada_meow = row(
    "ada_meow",
    77,
    "MEOW, AdaMEOW",
    "AdaMEOW: Heterogeneous Graph Contrastive Learning, with learnt weights.",
    AdaMEOWLoss,
    {"temperature": 1.0},
    datasets={
        "acm": {},
        "dblp": {"temperature": 0.9},
        "aminer": {"temperature": 0.9},
        "imdb": {"temperature": 0.9},
    },
    source="jianxiangyu/MEOW",
    note="the pair weights of AdaMEOW take O(N^2) time",
)
