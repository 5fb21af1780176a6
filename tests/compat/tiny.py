"""A sentence encoder of random weights, in fp64, and its texts."""

import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = [f"w{k}" for k in range(60)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def encoder(seed=0, words=WORDS, dim=16):
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join([*SPECIAL, *words]))
        BertTokenizerFast(str(Path(folder) / "vocab.txt")).save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(words) + len(SPECIAL), hidden_size=dim, num_hidden_layers=1,
            num_attention_heads=2, intermediate_size=dim, max_position_embeddings=32,
            hidden_dropout_prob=0.1,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
        transformer = Transformer(folder)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[transformer, pooling], device="cpu").double()


def texts(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 7, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[k] for k in torch.randint(len(WORDS), (length,), generator=generator))
        for length in lengths
    ]


def features(model, columns, count):
    return [model.preprocess(texts(count, seed)) for seed in range(columns)]
