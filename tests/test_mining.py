"""Miners find the same sets as those of pytorch-metric-learning and as tables made by hand, within
a memory limit."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize

from contrastloss import mining
from contrastloss.mining import (
    batch_hard,
    hard_negatives,
    multi_similarity,
    pair_margin,
    triplet_margin,
)

KINDS = ("all", "hard", "semihard", "easy")


def batch(device, n, d=5, classes=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=g)
    labels[: min(n, 2)] = torch.tensor([90, 91])[: min(n, 2)]  # alone in their classes
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return z.to(device), labels.to(device)


def angles(*degrees):
    """Unit vectors in the plane."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def as_set(tuples):
    """The set of tuples given by index vectors, which must not contain duplicates."""
    rows = [tuple(row) for row in torch.stack(tuples, 1).tolist()]
    assert len(set(rows)) == len(rows)
    return set(rows)


# ---- the sets of pytorch-metric-learning ---------------------------------------------------------


@pytest.fixture
def pml():
    from pytorch_metric_learning import distances, miners

    def make(name, **options):
        return getattr(miners, name)(distance=distances.CosineSimilarity(), **options)

    return make


MINERS = {
    "BatchHardMiner": (lambda *a, **o: batch_hard(*a[:2], **o), [{}]),
    "TripletMarginMiner": (
        triplet_margin,
        [{"kind": kind, "margin": m} for kind in KINDS for m in (0.2, 0.0, 0.7, -0.1)],
    ),
    "MultiSimilarityMiner": (multi_similarity, [{}, {"epsilon": 0.5}, {"epsilon": -0.4}]),
    "PairMarginMiner": (
        pair_margin,
        [{"pos_margin": 0.8, "neg_margin": 0.2}, {"pos_margin": -0.2, "neg_margin": 0.5}],
    ),
}
CASES = [(name, options) for name, (_, all_options) in MINERS.items() for options in all_options]


