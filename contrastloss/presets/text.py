"""Text: sentences and languages, and a survey."""

from __future__ import annotations

from torch import nn

from ..losses import (
    BankContrastiveLoss,
    BinaryNCELoss,
    CLIPLoss,
    InfoNCELoss,
    MoCoLoss,
    NTXentLoss,
    SimCTGLoss,
)
from .registry import composed, row

__all__ = [
    "biovil",
    "ccp",
    "debcse",
    "dna_esa",
    "heuristic_pretraining",
    "mirror_bert",
    "mirror_bert_words",
    "moe_embed",
    "primer",
    "simctg",
    "vega",
]

dna_esa = row(
    "dna_esa",
    12,
    "DNA-ESA",
    "DNA-ESA: Embed-Search-Align: DNA Sequence Alignment using Transformer Models.",
    InfoNCELoss,
    {"temperature": 0.05},
    source="KennethEnevoldsen/dna2vec",
    note="fragments against sub-reads, in one direction; the code can add a multiple of |0.8 - "
    "mean cosine| of two reads of a fragment",
)

mirror_bert = row(
    "mirror_bert",
    25,
    "Mirror-BERT",
    "Mirror-BERT: Fast, Effective, and Self-Supervised: Transforming Masked Language Models "
    "into Encoders.",
    NTXentLoss,
    {"temperature": 0.04},
    source="cambridgeltl/mirror-bert",
    note="temperature 0.04 for sentences, 0.2 for words",
)

mirror_bert_words = row(
    "mirror_bert_words",
    25,
    "Mirror-BERT",
    "Mirror-BERT, for words.",
    NTXentLoss,
    {"temperature": 0.2},
    source="cambridgeltl/mirror-bert",
)


@composed(
    42,
    "BioViL",
    guess="`images` is CLIP with the temperature of CLIP; `sections` is that of a third party, who "
    "sums both directions; the authors released models only",
    note="images against reports; sections against sections of one report, where `ids` of the "
    "CheXpert labels leave out pairs with the same ones",
)
def biovil() -> nn.ModuleDict:
    """BioViL: Making the Most of Text Semantics to Improve Biomedical Vision-Language
    Processing.
    """
    sections = CLIPLoss(0.5, loss_weight=2.0)
    return nn.ModuleDict({"images": CLIPLoss(0.07), "sections": sections})


heuristic_pretraining = row(
    "heuristic_pretraining",
    51,
    "Heuristic pre-training",
    "Heuristic pre-training: Self-Supervised and Supervised Multi-Task Learning.",
    MoCoLoss,
    guess="that it is MoCo, and its temperature; nobody released code",
    note="momentum contrast, in addition to supervised tasks",
)

vega = row(
    "vega",
    54,
    "Vega v1",
    "Vega v1: Bag of Tricks for Effective Language Model Pretraining and Downstream Adaptation.",
    InfoNCELoss,
    {"temperature": 0.05},
    guess="that the term is SimCSE's, and its temperature; nobody released code",
    note="the term of SimCSE; positives come from dropout",
)


@composed(
    55,
    "Primer on contrastive pretraining",
    guess="temperatures: a survey has no code",
    note="a survey: InfoNCE in one direction, and binary NCE",
)
def primer() -> nn.ModuleDict:
    """A Primer on Contrastive Pretraining in Language Processing."""
    return nn.ModuleDict({"info_nce": InfoNCELoss(), "binary_nce": BinaryNCELoss()})


debcse = row(
    "debcse",
    58,
    "DebCSE",
    "DebCSE: Unsupervised Sentence Embedding Learning in the Debiasing Perspective.",
    InfoNCELoss,
    {"temperature": 0.05},
    guess="the loss after the choice of pairs, SimCSE's with hard negatives; nobody released code",
    note="propensities of surface and of meaning choose the pairs, before the loss: `y` and "
    "`negatives`",
)

ccp = row(
    "ccp",
    68,
    "CCP",
    "CCP: Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval.",
    BankContrastiveLoss,
    guess="the temperature; nobody released code",
    note="one bank per language, whose id is the label",
    uses=("memory.EmbeddingQueue",),
)

simctg = row(
    "simctg",
    69,
    "Contrastive search, SimCTG",
    "SimCTG: Contrastive Search Is What You Need For Neural Text Generation.",
    SimCTGLoss,
    {"margin": 0.5},
    source="yxuansu/SimCTG",
    note="the training loss, the score of candidate tokens, and isotropy",
    uses=("decoding.contrastive_search", "decoding.isotropy"),
)

moe_embed = row(
    "moe_embed",
    73,
    "MoE-embed",
    "MoE-embed: Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings.",
    InfoNCELoss,
    {"temperature": 1 / 20},
    source="UKPLab/sentence-transformers",
    note="multiple negatives ranking with scale 20",
)
