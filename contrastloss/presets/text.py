"""Text: sentences, languages, and surveys of them."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..losses import (
    BankContrastiveLoss,
    BinaryNCELoss,
    CLIPLoss,
    InfoNCELoss,
    MoCoLoss,
    NTXentLoss,
    SimCTGLoss,
    WeightedInfoNCELoss,
)
from .registry import seed

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


@seed(12, "DNA-ESA", note="fragments against sub-reads, one way")
def dna_esa(**options: Any) -> InfoNCELoss:
    """Embed-Search-Align: DNA Sequence Alignment using Transformer Models."""
    return InfoNCELoss(**{"temperature": 0.05, **options})


@seed(25, "Mirror-BERT", "presets.mirror_bert_words", note="sentences 0.04, words 0.2")
def mirror_bert(**options: Any) -> NTXentLoss:
    """Fast, Effective, and Self-Supervised: Transforming Masked Language Models into Encoders."""
    return NTXentLoss(**{"temperature": 0.04, **options})


def mirror_bert_words(**options: Any) -> NTXentLoss:
    """Mirror-BERT, of words."""
    return NTXentLoss(**{"temperature": 0.2, **options})


@seed(42, "BioViL", note="images against reports; sections against sections of one report")
def biovil() -> nn.ModuleDict:
    """Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing."""
    return nn.ModuleDict({"images": CLIPLoss(), "sections": CLIPLoss()})


@seed(51, "Heuristic pre-training", note="the momentum contrast beside supervised tasks")
def heuristic_pretraining(**options: Any) -> MoCoLoss:
    """Self-Supervised and Supervised Multi-Task Learning."""
    return MoCoLoss(**options)


@seed(54, "Vega v1", note="SimCSE's term, positives by dropout")
def vega(**options: Any) -> InfoNCELoss:
    """Bag of Tricks for Effective Language Model Pretraining and Downstream Adaptation."""
    return InfoNCELoss(**{"temperature": 0.05, **options})


@seed(55, "Primer on contrastive pretraining", note="a survey: one-way InfoNCE and binary NCE")
def primer() -> nn.ModuleDict:
    """A Primer on Contrastive Pretraining in Language Processing."""
    return nn.ModuleDict({"info_nce": InfoNCELoss(), "binary_nce": BinaryNCELoss()})


@seed(58, "DebCSE", note="log-propensities of negatives as `log_q`")
def debcse(**options: Any) -> WeightedInfoNCELoss:
    """Unsupervised Sentence Embedding Learning in the Debiasing Perspective."""
    return WeightedInfoNCELoss(**{"temperature": 0.05, "correct_positive": False, **options})


@seed(68, "CCP", "memory.EmbeddingQueue", note="a bank per language: its id is the label")
def ccp(**options: Any) -> BankContrastiveLoss:
    """Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval."""
    return BankContrastiveLoss(**options)


@seed(
    69, "Contrastive search, SimCTG", "decoding.contrastive_search", "decoding.isotropy",
    note="training, the score of candidate tokens, and isotropy",
)  # fmt: skip
def simctg(**options: Any) -> SimCTGLoss:
    """Contrastive Search Is What You Need For Neural Text Generation."""
    return SimCTGLoss(**{"margin": 0.5, **options})


@seed(73, "MoE-embed", note="multiple negatives ranking of scale 20")
def moe_embed(**options: Any) -> InfoNCELoss:
    """Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings."""
    return InfoNCELoss(**{"temperature": 1 / 20, **options})
