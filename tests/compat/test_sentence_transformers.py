"""sentence-transformers' in-batch losses, beside version 6.2."""

import itertools
import logging

import pytest
import torch
from sentence_transformers import util
from sentence_transformers.sentence_transformer import losses as theirs

from compat import over_ranks, tiny
from compat.agree import agree, close, leaf, over_the_ranks
from contrastloss.compat import hand_over, sentence_transformers as ours

DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
HARDNESS = (None, "in_batch_negatives", "hard_negatives", "all_negatives")
SIZES = [(1, 1), (2, 3), (17, 5), (64, 16), (65, 8), (130, 7)]
sizes = pytest.mark.parametrize(("n", "d"), SIZES, ids=str)
RANKING = ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss")


@pytest.fixture
def said(caplog):
    hand_over.say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "contrastloss.compat"):
        yield caplog


@pytest.fixture(scope="module")
def model():
    return tiny.encoder()


def both(name, *args, **options):
    return [getattr(library, name)(*args, **options) for library in (ours, theirs)]


def of_embeddings(loss):
    return lambda *embeddings: loss.compute_loss_from_embeddings(list(embeddings), None)


def of_parts(loss):
    """A cached loss, of embeddings in two parts each."""
    return lambda *embeddings: loss.calculate_loss([list(e.tensor_split(2)) for e in embeddings])


def evaluated(name):
    return of_parts if name.startswith("Cached") else of_embeddings


# ---- ranking -------------------------------------------------------------------------------------


@sizes
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("hardness", HARDNESS)
@pytest.mark.parametrize("name", RANKING)
def test_ranking(said, model, name, hardness, columns, n, d):
    given = [leaf(n, d) for _ in range(1 + columns)]
    options = {"hardness_mode": hardness, "hardness_strength": 9.0 if hardness else 0.0}
    for similarity in (util.cos_sim, util.dot_score):
        losses = both(name, model, similarity_fct=similarity, scale=7.5, **options)
        agree(*map(evaluated(name), losses), given, given)
    assert not said.records


WAYS = [
    (("query_to_doc", *more), mode)
    for count in range(4)
    for more in itertools.combinations(DIRECTIONS[1:], count)
    for mode in ("joint", "per_direction")
    if mode == "joint" or not {"query_to_query", "doc_to_doc"} & {*more}
]


@pytest.mark.parametrize(("directions", "mode"), WAYS, ids=str)
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("name", RANKING)
def test_directions(said, model, name, columns, directions, mode):
    options = {"directions": directions, "partition_mode": mode}
    for n, hardness in ((2, None), (33, None), (33, "all_negatives")):
        given = [leaf(n, 6) for _ in range(1 + columns)]
        hard = {"hardness_mode": hardness, "hardness_strength": 2.0 if hardness else 0.0}
        agree(*map(evaluated(name), both(name, model, **options, **hard)), given, given)
    assert not said.records


@sizes
def test_symmetric_ranking(said, model, n, d):
    name, given = "MultipleNegativesSymmetricRankingLoss", [leaf(n, d), leaf(n, d)]
    agree(*map(of_embeddings, both(name, model)), given, given)
    losses = both(name, model, 5.0, util.dot_score)
    agree(*map(of_embeddings, losses), given, given)
    assert losses[0].get_config_dict() == losses[1].get_config_dict()
    assert not said.records


def clipped(a, b):
    return util.cos_sim(a, b).clamp(-0.5, 0.5)


@pytest.mark.parametrize("name", RANKING)
def test_another_similarity_is_handed_over(said, model, name):
    given = [leaf(9, 5), leaf(9, 5)]
    for _ in range(2):
        agree(*map(evaluated(name), both(name, model, similarity_fct=clipped)), given, given)
    (record,) = said.records
    expected = f"{name}: similarity_fct=clipped is computed by sentence-transformers"
    assert record.getMessage() == expected


@pytest.mark.parametrize("name", RANKING)
def test_errors_and_what_they_say_of_themselves(model, name):
    for options in ({"scale": 0.0}, {"directions": ("doc_to_doc",)}, {"hardness_mode": "hard"}):
        for library in (ours, theirs):
            with pytest.raises(ValueError, match=r"\w"):
                getattr(library, name)(model, **options)
    mine, other = both(name, model, scale=4.0, hardness_mode="all_negatives", hardness_strength=1.0)
    assert mine.get_config_dict() == other.get_config_dict()
    assert (mine.temperature, mine.citation) == (other.temperature, other.citation)
    assert mine.model is model
    with pytest.raises(ValueError, match="Expected at least 2"):
        mine([{}], None) if name.startswith("Cached") else of_embeddings(mine)(leaf(2, 2))


@pytest.mark.parametrize("directions", [DIRECTIONS[:1], DIRECTIONS], ids=len)
@pytest.mark.parametrize("hardness", [None, "hard_negatives"])
@pytest.mark.parametrize("columns", [1, 2])
def test_ranking_over_ranks(world, columns, hardness, directions):
    over_the_ranks(world, over_ranks.ranking, 1 + columns, columns, hardness, directions)


# ---- guided --------------------------------------------------------------------------------------


def guided(loss, guide):
    """The cached loss, of embeddings and a guide's."""

    def evaluate(*embeddings):
        parts = [[list(e.tensor_split(2)) for e in side] for side in (embeddings, guide)]
        return loss.calculate_loss(*parts)

    return evaluate


