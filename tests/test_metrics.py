"""Metrics equal those of scikit-learn and torchmetrics, and formulas over dense scores; ties are as
documented; memory holds blocks."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from contrastloss import AlignmentUniformityLoss
from contrastloss.metrics import (
    alignment,
    knn_accuracy,
    mean_average_precision,
    mean_reciprocal_rank,
    mean_similarities,
    recall_at_k,
    search,
    similarity_histogram,
    uniformity,
)

#: queries, columns (None: the other queries), classes
SIZES = [(1, 1, 1), (2, None, 1), (7, 5, 3), (31, None, 4), (33, 130, 9), (130, 65, 2)]
operators = pytest.mark.operators("pair_stats", "pair_topk", "gather_scores")


class Case:
    """Embeddings, the three ways to say what is relevant, dense scores and which are relevant."""

    def __init__(self, n, m, classes, how, *, device="cpu", whole=False, seed=0):
        g = torch.Generator().manual_seed(seed + 1000 * n)
        draw = (lambda *s: torch.randint(-1, 2, s, generator=g).double()) if whole else None
        draw = draw or (lambda *s: torch.randn(*s, generator=g, dtype=torch.float64))
        x = draw(n, 6)
        y = x if m is None else draw(m, 6)
        labels, cols = (torch.randint(classes, (len(v),), generator=g) for v in (x, y))
        cols = labels if m is None else cols
        self.scores = x @ y.T if whole else normalize(x) @ normalize(y).T
        if how == "labels":
            self.relevant = labels[:, None] == cols
            given = {"labels": labels, "corpus_labels": None if m is None else cols}
        elif how == "positives":  # some twice, some missing, some the query itself
            index = torch.randint(-1, len(y), (n, 4), generator=g)
            self.relevant = (index[:, :, None] == torch.arange(len(y))).any(1)
            given = {"positives": index}
        else:
            self.relevant, given = torch.eye(n, len(y), dtype=torch.bool), {}
        if m is None:
            own = torch.eye(n, dtype=torch.bool)
            self.scores[own], self.relevant[own] = -torch.inf, False
        self.there = self.scores > -torch.inf
        self.counted = self.relevant.any(1)
        self.labels, self.cols = labels, cols
        given = {**given, "queries": x, "corpus": None if m is None else y, "normalize": not whole}
        self.given = {
            k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()
        }
        # best first; among equal scores the smaller column first
        self.order = self.scores.argsort(dim=1, descending=True, stable=True)
        self.hits = self.relevant.gather(1, self.order)

    def mean(self, values):
        """Of the values of rows, NaN where nothing is relevant; and those values."""
        values = torch.stack([torch.as_tensor(v, dtype=torch.float64) for v in values])
        values[~self.counted] = torch.nan
        return values[self.counted].mean(0), values


def cases():
    for n, m, classes in SIZES:
        for how in ("labels", "positives", "rows"):
            if how != "rows" or (m is not None and m >= n):
                yield pytest.param(n, m, classes, how, id=f"{n}-{m}-{how}")


CASES = list(cases())


def agree(metric, expected, *, tolerance=1e-12, **given):
    """With both reductions."""
    mean, values = expected
    for reduction, wanted in (("mean", mean), ("none", values)):
        found = metric(reduction=reduction, **given)
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=tolerance, equal_nan=True)


def average_precision(relevant, scores):
    """At every threshold, ties included, as of scikit-learn."""
    found = [
        (relevant & (scores >= s)).sum().item() / (scores >= s).sum().item()
        for s in scores[relevant]
    ]
    return sum(found) / max(len(found), 1)


@operators
@pytest.mark.parametrize(("n", "m", "classes", "how"), CASES)
@pytest.mark.parametrize("whole", [False, True], ids=["cosines", "ties"])
def test_formulas(n, m, classes, how, whole, backend, device, monkeypatch):
    """Integer vectors have many equal inner products."""
    monkeypatch.setattr(search, "ENTRIES", 400)
    case = Case(n, m, classes, how, device=device, whole=whole)
    given, hits = {**case.given, "backend": backend}, case.hits.double()
    count = hits.sum(1)
    ks = (1, 3, 140)
    shares = [[row[:k].sum() / row.sum() for k in ks] for row in hits]
    agree(recall_at_k, case.mean([torch.stack(row) for row in shares]), ks=ks, **given)
    hit = [torch.tensor([float(row[:k].any()) for k in ks]) for row in hits]
    agree(recall_at_k, case.mean(hit), ks=ks, any_hit=True, **given)
    for k in ks:
        ranks = torch.arange(1, hits.shape[1] + 1)
        first = (hits * (ranks <= k) / ranks).amax(1)
        agree(mean_reciprocal_rank, case.mean(first), k=k, **given)
        sums = (hits * (ranks <= k) * hits.cumsum(1) / ranks).sum(1)
        agree(mean_average_precision, case.mean(sums / count.clamp(1, k)), k=k, **given)
    rows = list(zip(case.relevant, case.scores, strict=True))
    best = [1 / (1 + (~r & (s >= s[r].max())).sum().item()) if r.any() else 0.0 for r, s in rows]
    agree(mean_reciprocal_rank, case.mean(best), **given)
    agree(mean_average_precision, case.mean([average_precision(*row) for row in rows]), **given)


@pytest.mark.parametrize(("n", "m", "classes", "how"), CASES)
def test_scikit_learn_and_torchmetrics(n, m, classes, how):
    sk = pytest.importorskip("sklearn.metrics")
    case = Case(n, m, classes, how)
    rows = [
        (r[t].numpy(), s[t].numpy())
        for r, s, t in zip(case.relevant, case.scores, case.there, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows without a positive
        scores = [sk.average_precision_score(*row) if row[0].any() else 0.0 for row in rows]
    agree(mean_average_precision, case.mean(scores), **case.given)
    tm = pytest.importorskip("torchmetrics.functional.retrieval")
    # ranks for scores: it computes in fp32, and takes scores of at most 0 for irrelevant
    rows = [(torch.from_numpy(s.argsort().argsort() + 1.0), torch.from_numpy(r)) for r, s in rows]
    given = {**case.given, "tolerance": 1e-6}
    found = [tm.retrieval_average_precision(*row) for row in rows]
    agree(mean_average_precision, case.mean(found), **given)
    found = [tm.retrieval_reciprocal_rank(*row) for row in rows]
    agree(mean_reciprocal_rank, case.mean(found), **given)
    for function, any_hit in ((tm.retrieval_recall, False), (tm.retrieval_hit_rate, True)):
        found = [torch.stack([function(*row, top_k=k) for k in (1, 4)]) for row in rows]
        agree(recall_at_k, case.mean(found), ks=(1, 4), any_hit=any_hit, **given)


def test_ties_among_ranks_are_those_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    case = Case(40, 60, 5, "labels", whole=True)
    relevant, scores = case.relevant.numpy(), case.scores.numpy()
    expected = [sk.average_precision_score(*row) for row in zip(relevant, scores, strict=True)]
    agree(mean_average_precision, case.mean(expected), **case.given)
    mean = sk.label_ranking_average_precision_score(relevant, scores)
    assert mean_average_precision(**case.given).item() == pytest.approx(mean)


def test_embeddings_that_are_all_the_same_get_no_credit():
    x = torch.randn(1, 7).expand(9, 7)
    assert recall_at_k(x, x, (1, 2, 9)).tolist() == pytest.approx([1 / 9, 2 / 9, 1])
    assert mean_reciprocal_rank(x, x).item() == pytest.approx(1 / 9)
    assert mean_reciprocal_rank(x, x, k=9).item() == pytest.approx(
        sum(1 / r for r in range(1, 10)) / 9
    )
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    of_labels = 3 * (2 / 8) + 6 * (5 / 8)
    assert mean_average_precision(x, labels=labels).item() == pytest.approx(of_labels / 9)
    ahead = 3 * (1 / 7) + 6 * (1 / 4)
    assert mean_reciprocal_rank(x, labels=labels).item() == pytest.approx(ahead / 9)


def test_copies_in_fp32_are_ties(device):
    """Other orders of the same products differ in the last digits."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(65, 300, generator=g).to(device)
    y = torch.cat([x, x, x[:, torch.randperm(300, generator=g)]])
    for scale in (1, 1e3, 1e-9):
        given = {"normalize": scale == 1, "reduction": "none"}
        found = mean_average_precision(scale * x, scale * y, **given)
        torch.testing.assert_close(found, torch.full_like(found, 0.5))


