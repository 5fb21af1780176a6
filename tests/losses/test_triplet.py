import os
import subprocess
import sys
from math import cos, radians

import pytest
import torch
from properties import close, every_check, gradients

from contrastloss import TripletLoss
from contrastloss.functional import triplet
from contrastloss.memory import EmbeddingQueue
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


@pytest.fixture
def few(monkeypatch):
    """All triplets are counted, however few the positives are."""
    monkeypatch.setattr(sys.modules[TripletLoss.__module__], "_FEW", 0)


@every_check
def test_properties_of_large_classes(check, few, device, backend):
    check(Subject(TripletLoss, {"margin": 0.3}, device, backend, thorough=False))


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


# ---- large classes -------------------------------------------------------------------------------


def triplets(s, positive, negative, margin):
    """The sums of rows, and how many terms they have, of every p and every n."""
    u = s[:, None, :] - (s[:, :, None] - margin)
    terms = torch.where(positive[:, :, None] & negative[:, None, :], u.relu(), 0.0)
    return terms.sum((1, 2)), (terms > 0).sum((1, 2))


def further(kind, n):
    """Negatives as arguments, and as (N, K, D) with a mask."""
    values = torch.randn(n, 3, 5, dtype=torch.float64).requires_grad_()
    mask = torch.rand(n, 3) < 0.6
    if kind == "shared":
        given = {"negatives": values[0], "negatives_mask": mask[0]}
        return values, given, values[:1].expand(n, -1, -1), mask[:1].expand(n, -1)
    if kind == "own":
        return values, {"negatives": values, "negatives_mask": mask}, values, mask
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return values, {"negatives": values[mask], "negatives_offsets": offsets}, values, mask


@pytest.mark.parametrize("kind", ["shared", "own", "ragged"])
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("held", [1 << 18, 700])
def test_whatever_a_call_brings(kind, views, held, monkeypatch):
    """Two classes and ignored rows, further negatives, a queue, ids, weights and a temperature for
    every row, some rows at a time: the values and all gradients of the formula."""
    monkeypatch.setattr(sys.modules["contrastloss.losses.base.held"], "_HELD", held)
    n, margin, labels = 80, 0.25, torch.arange(80) % 2
    labels[::9] = -100
    z = torch.randn(n, views, 5, dtype=torch.float64).requires_grad_()
    values, given, negatives, mask = further(kind, n)
    queue, ids = EmbeddingQueue(11, 5, labels=True, ids=True, dtype=z.dtype), torch.arange(n) // 2
    queue.enqueue(
        torch.randn(9, 5, dtype=z.dtype), torch.tensor([0, 1, -100] * 3), torch.arange(9) * 5
    )
    weight = torch.rand(n, dtype=torch.float64)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    tau = torch.nn.Parameter(torch.rand(n, dtype=torch.float64) + 0.5)
    one = views == 1  # a temperature for every row, and ids, are of rows with one view
    options = {"temperature": tau} if one else {}
    call = {"ids": ids} if one else {"logit_scale": scale}
    loss = TripletLoss(margin, **options)
    got = loss(z.squeeze(1), labels, **given, **call, memory=queue, row_weight=weight)

    unit, filled = torch.nn.functional.normalize, queue.steps >= 0
    x, row = unit(z.flatten(0, 1), dim=1), torch.arange(n).repeat_interleave(views)
    s = torch.cat([x @ x.mT, x @ unit(queue.embeddings[filled], dim=1).mT], 1)
    own = torch.einsum("nd,nkd->nk", x, unit(negatives, dim=2)[row])
    s = torch.cat([s, own], 1) * (1 / loss.temperature[:, None] if one else scale)
    label, stored = labels[row], queue.labels[filled]
    cols = torch.cat([label, stored])
    taken = label != -100
    alike = label[:, None] == cols
    apart = ~torch.eye(len(x), dtype=torch.bool)
    apart = ids[:, None] != ids if one else apart
    other = ids[row][:, None] != queue.ids[filled] if one else torch.ones(len(x), 9) > 0
    apart = torch.cat([apart, other], 1)
    none = torch.zeros(len(x), 3, dtype=torch.bool)
    positive = torch.cat([alike & apart & (cols != -100), none], 1)
    negative = torch.cat([~alike & apart & (cols != -100), mask[row]], 1)
    sums, counts = triplets(s, positive, negative, margin)
    want = (weight[row] * torch.where(taken, sums, 0.0)).sum() / counts[taken].sum()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    leaves = [z, values, *([loss.temperature] if one else [scale])]
    for a, b in zip(gradients(got, *leaves), gradients(want, *leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_an_unknown_backend_of_large_classes(few):
    with pytest.raises(ValueError, match=r"^backend: got 'gpu', expected None or one of"):
        TripletLoss(backend="gpu")(torch.randn(8, 3), torch.arange(8) % 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_accuracy_of_two_classes(dtype, device):
    """At most twice the error of the formula in fp32, rounded to the dtype."""
    z = torch.randn(200, 24, device=device).to(dtype)
    labels = torch.arange(200, device=device) % 2

    def formula(z):
        z = torch.nn.functional.normalize(z.requires_grad_(), dim=1)
        alike = labels[:, None] == labels
        own = torch.eye(200, dtype=torch.bool, device=device)
        sums, counts = triplets(z @ z.mT, alike & ~own, ~alike, 0.25)
        return sums.sum() / counts.sum()

    def run(function, z):
        z = z.detach().requires_grad_()
        value = function(z)
        return value.detach().double(), gradients(value, z)[0].double()

    exact, plain = run(formula, z.double()), run(formula, z.float())
    plain = plain[0], plain[1].to(dtype).double()
    got = run(lambda z: TripletLoss(0.25)(z, labels), z)
    for value, rounded, want in zip(got, plain, exact, strict=True):
        error, bound = ((v - want).norm() / want.norm() for v in (value, rounded))
        assert error <= 2 * bound + torch.finfo(torch.float32).eps


# ---- memory --------------------------------------------------------------------------------------

MEMORY = """
import resource, torch
from contrastloss import TripletLoss

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(2)
z, labels = torch.randn({rows}, 32, requires_grad=True), torch.arange({rows}) // {size}
TripletLoss()(z[:256], labels[:256]).backward()
TripletLoss()(z[:256], labels[:256] // 256).backward()
before = peak()
loss = TripletLoss(reduction="sum")(z, labels)
loss.backward()
print(peak() - before, loss.item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss differ")
@pytest.mark.parametrize(("rows", "size"), [(8192, 4), (3000, 1500)])
def test_all_triplets_need_no_score_matrix(rows, size, device):
    """200 million triplets, whose score matrix alone would take 256 MB, and 6.7 billion, whose
    positives' scores and places would take 54 MB."""
    if device.type != "cpu":
        pytest.skip("the peak of a process is its CPU memory")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", MEMORY.format(rows=rows, size=size)]
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
