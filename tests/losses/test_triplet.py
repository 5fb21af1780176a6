import os
import subprocess
import sys
from math import cos, radians

import pytest
import torch
from properties import close, every_check, gradients

from contrastloss import TripletLoss
from contrastloss.functional import triplet
from contrastloss.mining import batch_hard, triplet_margin
from contrastloss.testing import Subject, dense
from contrastloss.testing.checks import check_shapes

OPTIONS = [
    {"mining": "hard"},
    {"margin": 0.3},
    {"margin": 0.5, "mining": "semihard", "k": 3},
    {"margin": 0.3, "positives": 2},
    {"margin": 0.5, "mining": "semihard", "positives": 3},
]


@every_check
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_properties(check, options, device, backend):
    if check is check_shapes and options.get("mining") == "semihard":
        pytest.skip("with D = 1 all cosines are 1 or -1, and rounding decides what is less similar")
    check(Subject(TripletLoss, options, device, backend, thorough=options.get("mining") == "hard"))


# class 0 at 0 and 20 degrees, class 1 at 30 and 75, class 2 at 180
DEGREES = (0, 20, 30, 75, 180)
LABELS = (0, 0, 1, 1, 2)


def example(device):
    angles = torch.tensor(DEGREES, dtype=torch.float64, device=device).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1), torch.tensor(LABELS, device=device)


def c(degrees):
    return cos(radians(degrees))


# cosines of 10, 20, 30, 45, 55, 75 degrees: .985 .940 .866 .707 .574 .259. Margin 0.1.
# Row 0: positive .940, negatives .866 .259 -1: one active, semi-hard
# Row 1: positive .940, negatives .985 .574 -.940: one active, hard
# Row 2: positive .707, negatives .866 .985 -.866: two active, both hard
# Row 3: positive .707, negatives .259 .574 -.259: none
FIRST = 0.1 + c(30) - c(20)
SECOND = 0.1 + c(10) - c(20)
THIRD = 0.1 + c(30) - c(45), 0.1 + c(10) - c(45)


@pytest.mark.parametrize(
    ("mining", "rows", "terms"),
    [
        ("all", [FIRST, SECOND, sum(THIRD), 0.0, 0.0], 4),
        ("hard", [FIRST, SECOND, THIRD[1], 0.0, 0.0], 3),
        ("semihard", [FIRST, 0.0, 0.0, 0.0, 0.0], 1),
    ],
)
def test_by_hand(mining, rows, terms, device, backend):
    z, labels = example(device)
    options = {"margin": 0.1, "mining": mining, "backend": backend}
    close(triplet(z, labels, reduction="none", **options), rows)
    close(triplet(z, labels, reduction="sum", **options), sum(rows))
    close(triplet(z, labels, **options), sum(rows) / terms)


# ---- pytorch-metric-learning ---------------------------------------------------------------------


def theirs(margin, z, labels, triplets=None):
    from pytorch_metric_learning import distances, losses

    loss = losses.TripletMarginLoss(margin, distance=distances.CosineSimilarity())
    z = z.detach().requires_grad_()
    value = loss(z, labels, triplets)
    return value, gradients(value, z)[0]


def ours(z, labels, **options):
    z = z.detach().requires_grad_()
    value = TripletLoss(**options)(z, labels)
    return value, gradients(value, z)[0]


def same(got, want):
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("margin", [0.05, 0.5, -0.1])
@pytest.mark.parametrize("classes", [3, 9, 200])
def test_all_matches_all_triplets(margin, classes, device, backend):
    """Three classes with more positives than one pass handles."""
    z, labels = Subject(TripletLoss, device=device).inputs(n=50)
    labels = torch.arange(50, device=device) ** 2 % classes
    same(ours(z, labels, margin=margin, backend=backend), theirs(margin, z, labels))


def test_hard_matches_the_batch_hard_miner(device, backend):
    from pytorch_metric_learning import distances, miners

    z, labels = Subject(TripletLoss, device=device).inputs(n=50)
    found = miners.BatchHardMiner(distance=distances.CosineSimilarity())(z, labels)
    same(ours(z, labels, mining="hard", backend=backend), theirs(0.05, z, labels, found))
    same(theirs(0.05, z, labels, batch_hard(z, labels).tuples()), theirs(0.05, z, labels, found))