# ---- neighbours ----------------------------------------------------------------------------------


@operators
@pytest.mark.parametrize(("n", "m", "classes"), SIZES)
@pytest.mark.parametrize(("k", "temperature"), [(1, None), (4, None), (20, 0.1), (200, None)])
def test_neighbors_are_those_of_scikit_learn(n, m, classes, k, temperature, backend, device):
    neighbors = pytest.importorskip("sklearn.neighbors")
    case = Case(n, m, classes, "labels", device=device)
    weights = "uniform" if temperature is None else lambda d: np.exp((1 - d) / temperature)
    z = case.given["queries"].cpu().numpy()
    y = z if m is None else case.given["corpus"].cpu().numpy()
    right = []
    for i in range(n):
        others = [j for j in range(len(y)) if m is not None or j != i]
        model = neighbors.KNeighborsClassifier(
            min(k, len(others)), weights=weights, metric="cosine", algorithm="brute"
        )
        model.fit(y[others], case.cols[others].numpy())
        right.append(model.predict(z[i : i + 1])[0] == case.labels[i].item())
    given = {name: case.given[name] for name in ("queries", "corpus", "labels", "corpus_labels")}
    found = knn_accuracy(**given, k=k, temperature=temperature, backend=backend)
    assert found.item() == pytest.approx(np.mean(right))


