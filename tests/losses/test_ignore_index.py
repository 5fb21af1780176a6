"""Rows with the label ``ignore_index`` are as if they were not there."""

import functools

import pytest
import torch

from contrastloss import functional
from contrastloss.losses import LOSSES
from contrastloss.losses.base.label_loss import LabelLoss
from contrastloss.memory import EmbeddingQueue
from contrastloss.options import declared
from contrastloss.testing.compare import assert_same

IGNORING = {name: cls for name, cls in LOSSES.items() if "ignore_index" in declared(cls)}
#: options with which a loss takes another way, or divides by another count
VARIANTS = [
    *[(name, {}) for name in IGNORING],
    ("focal_contrastive", {"divisor": "batch"}),
    ("supcon", {"variant": "in"}),
    ("triplet", {"mining": "hard"}),
    ("triplet", {"mining": "semihard"}),
]
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS)


def drawn(name, n=17, d=5):
    """Matrices and labels, of which -100 marks about a third."""
    labels = torch.randint(0, 3, (n,))
    labels[torch.rand(n) < 0.35] = -100
    count = len(IGNORING[name].positional) - 1
    return [torch.randn(n, d, dtype=torch.float64) for _ in range(count)], labels


def results(loss, matrices, labels, weights, **more):
    """The value, gradients of its weighted sum, and statistics."""
    leaves = [z.clone().requires_grad_() for z in matrices]
    value, stats = loss(*leaves, labels, **more), {}
    if isinstance(value, tuple):
        value, stats = value
    grads = torch.autograd.grad((value * weights if value.ndim else value).sum(), leaves)
    return value.detach(), grads, list(stats.values())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@every_variant
def test_as_if_they_were_not_there(name, options, reduction, backend):
    stats = {"return_stats": True} if issubclass(IGNORING[name], LabelLoss) else {}
    loss = IGNORING[name](**options, **stats, reduction=reduction, backend=backend)
    for seed in range(3):
        torch.manual_seed(seed)
        matrices, labels = drawn(name)
        keep, weights = labels != -100, torch.rand(len(labels), dtype=torch.float64)
        value, grads, stats = results(loss, matrices, labels, weights)
        fewer = [z[keep] for z in matrices]
        want, want_grads, want_stats = results(loss, fewer, labels[keep], weights[keep])
        assert all(not grad[~keep].any() for grad in grads)
        if reduction == "none":
            assert not value[~keep].any()
            value = value[keep]
        got = [value, *[grad[keep] for grad in grads], *stats]
        assert_same(got, [want, *want_grads, *want_stats], "value, gradients, statistics")


@every_variant
def test_stored_rows_too(name, options):
    cls = IGNORING[name]
    if not issubclass(cls, LabelLoss) or "memory" in cls.without:
        return
    loss = cls(**options)
    torch.manual_seed(0)
    matrices, labels = drawn(name)
    stored, numbers = torch.randn(2, 9, 5, dtype=torch.float64), torch.tensor([-100, 0, 1] * 3)
    queues = []
    for keep in (slice(None), numbers != -100):
        filled = [EmbeddingQueue(9, 5, labels=True, dtype=torch.float64) for _ in "ab"]
        for queue, z in zip(filled, stored, strict=True):
            queue.enqueue(z[keep], numbers[keep])
        queues.append(filled if loss.both_sides else filled[0])
    with_ignored, without = (results(loss, matrices, labels, 1.0, memory=q) for q in queues)
    assert_same([with_ignored[0], *with_ignored[1]], [without[0], *without[1]], "value, gradients")


@every_variant
def test_none_ignores_nothing(name, options):
    torch.manual_seed(0)
    matrices, labels = drawn(name)
    if name == "supremix":
        options = {"weighting": None}  # else the distances of labels matter
    got = IGNORING[name](**options, ignore_index=None)(*matrices, labels)
    want = IGNORING[name](**options)(*matrices, torch.where(labels == -100, 7, labels))
    torch.testing.assert_close(got, want)
    everything = IGNORING[name](**options)(*matrices, torch.full_like(labels, -100))
    assert everything == 0


@every_variant
@pytest.mark.parametrize(
    ("dtype", "ignored"),
    [(torch.uint8, -100), (torch.int8, 255), (torch.int16, 65535), (torch.bool, 2)],
    ids=str,
)
def test_a_dtype_that_lacks_the_number_ignores_nothing(name, options, dtype, ignored):
    """Not the class that the number would be if it were wrapped to the labels' dtype."""
    torch.manual_seed(0)
    matrices, labels = drawn(name)
    wrapped = torch.tensor(ignored).to(dtype).long()
    labels = torch.where(labels == -100, wrapped, labels % (2 if dtype == torch.bool else 3))
    labels = labels.to(dtype)
    got = IGNORING[name](**options, ignore_index=ignored)(*matrices, labels)
    want = IGNORING[name](**options, ignore_index=None)(*matrices, labels)
    torch.testing.assert_close(got, want)


def test_of_floating_labels_only_the_number_itself_is_ignored():
    z, labels = torch.randn(6, 4), torch.tensor([-100.4, -99.7, 1.0, 1.0, -100.4, 2.0])
    got = LOSSES["supremix"]()(z, labels)
    torch.testing.assert_close(got, LOSSES["supremix"](ignore_index=None)(z, labels))


@pytest.mark.parametrize("name", ["supcon", "smooth_ap"])
def test_compiled_functions_ignore_other_labels(name):
    torch.manual_seed(0)
    (z,), labels = drawn(name)
    for index in (None, 0, -100):
        function = functools.partial(getattr(functional, name), ignore_index=index)
        compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(z, labels), function(z, labels))