@pytest.mark.parametrize("other", [False, True], ids=["itself", "ref"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_sets_of_pytorch_metric_learning(pml, name, options, other, device, backend):
    function, _ = MINERS[name]
    theirs = pml(name, **{"type_of_triplets" if k == "kind" else k: v for k, v in options.items()})
    for n, seed in ((30, 0), (31, 1), (2, 2), (12, 3)):
        z, labels = batch(device, n, seed=seed)
        ref = batch(device, 17, seed=seed + 9) if other else (None, None)
        found = function(z, labels, 31, ref=ref[0], ref_labels=ref[1], backend=backend, **options)
        ours, want = found.tuples(), theirs(z, labels, *ref)
        assert len(ours) == len(want)
        for part in ([0, 1, 2],) if len(want) == 3 else ([0, 1], [2, 3]):
            got, expected = as_set([ours[k] for k in part]), as_set([want[k] for k in part])
            assert got == expected, f"{n} rows: {got ^ expected}"


# ---- tables --------------------------------------------------------------------------------------

# class 0 at 0 and 20 degrees, class 1 at 15, 50 and 90, class 2 at 180
Z = angles(0, 20, 15, 50, 90, 180)
LABELS = torch.tensor([0, 0, 1, 1, 1, 2])


def mined(function, *args, device, backend, **options):
    return function(Z.to(device), LABELS.to(device), *args, backend=backend, **options)


def test_batch_hard_by_hand(device, backend):
    found = mined(batch_hard, device=device, backend=backend)
    # row 5 is alone: it has a hardest negative but no positive
    assert found.positives.tolist() == [[1], [0], [4], [4], [2], [-1]]
    assert found.negatives.tolist() == [[[2]], [[2]], [[1]], [[1]], [[1]], [[-1]]]
    assert found.counts().tolist() == [[1], [1], [1], [1], [1], [0]]


@pytest.mark.parametrize(
    ("kind", "row0", "row2"),
    [
        # row 0: the positive at 20 degrees; negatives at 15, 50, 90, 180. Margin: cos 20 - 0.3 =
        # cos 50.2. Row 2, at 15: positives 75 and 35 degrees away, cos 75 - 0.3 = cos 92.4 and
        # cos 35 - 0.3 = cos 58.7; negatives 5, 15 and 165 away
        ("all", [[2, 3, -1]], [[1, 0, -1], [1, 0, -1]]),
        ("hard", [[2, -1, -1]], [[1, 0, -1], [1, 0, -1]]),
        ("semihard", [[3, -1, -1]], [[-1, -1, -1], [-1, -1, -1]]),
        ("easy", [[4, 5, -1]], [[5, -1, -1], [5, -1, -1]]),
    ],
)
def test_triplets_by_hand(kind, row0, row2, device, backend):
    found = mined(triplet_margin, 3, margin=0.3, kind=kind, device=device, backend=backend)
    assert found.positives.tolist() == [[1, -1], [0, -1], [4, 3], [4, 2], [2, 3], [-1, -1]]
    assert found.negatives[0].tolist() == [*row0, [-1, -1, -1]]
    assert found.negatives[2].tolist() == row2
    assert (found.negatives[5] == -1).all()
    count = [sum(j >= 0 for j in row) for row in row2]
    assert found.counts()[2].tolist() == count


def test_fewer_are_the_hardest(device, backend):
    options = {"device": device, "backend": backend}
    whole = mined(triplet_margin, 5, margin=0.9, **options)
    few = mined(triplet_margin, 1, margin=0.9, positives=1, **options)
    assert torch.equal(few.positives, whole.positives[:, :1])
    assert torch.equal(few.negatives, whole.negatives[:, :1, :1])
    pairs = mined(pair_margin, 2, pos_margin=1.0, neg_margin=-1.0, **options)
    assert pairs.negatives.tolist() == [[2, 3], [2, 3], [1, 0], [1, 0], [1, 0], [4, 3]]
    negatives = pairs.counts()[1]
    assert negatives.tolist() == [2] * 6


def test_margins_are_strict_as_theirs(device, backend):
    """A score exactly at the margin (products of integers are exact) is excluded by the pair miner
    and included by the triplet miner, as in pytorch-metric-learning."""
    z = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64, device=device)
    labels = torch.tensor([0, 0, 1], device=device)
    options = {"normalize": False, "backend": backend}
    found = pair_margin(z, labels, 2, pos_margin=2.0, neg_margin=3.0, **options)
    assert found.positives[0].item() == -1
    assert found.negatives.tolist() == [[-1, -1], [2, -1], [1, -1]]
    found = pair_margin(z, labels, 2, pos_margin=2.1, neg_margin=2.9, **options)
    assert found.positives.tolist() == [[1], [0], [-1]]
    assert found.negatives.tolist() == [[2, -1], [2, -1], [1, 0]]
    # s_01 = 2; s_02 = 3, s_12 = 6
    found = triplet_margin(z, labels, 1, margin=-1.0, **options)
    assert found.negatives[:, 0, 0].tolist() == [2, 2, -1]
    found = triplet_margin(z, labels, 1, margin=-1.0, kind="easy", **options)
    assert found.negatives[:, 0, 0].tolist() == [-1, -1, -1]
    z[2] = 2.0  # as similar as the positive
    for kind, negative in (("all", 2), ("hard", 2), ("semihard", -1), ("easy", -1)):
        found = triplet_margin(z, labels, 1, margin=0.5, kind=kind, **options)
        assert found.negatives[0, 0, 0] == negative


def test_nothing_to_mine(device, backend):
    z, labels = batch(device, 4, classes=1)
    for n in (0, 1, 4):
        same = torch.zeros(n, dtype=torch.int64, device=device)
        for labels in (same, torch.arange(n, device=device)):
            for function, options in MINERS.values():
                found = function(z[:n], labels, 3, backend=backend, **options[0])
                assert len(found.positives) == len(found.negatives) == n
                assert (found.positives == -1).all() or (found.negatives == -1).all()


# ---- from a corpus -------------------------------------------------------------------------------


def test_rules_by_hand(device, backend):
    # these are also the scores of the single query
    corpus = torch.tensor([[10.0, 9.0, 8.0, -4.0, 3.0, -5.0]], dtype=torch.float64, device=device).T
    query = torch.ones(1, 1, dtype=torch.float64, device=device)

    def mine(*positives, **rules):
        index = torch.tensor([positives], dtype=torch.int64, device=device)
        rules = {"normalize": False, "backend": backend, **rules}
        return hard_negatives(query, corpus, index, 3, **rules).indices[0].tolist()

    assert mine(2, 4) == [0, 1, 3]
    assert mine(2, -1) == [0, 1, 4]
    assert mine(2, skip=1) == [1, 4, 3]
    assert mine(1, absolute_margin=1.0) == [2, 4, 3]  # 8 <= 9 - 1: closed
    assert mine(1, absolute_margin=1.5) == [4, 3, 5]
    assert mine(0, 2, absolute_margin=0.0) == [4, 3, 5]  # the smallest of the positives counts
    assert mine(0, relative_margin=0.1) == [1, 2, 4]
    assert mine(0, relative_margin=0.11) == [2, 4, 3]
    assert mine(3, relative_margin=0.5) == [-1, -1, -1]  # -4 - 4 / 2, and not -4 / 2
    assert mine(0, relative_margin=0.1, absolute_margin=2.0) == [2, 4, 3]
    assert mine(0, max_score=8.0, min_score=3.0) == [2, 4, -1]
    assert mine(0, absolute_margin=1.0, max_score=8.5) == [2, 4, 3]
    assert mine(0, ignore=torch.tensor([[1, -1]], device=device)) == [2, 4, 3]
    assert mine(-1) == [0, 1, 2]
    assert mine() == [0, 1, 2]
    assert mine(-1, absolute_margin=-100.0) == [-1, -1, -1]
    assert mine(absolute_margin=-100.0) == [-1, -1, -1]
    one = hard_negatives(query, corpus, torch.tensor([2], device=device), 1, normalize=False)
    assert one.indices.tolist() == [[0]]
    assert one.values.tolist() == [[10.0]]


def test_against_dense_rules(device, backend):
    g = torch.Generator().manual_seed(0)
    queries, corpus = (torch.randn(n, 6, generator=g).double().to(device) for n in (20, 90))
    positives = torch.randint(-1, 90, (20, 3), generator=g).to(device)
    positives[3] = -1
    found = hard_negatives(
        queries, corpus, positives, 7, skip=2, absolute_margin=0.05, relative_margin=0.1,
        max_score=0.8, min_score=-0.3, backend=backend,
    )  # fmt: skip
    s = normalize(queries) @ normalize(corpus).mT
    for i in range(20):
        own = positives[i][positives[i] >= 0]
        keep = (s[i] <= 0.8) & (s[i] >= -0.3)
        least = s[i, own].min() if len(own) else torch.tensor(-torch.inf, device=device)
        keep &= (s[i] + 0.05 <= least) & (s[i] <= least - 0.1 * least.abs())
        keep[own] = False
        order = [j for j in s[i].argsort(descending=True).tolist() if keep[j]][2:9]
        assert found.indices[i].tolist() == order + [-1] * (7 - len(order))


@pytest.mark.parametrize("normalized", [True, False])
def test_a_copy_of_the_positive_is_at_its_margin(normalized, device, backend):
    """Every column occurs twice. With a margin of 0 the copy of the positive is a valid negative,
    in spite of rounding."""
    generator, n = torch.Generator().manual_seed(0), 40
    for _ in range(10):
        queries = torch.randn(n, 24, generator=generator).to(device)
        corpus = 50 * queries + torch.randn(n, 24, generator=generator).to(device)
        corpus, own = torch.cat([corpus, corpus]), torch.arange(n, device=device)
        for margin in ({"absolute_margin": 0.0}, {"relative_margin": 0.0}):
            options = {"normalize": normalized, "backend": backend, **margin}
            found = hard_negatives(queries, corpus, own, 1, **options)
            scores = queries @ corpus.T / (corpus.norm(dim=1) if normalized else 1.0)
            expected = scores <= scores.diag()[:, None] + 1e-3 * (1 if normalized else 50)
            expected[own, own] = False
            best = scores.masked_fill(~expected, -torch.inf).argmax(1)
            assert torch.equal(found.indices[:, 0] % n, best % n)


def test_samples_are_of_the_candidates(device, backend):
    z = torch.randn(5, 3, dtype=torch.float64, device=device)
    index = torch.arange(5, device=device)
    options = {"max_score": 0.5, "sample": 0.0, "backend": backend}
    draws = [hard_negatives(z, z, index, 4, seed=s, **options) for s in range(30)]
    whole = hard_negatives(z, z, index, 4, max_score=0.5, backend=backend)
    for found in draws:
        assert torch.equal(found.indices.sort()[0], whole.indices.sort()[0])
    assert len({tuple(found.indices.flatten().tolist()) for found in draws}) > 1


# ---- errors --------------------------------------------------------------------------------------


def test_errors():
    z, labels = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    for bad, kind, message in (
        (labels[:3], ValueError, r"got shape \(3,\), expected \(4,\)"),
        (labels.float(), TypeError, "got dtype torch.float32, expected an integer one"),
        (labels.to("meta"), ValueError, "got device meta, expected"),
    ):
        with pytest.raises(kind, match=f"^labels: {message}"):
            batch_hard(z, bad)
    with pytest.raises(ValueError, match=r"^z: got shape \(3,\), expected \(N, D\)"):
        batch_hard(z[0], labels)
    with pytest.raises(ValueError, match=r"^ref: got shape \(4, 2\), expected \(M, 3\)"):
        batch_hard(z, labels, ref=z[:, :2], ref_labels=labels)
    with pytest.raises(ValueError, match=r"^ref_labels: got None with ref, expected both"):
        batch_hard(z, labels, ref=z)
    with pytest.raises(ValueError, match=r"^ref: got None with ref_labels, expected both"):
        batch_hard(z, labels, ref_labels=labels)
    with pytest.raises(ValueError, match=r"^kind: got 'soft', expected one of all, hard"):
        triplet_margin(z, labels, 1, kind="soft")
    for name, arguments in (("k", {"k": 0}), ("positives", {"k": 1, "positives": 0})):
        with pytest.raises(ValueError, match=f"^{name}: got 0, expected .*at least 1"):
            triplet_margin(z, labels, **arguments)
        with pytest.raises(ValueError, match=f"^{name}: got 0, expected .*at least 1"):
            multi_similarity(z, labels, **arguments)
    for bad, kind, message in (
        (labels.float(), TypeError, "got dtype torch.float32, expected an integer one"),
        ("x", TypeError, "got str, expected a tensor"),
        (labels[:2], ValueError, r"got shape \(2,\), expected \(4,\) or \(4, P\)"),
        (labels + 7, ValueError, "got .*, expected"),
    ):
        with pytest.raises(kind, match=f"^(positives|index): {message}"):
            hard_negatives(z, z, bad, 1, absolute_margin=0.0)
        if kind is TypeError:
            with pytest.raises(kind, match=f"^ignore: {message}"):
                hard_negatives(z, z, labels, 1, ignore=bad)


def test_nothing_carries_a_gradient(device):
    z, labels = batch(device, 8)
    z.requires_grad_()
    assert not hard_negatives(z, z, labels.new_full((8,), -1), 2).values.requires_grad


# ---- memory --------------------------------------------------------------------------------------

MEMORY = """
import resource, torch
from contrastloss.mining import triplet_margin

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(2)
z, labels = torch.randn(16384, 64), torch.arange(16384) // 4
triplet_margin(z[:256], labels[:256], 8, kind="semihard")
before = peak()
found = triplet_margin(z, labels, 8, kind="semihard")
print(peak() - before, int((found.negatives >= 0).sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss differ")
def test_semihard_of_16384_rows_takes_100_mb(device):
    """The scores alone would take 1,024 MB, a mask of triplets 786 GB."""
    if device.type != "cpu":
        pytest.skip("the peak of a process is its CPU memory")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr
    extra, found = done.stdout.split()
    assert float(extra) <= 100
    assert int(found) > 16384, "hardly anything was mined"


def test_every_miner_is_tested():
    tested = {f.__name__ for f in (batch_hard, triplet_margin, multi_similarity, pair_margin)}
    assert {name for name in mining.__all__ if name[0].islower()} == tested | {
        "hard_negatives",
        "mine_files",  # tests/test_mining_files.py
    }