def test_the_smallest_of_labels_with_the_same_votes():
    corpus, labels = torch.tensor([[1.0], [1.0], [1.0], [1.0]]), torch.tensor([5, -3, 5, -3])
    found = [
        knn_accuracy(torch.ones(1, 1), torch.tensor([c]), corpus, labels, k=k).item()
        for k, c in ((1, 5), (2, -3), (3, 5), (4, -3))
    ]
    assert found == [1.0] * 4


# ---- distributions -------------------------------------------------------------------------------


@operators
@pytest.mark.parametrize(("n", "m", "classes", "how"), CASES)
def test_means_and_histograms(n, m, classes, how, backend, device):
    case = Case(n, m, classes, how, device=device)
    given = {**case.given, "backend": backend}
    parts = [case.scores[case.relevant], case.scores[case.there & ~case.relevant]]
    found = mean_similarities(**given)
    for value, part in zip(found, parts, strict=True):
        torch.testing.assert_close(value.cpu(), part.mean(), equal_nan=True)
    for bins, low, high in ((1, -1.0, 1.0), (20, -1.0, 1.0), (9, -0.3, 0.2)):
        found = similarity_histogram(bins=bins, low=low, high=high, **given)
        edges = np.linspace(low, high, bins + 1)
        np.testing.assert_allclose(found.edges.cpu(), edges, atol=1e-15)
        for count, part in zip(found[1:], parts, strict=True):
            expected, _ = np.histogram(part.clamp(low, high), edges)
            np.testing.assert_array_equal(count.cpu(), expected)


@pytest.mark.parametrize("n", [2, 3, 65])
def test_alignment_and_uniformity_are_those_of_the_loss(n, backend, device):
    g = torch.Generator().manual_seed(n)
    x, y = torch.randn(2, n, 5, generator=g, dtype=torch.float64).to(device)
    x[0] = 0
    for alpha, t in ((2.0, 2.0), (1.0, 0.5)):
        expected = AlignmentUniformityLoss(alpha=alpha, weight=0.0)(x, y)
        torch.testing.assert_close(alignment(x, y, alpha=alpha), expected)
        whole, apart = (AlignmentUniformityLoss(t=t, weight=w)(x, x) for w in (1.0, 0.0))
        torch.testing.assert_close(uniformity(x, t=t, backend=backend), whole - apart)
    spread = torch.cdist(normalize(y), normalize(y)).square().mul(-2).exp()
    mean = (spread.sum() - n) / (n * (n - 1))
    torch.testing.assert_close(uniformity(y), mean.log())


# ---- edges ---------------------------------------------------------------------------------------