def test_semihard_matches_the_semihard_miner(device, backend):
    from pytorch_metric_learning import distances, miners

    z, labels = Subject(TripletLoss, device=device).inputs(n=50)
    options = {"margin": 0.3, "mining": "semihard", "backend": backend}
    found = miners.TripletMarginMiner(0.3, "semihard", distance=distances.CosineSimilarity())(
        z, labels
    )
    same(ours(z, labels, k=50, **options), theirs(0.3, z, labels, found))
    few = triplet_margin(z, labels, 2, margin=0.3, kind="semihard").tuples()
    assert len(few[0]) < len(found[0])
    same(ours(z, labels, k=2, **options), theirs(0.3, z, labels, few))


# ---- counts and options --------------------------------------------------------------------------


@pytest.mark.parametrize("mining", ["all", "hard", "semihard"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_without_triplets_it_is_zero(mining, labels, device, backend):
    z = torch.randn(4, 3, device=device, requires_grad=True)
    loss = TripletLoss(mining=mining, backend=backend)(z, torch.tensor(labels, device=device))
    assert loss.item() == 0.0
    assert not gradients(loss, z)[0].any()


@pytest.mark.parametrize("n", [0, 1, 2, 77])
def test_sizes_of_semihard(n, device, backend):
    subject = Subject(TripletLoss, {"margin": 0.3, "mining": "semihard"}, device, backend)
    inputs = subject.inputs(n=n, d=77)
    close(subject.rows()(*inputs), dense(subject.loss(), *inputs)[0] if n else torch.zeros(0))


def test_few_positives_are_the_hardest(device, backend):
    z, labels = Subject(TripletLoss, device=device).inputs(n=30)
    options = {"margin": 0.4, "reduction": "none", "backend": backend}
    few = TripletLoss(positives=1, **options)(z, labels)
    found = triplet_margin(z, labels, 30, margin=0.4, positives=1)
    a, p, n = found.tuples()
    s = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(z).mT
    close(few, torch.zeros_like(few).index_add_(0, a, s[a, n] - s[a, p] + 0.4))


@pytest.mark.parametrize("mining", ["all", "hard", "semihard"])
def test_statistics(mining, device, backend):
    z, labels = example(device)
    _, stats = TripletLoss(mining=mining, return_stats=True, backend=backend)(z, labels)
    close(stats["positive"], (2 * c(20) + 2 * c(45)) / 4)
    close(stats["hardest_negative"], (c(30) + c(10) + c(10) + c(55)) / 4)
    close(stats["accuracy"], 2 / 4)


@pytest.mark.parametrize("mining", ["all", "hard", "semihard"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nan_is_not_ignored(mining, reduction, device, backend):
    z, labels = example(device)
    z[4, 1] = torch.nan
    loss = TripletLoss(mining=mining, reduction=reduction, backend=backend)(z, labels)
    assert loss.isnan()


# ---- memory --------------------------------------------------------------------------------------

MEMORY = """
import resource, torch
from contrastloss import TripletLoss

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(2)
z, labels = torch.randn(8192, 32, requires_grad=True), torch.arange(8192) // 4
TripletLoss()(z[:256], labels[:256]).backward()
before = peak()
loss = TripletLoss(reduction="sum")(z, labels)
loss.backward()
print(peak() - before, loss.item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss differ")
def test_all_triplets_of_8192_rows_need_no_score_matrix(device):
    """200 million triplets; the score matrix alone would take 256 MB."""
    if device.type != "cpu":
        pytest.skip("the peak of a process is its CPU memory")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr
    extra, value = map(float, done.stdout.split())
    assert extra <= 40
    assert value > 1e6


def test_of_all_positives_it_runs_between_graphs(device):
    """How many positives a row has is known from values alone."""
    z, labels = torch.randn(14, 5, device=device), torch.arange(14, device=device) % 4
    loss = TripletLoss(0.5)
    leaf = z.clone().requires_grad_()
    got = torch.compile(lambda z: 3 * loss(2 * z, labels), backend="aot_eager")(leaf)
    want = 3 * loss(2 * leaf, labels)
    torch.testing.assert_close(gradients(got, leaf), gradients(want, leaf))
    for strict in (False, True):
        with pytest.raises(RuntimeError, match=r"torch.export: got TripletLoss"):
            torch.export.export(loss, (z, labels), strict=strict)
    torch.export.export(TripletLoss(0.5, positives=3), (z, labels))