@sizes
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
def test_guided(said, model, strategy, columns, n, d):
    given = [leaf(n, d) for _ in range(1 + columns)]
    centre = torch.randn(n, 6, dtype=torch.float64)  # the guide finds what belongs together
    guide = [centre + 0.5 * torch.randn_like(centre) for _ in given]
    for margin, anchors, positives in ((0.0, True, True), (0.3, True, False), (0.1, False, True)):
        options = {"contrast_anchors": anchors, "contrast_positives": positives}
        losses = both(
            "CachedGISTEmbedLoss", model, model, temperature=0.1, margin=margin,
            margin_strategy=strategy, **options,
        )  # fmt: skip
        agree(*[guided(loss, guide) for loss in losses], given, given)
    assert not said.records


def test_a_negative_margin_is_handed_over(said, model):
    given, guide = [leaf(9, 5), leaf(9, 5)], [leaf(9, 4).detach(), leaf(9, 4).detach()]
    losses = both("CachedGISTEmbedLoss", model, model, margin=-0.4)
    agree(*[guided(loss, guide) for loss in losses], given, given)
    assert "CachedGISTEmbedLoss: a negative margin is computed by" in said.text


# ---- triplets ------------------------------------------------------------------------------------

COSINE = theirs.BatchHardTripletLossDistanceFunction.cosine_distance
EUCLIDEAN = theirs.BatchHardTripletLossDistanceFunction.euclidean_distance
TRIPLETS = [
    ("BatchAllTripletLoss", COSINE),
    ("BatchHardTripletLoss", COSINE),
    ("BatchHardTripletLoss", EUCLIDEAN),
    ("BatchSemiHardTripletLoss", COSINE),
]


def labelled(loss, labels):
    return lambda z: loss.compute_loss_from_embeddings([z], labels)


@pytest.mark.parametrize(("name", "distance"), TRIPLETS, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize(("n", "classes", "d"), [(2, 1, 3), (9, 3, 5), (33, 12, 4), (70, 6, 8)])
def test_triplets(said, model, name, distance, n, classes, d):
    for margin in (5, 0.3):
        losses = both(name, model, distance_metric=distance, margin=margin)
        for labels in (torch.randint(classes, (n,)), torch.randint(classes, (n, 1)).double()):
            z = leaf(n, d)
            agree(*[labelled(loss, labels) for loss in losses], (z,), [z])
        assert losses[0].get_config_dict() == losses[1].get_config_dict()
    assert not said.records


@pytest.mark.parametrize(("name", "distance"), TRIPLETS, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("labels", [[0] * 6, [*range(6)], [0, 0, 1, 2], [0]], ids=str)
def test_rows_without_positives_or_negatives(model, name, distance, labels):
    z, labels = leaf(len(labels), 4), torch.tensor(labels)
    for margin in (5, 0.05):
        losses = both(name, model, distance_metric=distance, margin=margin)
        agree(*[labelled(loss, labels) for loss in losses], (z,), [z])


@pytest.mark.parametrize("name", ["BatchAllTripletLoss", "BatchSemiHardTripletLoss"])
def test_euclidean_triplets_are_handed_over(said, model, name):
    z, labels = leaf(17, 4), torch.randint(4, (17,))
    for _ in range(2):
        agree(*[labelled(loss, labels) for loss in both(name, model)], (z,), [z])
    (record,) = said.records
    assert "distance_metric=euclidean_distance is computed by" in record.getMessage()


def test_labels_that_do_not_fit(model):
    for loss in both("BatchHardTripletLoss", model):
        with pytest.raises(ValueError, match="expects 3 labels"):
            labelled(loss, torch.zeros(2))(leaf(3, 2))


# ---- models --------------------------------------------------------------------------------------


def through_a_model(name, columns, labels=None, around=lambda model, loss: loss, **options):
    """The loss of a model's texts, and the gradients of its weights, with dropout."""
    model = tiny.encoder().train()
    found = []
    for library in (ours, theirs):
        guide = (tiny.encoder(1, tiny.WORDS[::-1]),) if "GIST" in name else ()
        loss = around(model, getattr(library, name)(model, *guide, **options))
        model.zero_grad()
        torch.manual_seed(3)
        value = loss(tiny.features(model, columns, 9), labels)
        value.backward()
        found.append(
            (value.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None])
        )
    close(*found, name)
    assert found[0][1]


WHOLE = [
    ("MultipleNegativesRankingLoss", 3, {}),
    ("CachedMultipleNegativesRankingLoss", 3, {"mini_batch_size": 4}),
    ("GISTEmbedLoss", 2, {"temperature": 0.1}),
    ("GISTEmbedLoss", 3, {"temperature": 0.1}),
    ("CachedGISTEmbedLoss", 3, {"mini_batch_size": 4, "temperature": 0.1}),
]


@pytest.mark.parametrize(("name", "columns", "options"), WHOLE, ids=str)
def test_through_a_model(name, columns, options):
    through_a_model(name, columns, **options)


@pytest.mark.parametrize("name", ["BatchHardTripletLoss", "BatchAllTripletLoss"])
def test_labels_through_a_model(name):
    through_a_model(name, 1, torch.arange(9) % 3)


@pytest.mark.parametrize("name", RANKING)
def test_matryoshka(name):
    def around(model, loss):
        return theirs.MatryoshkaLoss(model, loss, [16, 8, 4])

    through_a_model(name, 2, around=around)