def test_empty_sets():
    x, none = torch.randn(3, 2), torch.randn(0, 2)
    labels, no_labels = torch.tensor([0, 0, 1]), torch.zeros(0, dtype=torch.int64)
    ranked = (recall_at_k, mean_reciprocal_rank, mean_average_precision)
    for metric in ranked:
        of_none = metric(none, x)
        assert of_none.isnan().all()
        assert of_none.shape == metric(x, x).shape
        in_none = metric(x, none, labels=labels, corpus_labels=no_labels, reduction="none")
        assert in_none.isnan().all()
        assert in_none.shape == metric(x, x, reduction="none").shape
        alone = metric(x, labels=torch.tensor([0, 0, 1]), reduction="none")
        assert alone.isnan().view(3, -1).all(1).tolist() == [False, False, True]
        one_class = metric(x, labels=torch.zeros(3, dtype=torch.int64))
        assert one_class.max() == 1
    assert knn_accuracy(none, no_labels).isnan()
    assert knn_accuracy(x, labels, none, no_labels) == 0
    assert knn_accuracy(x[:1], labels[:1]) == 0
    assert knn_accuracy(x, torch.full((3,), 7)) == 1
    assert uniformity(x[:1]).isnan()
    assert alignment(none, none).isnan()
    assert all(v.isnan() for v in mean_similarities(none, none))
    assert similarity_histogram(none, none).positives.sum() == 0
    zero = torch.zeros(3, 2)
    assert mean_average_precision(zero, zero, normalize=False).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision(dtype, device):
    """The values of the rounded embeddings in fp64."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 65, 9, generator=g).to(device, dtype)
    for metric in (recall_at_k, mean_reciprocal_rank, mean_average_precision):
        found = metric(x, y)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found.double(), metric(x.double(), y.double()), rtol=1e-5, atol=0
        )


def test_a_score_of_nan_is_not_hidden():
    x, y = torch.randn(2, 5, 3)
    y[2] = torch.nan
    assert mean_average_precision(x, y).isnan()
    assert mean_reciprocal_rank(x, y).isnan()
    found = recall_at_k(x, y, (5,), reduction="none").squeeze(1)
    assert found.tolist() == [1, 1, 0, 1, 1]  # never a candidate


class Largest(TorchDispatchMode):
    """The largest number of elements that any operator returns."""

    elements = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        for value in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return results


@pytest.mark.parametrize(
    "metric",
    [
        lambda x, y, labels, **o: recall_at_k(x, y, (1, 10), **o),
        lambda x, y, labels, **o: mean_reciprocal_rank(x, y, **o),
        lambda x, y, labels, **o: mean_average_precision(x, labels=labels, **o),
        lambda x, y, labels, **o: mean_average_precision(x, labels=labels, k=50, **o),
        lambda x, y, labels, **o: knn_accuracy(x, labels, k=50, **o),
        lambda x, y, labels, **o: mean_similarities(x, labels=labels, **o),
        lambda x, y, labels, **o: similarity_histogram(x, y, 5, **o),
    ],
)
def test_no_matrix_of_all_pairs_is_formed(metric, monkeypatch, inside):
    from contrastloss.backends.reference import block

    monkeypatch.setattr(search, "ENTRIES", 1 << 12)
    monkeypatch.setattr(block, "block_elements", lambda device: 1 << 12)
    n = 700
    x, y = torch.randn(2, n, 4)
    with Largest() as seen:
        metric(x, y, torch.arange(n) % 70, backend="reference")
    assert n < seen.elements < n * n / 10


def test_nothing_carries_a_gradient():
    x, y = torch.randn(2, 5, 3, requires_grad=True)
    assert not mean_reciprocal_rank(x, y).requires_grad
    assert not uniformity(x).requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "corpus: got None, expected one, or labels or positives"),
        ({"corpus": 3}, "corpus: got 3 rows, expected at least 4: row i is relevant to query i"),
        ({"labels": 4, "positives": 4}, "positives: got some with labels, expected one of the two"),
        ({"corpus": 4, "corpus_labels": 4}, "corpus_labels: got some without labels, "),
        ({"corpus": 4, "labels": 4}, "corpus_labels: got None with one, expected labels"),
        ({"labels": 4, "corpus_labels": 4}, "corpus_labels: got labels with no corpus"),
        ({"corpus": 2, "positives": 4}, "positives: got 3, expected -1 to 1, "),
        ({"corpus": 4, "ks": ()}, "ks: got none, expected at least one"),
        ({"corpus": 4, "ks": (0,)}, "ks: got 0, expected an integer of at least 1"),
        ({"corpus": 4, "reduction": "sum"}, "reduction: got 'sum', expected one of mean, none"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(given, message):
    values = {
        name: value if name in ("ks", "reduction")
        else torch.randn(value, 3) if name == "corpus" else torch.arange(value)
        for name, value in given.items()
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*") as raised:
        recall_at_k(torch.randn(4, 3), **values)
    assert ", expected " in str(raised.value)


def test_what_a_histogram_refuses():
    with pytest.raises(ValueError, match=r"^high: got -1.0, expected more than low=-1.0"):
        similarity_histogram(torch.randn(2, 3), torch.randn(2, 3), high=-1.0)
