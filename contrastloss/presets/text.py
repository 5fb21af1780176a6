"""Text: sentences and languages, and a survey."""

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


@seed(12, "DNA-ESA", note="fragments against sub-reads, in one direction")
def dna_esa(**options: Any) -> InfoNCELoss:
    """DNA-ESA: Embed-Search-Align: DNA Sequence Alignment using Transformer Models."""
    return InfoNCELoss(**{"temperature": 0.05, **options})


@seed(
    25,
    "Mirror-BERT",
    "presets.mirror_bert_words",
    note="temperature 0.04 for sentences, 0.2 for words",
)
def mirror_bert(**options: Any) -> NTXentLoss:
    """Mirror-BERT: Fast, Effective, and Self-Supervised: Transforming Masked Language Models
    into Encoders.
    """
    return NTXentLoss(**{"temperature": 0.04, **options})


def mirror_bert_words(**options: Any) -> NTXentLoss:
    """Mirror-BERT, for words."""
    return NTXentLoss(**{"temperature": 0.2, **options})


@seed(42, "BioViL", note="images against reports; sections against sections of one report")
def biovil() -> nn.ModuleDict:
    """BioViL: Making the Most of Text Semantics to Improve Biomedical Vision-Language
    Processing.
    """
    return nn.ModuleDict({"images": CLIPLoss(), "sections": CLIPLoss()})


@seed(51, "Heuristic pre-training", note="momentum contrast, in addition to supervised tasks")
def heuristic_pretraining(**options: Any) -> MoCoLoss:
    """Heuristic pre-training: Self-Supervised and Supervised Multi-Task Learning."""
    return MoCoLoss(**options)


@seed(54, "Vega v1", note="the term of SimCSE; positives come from dropout")
def vega(**options: Any) -> InfoNCELoss:
    """Vega v1: Bag of Tricks for Effective Language Model Pretraining and Downstream Adaptation."""
    return InfoNCELoss(**{"temperature": 0.05, **options})


@seed(
    55,
    "Primer on contrastive pretraining",
    note="a survey: InfoNCE in one direction, and binary NCE",
)
def primer() -> nn.ModuleDict:
    """A Primer on Contrastive Pretraining in Language Processing."""
    return nn.ModuleDict({"info_nce": InfoNCELoss(), "binary_nce": BinaryNCELoss()})


@seed(
    58,
    "DebCSE",
    note="the batch's own columns are given: `negatives=y`, with `negatives_log_q`, the "
    "log-propensity of each, and `ids` and `negatives_ids`, which leave out a row's own",
)
def debcse(**options: Any) -> InfoNCELoss:
    """DebCSE: Unsupervised Sentence Embedding Learning in the Debiasing Perspective."""
    return InfoNCELoss(**{"temperature": 0.05, "in_batch_negatives": False, **options})


@seed(68, "CCP", "memory.EmbeddingQueue", note="one bank per language, whose id is the label")
def ccp(**options: Any) -> BankContrastiveLoss:
    """CCP: Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval."""
    return BankContrastiveLoss(**options)


@seed(
    69, "Contrastive search, SimCTG", "decoding.contrastive_search", "decoding.isotropy",
    note="the training loss, the score of candidate tokens, and isotropy",
)  # fmt: skip
def simctg(**options: Any) -> SimCTGLoss:
    """SimCTG: Contrastive Search Is What You Need For Neural Text
    Generation.
    """
    return SimCTGLoss(**{"margin": 0.5, **options})


@seed(73, "MoE-embed", note="multiple negatives ranking with scale 20")
def moe_embed(**options: Any) -> InfoNCELoss:
    """MoE-embed: Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings."""
    return InfoNCELoss(**{"temperature": 1 / 20, **options})
