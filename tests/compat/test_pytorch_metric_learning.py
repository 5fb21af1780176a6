"""pytorch-metric-learning's losses and miners, beside version 2.9."""

import logging

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from compat.agree import agree, close, gradients, leaf
from contrastloss.compat import hand_over, pytorch_metric_learning as ours

COSINE = distances.CosineSimilarity


def dot():
    return distances.DotProductSimilarity(normalize_embeddings=False)


#: options with which a class is computed here
FUSED = {
    "NTXentLoss": {},
    "SupConLoss": {},
    "MultiSimilarityLoss": {},
    "CircleLoss": {},
    "ContrastiveLoss": {"distance": COSINE(), "pos_margin": 0.9, "neg_margin": 0.1},
    "TripletMarginLoss": {"distance": COSINE(), "margin": 0.2},
}
SIZES = [(2, 1, 3), (3, 2, 2), (9, 3, 5), (17, 4, 8), (65, 20, 7), (130, 9, 6)]
sizes = pytest.mark.parametrize(("n", "classes", "d"), SIZES, ids=str)
named = pytest.mark.parametrize("name", FUSED)


@pytest.fixture
def said(caplog):
    hand_over.say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "contrastloss.compat"):
        yield caplog


def both(name, **options):
    return [getattr(library, name)(**options) for library in (ours, losses)]


@named
@sizes
def test_labels(said, name, n, classes, d):
    z, labels = leaf(n, d), torch.randint(classes, (n,))
    agree(*both(name, **FUSED[name]), (z, labels), [z])
    assert not said.records


@named
@pytest.mark.parametrize(
    "labels", [[0] * 6, [*range(6)], [0, 0, 1], [7], [3, 3], [1, 2], []], ids=str
)
def test_few_pairs(name, labels):
    """Of one class, of classes of one, of one or two rows: their losses are 0 times the
    embeddings then, and so are the gradients."""
    z, labels = leaf(len(labels), 4), torch.tensor(labels, dtype=torch.int64)
    agree(*both(name, **FUSED[name]), (z, labels), [z])


@named
@pytest.mark.parametrize("alike", [False, True], ids=["own labels", "the same labels"])
def test_references(name, alike):
    """A row is its own positive only where references have labels of their own."""
    z, ref, labels = leaf(14, 5), leaf(14, 5), torch.randint(4, (14,))
    others = labels if alike else torch.randint(4, (14,))
    given = {"ref_emb": ref, "ref_labels": others}
    agree(*both(name, **FUSED[name]), (z, labels), [z, ref], **given)
    agree(*both(name, **FUSED[name]), (z, labels), [z, ref], ref_emb=ref)
    if not alike:
        few = {"ref_emb": ref[:1], "ref_labels": labels[:1]}
        agree(*both(name, **FUSED[name]), (z[:2], labels[:2]), [z, ref], **few)


@named
@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.float32, torch.bool])
def test_kinds_of_labels(name, kind):
    z, labels = leaf(12, 5), torch.randint(2, (12,)).to(kind)
    agree(*both(name, **FUSED[name]), (z, labels), [z])


OPTIONS = [
    ("NTXentLoss", {"temperature": 0.5}),
    ("NTXentLoss", {"distance": dot(), "temperature": 2.0}),
    ("SupConLoss", {"temperature": 0.02}),
    ("SupConLoss", {"distance": dot(), "reducer": reducers.MeanReducer()}),
    ("MultiSimilarityLoss", {"alpha": 1, "beta": 20.5, "base": 0.1}),
    ("CircleLoss", {"m": 0.25, "gamma": 256}),
    ("ContrastiveLoss", {**FUSED["ContrastiveLoss"], "reducer": reducers.MeanReducer()}),
    ("ContrastiveLoss", {"distance": dot(), "pos_margin": 1, "neg_margin": -0.5}),
    ("TripletMarginLoss", {**FUSED["TripletMarginLoss"], "reducer": reducers.MeanReducer()}),
    ("TripletMarginLoss", {"distance": dot(), "margin": 0.5}),
    *[(name, {**options, "embedding_regularizer": regularizers.LpRegularizer(),
              "embedding_reg_weight": 0.3}) for name, options in FUSED.items()],
    *[(name, {"reducer": reducers.PerAnchorReducer()}) for name in ("SupConLoss", "CircleLoss")],
    *[(name, {"reducer": reducers.ThresholdReducer(low=0.4)})
      for name in ("SupConLoss", "MultiSimilarityLoss")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_options(said, name, options):
    for classes in (1, 5):
        z, labels = leaf(23, 6), torch.randint(classes, (23,))
        agree(*both(name, **options), (z, labels), [z])
    assert not said.records


HANDED_OVER = [
    ("NTXentLoss", {"distance": distances.LpDistance()}, "LpDistance(p=2, power=1)"),
    (
        "SupConLoss",
        {"distance": distances.CosineSimilarity(power=2)},
        "CosineSimilarity(p=2, po",
    ),
    ("NTXentLoss", {"reducer": reducers.AvgNonZeroReducer()}, "AvgNonZeroReducer"),
    ("MultiSimilarityLoss", {"collect_stats": True}, "collect_stats"),
    ("ContrastiveLoss", {}, "LpDistance(p=2, power=1)"),
    ("TripletMarginLoss", {}, "LpDistance(p=2, power=1)"),
    ("TripletMarginLoss", {"distance": COSINE(), "swap": True}, "swap=True"),
    ("TripletMarginLoss", {"distance": COSINE(), "smooth_loss": True}, "smooth_loss=True"),
]


@pytest.mark.parametrize(("name", "options", "reason"), HANDED_OVER, ids=str)
def test_what_is_handed_over(said, name, options, reason):
    z, labels = leaf(17, 6), torch.randint(5, (17,))
    for _ in range(2):
        agree(*both(name, **options), (z, labels), [z])
    (record,) = said.records
    assert record.getMessage().startswith(f"{name}: {reason}")
    assert record.getMessage().endswith(" is computed by pytorch-metric-learning")


# ---- the library's own parts around them ---------------------------------------------------------


@named
@pytest.mark.parametrize("miner", ["MultiSimilarityMiner", "BatchHardMiner", "TripletMarginMiner"])
def test_with_miners(name, miner):
    z, labels = leaf(33, 6), torch.randint(6, (33,))
    mined = getattr(miners, miner)(distance=COSINE())(z, labels)
    agree(*both(name, **FUSED[name]), (z, labels, mined), [z])


@named
@pytest.mark.parametrize("symmetric", [True, False])
def test_self_supervised(name, symmetric):
    x, y = leaf(13, 6), leaf(13, 6)
    wrapped = (losses.SelfSupervisedLoss(loss, symmetric) for loss in both(name, **FUSED[name]))
    agree(*wrapped, (x, y), [x, y])


@named
@pytest.mark.parametrize("miner", [None, "MultiSimilarityMiner"])
def test_cross_batch_memory(name, miner):
    """Seven batches, which fill the memory and begin again."""
    mine = (
        [None, None] if miner is None else [getattr(library, miner)() for library in (ours, miners)]
    )
    memories = [
        losses.CrossBatchMemory(loss, 6, memory_size=20, miner=m)
        for loss, m in zip(both(name, **FUSED[name]), mine, strict=True)
    ]
    for _ in range(7):
        z, labels = leaf(9, 6), torch.randint(4, (9,))
        agree(*memories, (z, labels), [z])
        close(memories[0].embedding_memory, memories[1].embedding_memory, "memory")


@named
def test_all_scores_are_not_in_memory(name):
    """A tensor of N x N is never made: saved for backward, nothing has as many elements."""
    z, labels = leaf(300, 4), torch.randint(100, (300,))
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    ):
        getattr(ours, name)(**FUSED[name])(z, labels)
    assert max(sizes) <= 300 * 32


# ---- miners --------------------------------------------------------------------------------------

MINERS = [
    ("BatchHardMiner", {}),
    ("MultiSimilarityMiner", {"epsilon": 0.2}),
    ("PairMarginMiner", {"pos_margin": 0.5, "neg_margin": 0.1}),
    *[("TripletMarginMiner", {"margin": 0.3, "type_of_triplets": kind})
      for kind in ("all", "hard", "semihard", "easy")],
]  # fmt: skip


def tuples(found):
    """The positive and the negative pairs, or the triplets."""
    parts = [found] if len(found) == 3 else [found[:2], found[2:]]
    return [sorted(zip(*(index.tolist() for index in part), strict=True)) for part in parts]


@pytest.mark.parametrize(("name", "options"), MINERS, ids=str)
@pytest.mark.parametrize("reference", [False, True])
@sizes
def test_mined(said, name, options, reference, n, classes, d):
    given = [leaf(n, d).detach(), torch.randint(classes, (n,))]
    if reference:
        given += [leaf(n + 3, d).detach(), torch.randint(classes, (n + 3,))]
    found, want = (
        getattr(library, name)(distance=COSINE(), **options)(*given) for library in (ours, miners)
    )
    assert tuples(found) == tuples(want)
    assert len(found) == len(want)
    assert not said.records


def test_the_hardest_negatives_alone():
    z, labels = leaf(40, 6).detach(), torch.randint(5, (40,))
    few = ours.MultiSimilarityMiner(k=2, epsilon=0.5)(z, labels)
    every = miners.MultiSimilarityMiner(epsilon=0.5)(z, labels)
    assert torch.equal(few[0].sort().values, every[0].sort().values)
    assert (
        few[2].bincount(minlength=40).tolist()
        == every[2].bincount(minlength=40).clamp_max(2).tolist()
    )


def test_a_miner_that_is_handed_over(said):
    z, labels = leaf(20, 6).detach(), torch.randint(5, (20,))
    for _ in range(2):
        found, want = ours.BatchHardMiner()(z, labels), miners.BatchHardMiner()(z, labels)
        assert tuples(found) == tuples(want)
    (record,) = said.records
    assert record.getMessage().startswith("BatchHardMiner: LpDistance(p=2, power=1) is mined by")


def test_gradients_of_a_mined_loss():
    z, labels = leaf(33, 6), torch.randint(6, (33,))
    mined = ours.MultiSimilarityMiner()(z, labels)
    mine, other = both("MultiSimilarityLoss")
    close(*(gradients(loss(z, labels, mined), [z])[0] for loss in (mine, other)), "gradient")
