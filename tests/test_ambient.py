"""A default dtype, default device or mode that a caller has set changes no result, and does not
leak into later calls."""

import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from contrastloss import functional, metrics, mining, mixing, ops, sorting
from contrastloss.backends.constant import constant
from contrastloss.channel import COL, LSE, SUM, same
from contrastloss.losses import LOSSES
from contrastloss.testing import example


def tensors(values):
    return [v for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


def inputs(cls, device):
    """Example inputs in fp32."""
    made = example(cls, 7, 5, torch.Generator().manual_seed(0))

    def convert(value):
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, torch.float32 if value.is_floating_point() else value.dtype)

    return tree_map(convert, list(made))


def run(function, given):
    """The tensors that a function returns, and their gradients by the inputs."""
    torch.manual_seed(0)
    leaves = tree_map(
        lambda v: v.clone().requires_grad_(v.is_floating_point())
        if isinstance(v, torch.Tensor) else v, given
    )  # fmt: skip
    values = tensors(function(*leaves))
    wanted = [v for v in tensors(leaves) if v.requires_grad]
    differentiable = [v.sum() for v in values if v.requires_grad]
    if not differentiable:
        return values
    total = torch.stack(differentiable).sum()
    return [*values, *torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)]


def assert_equal(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.device) == (b.dtype, b.device)
        assert torch.equal(a, b)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AMBIENT = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
}
METRICS = metrics.recall_at_k, metrics.mean_reciprocal_rank, metrics.mean_average_precision
every_ambient = pytest.mark.parametrize("ambient", AMBIENT.values(), ids=AMBIENT)


@every_ambient
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_the_same_whatever_the_defaults_are(name, ambient, device):
    cls = LOSSES[name]
    options = [{}, *({"return_stats": True} for _ in "x" if hasattr(cls, "extra"))]
    for option in options:
        for backend in (None, "reference"):
            loss, given = cls(**option, backend=backend), inputs(cls, device)
            want = run(loss, given)
            with ambient():
                assert_equal(run(loss, given), want)


@every_ambient
def test_operators_sorting_mining_mixing_and_metrics_too(ambient, backend, device):
    g = torch.Generator().manual_seed(1)
    x, y, p = (torch.randn(n, 5, generator=g).to(device) for n in (6, 8, 6))
    labels, own = torch.tensor([0, 1, 0, 2, 1, 2], device=device), torch.arange(6, device=device)
    calls = [
        lambda x, y: ops.pair_topk(
            x, y, 3, lower=-1.0, upper=9.0, sample=0.5, seed=3, scale=0.3, backend=backend
        ),
        lambda x, y: ops.gather_scores(x, y, own[:, None], scale=0.3, backend=backend),
        lambda x, y: sorting.sort(x, distribution="gaussian", steepness=0.3, backend=backend),
        lambda x, y: sorting.rank(x, network="bitonic", backend=backend),
        lambda x, y: (sorting.soft_rank(x), sorting.soft_sort(x, regularization="kl")),
        *(
            lambda x, y, kind=kind: (
                mining.triplet_margin(x, labels, 2, kind=kind, margin=0.3, backend=backend)
            )
            for kind in ("all", "hard", "semihard", "easy")
        ),
        lambda x, y: (mining.multi_similarity(x, labels, 2, backend=backend)),
        lambda x, y: (
            mining.hard_negatives(
                x, y, own, 2, absolute_margin=0.1, relative_margin=0.3, max_score=0.9,
                backend=backend,
            ),
        ),
        *(
            lambda x, y, metric=metric: metric(x, labels=labels, backend=backend)
            for metric in (
                *METRICS, metrics.mean_similarities, metrics.similarity_histogram,
                metrics.knn_accuracy,
            )
        ),
        *(lambda x, y, metric=metric: metric(x, y, k=2, backend=backend) for metric in METRICS[1:]),
        lambda x, y: (metrics.alignment(x, x + 1), metrics.uniformity(x, backend=backend)),
        lambda x, y: mixing.latent_positives(x, y, 3),
        lambda x, y: mixing.hard_mixtures(x, labels),
        lambda x, y: mixing.label_mixtures(x, p[:, 0]),
    ]  # fmt: skip
    for call in calls:
        want = run(call, (x, y))
        with ambient():
            assert_equal(run(call, (x, y)), want)


# ---- caches must not keep settings of their first caller -----------------------------------------


def forget():
    """Clears every cache of the package."""
    found = {
        id(value): value
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "contrastloss"
        for value in vars(module).values()
        if hasattr(value, "cache_clear")
    }
    assert len(found) >= 8
    for value in found.values():
        value.cache_clear()


def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def within(mode):
    def first(call):
        with mode():
            call()

    return first


FIRST = {
    "meta": within(lambda: torch.device("meta")),
    "float64": within(lambda: default_dtype(torch.float64)),
    "inference": within(torch.inference_mode),
    "fake": within(lambda: FakeTensorMode(allow_non_fake_inputs=True)),
    "autocast": within(lambda: torch.autocast("cpu", torch.bfloat16)),
    "thread": in_a_thread,
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_a_first_call_leaves_nothing_of_its_mode_behind(first, backend, device):
    g = torch.Generator().manual_seed(2)
    x, y = (torch.randn(6, 5, generator=g).to(device) for _ in "xy")
    ids = {"a": torch.arange(6, device=device) // 2}

    def call(x, y):
        channels = (LSE(0.7, pairs=(same("a"),)), SUM("softplus", axis=COL))
        return [
            *ops.pair_stats(x, y, channels, rows=ids, cols=ids, backend=backend),
            ops.pair_topk(x, y, 2, backend=backend).values,
            *ops.sort_network(x, y[:1], backend=backend),
            *ops.sort_network(x, y[:1], network="bitonic", backend=backend),
            functional.clip(x, y, temperature=0.3, backend=backend),
        ]

    def attempt():
        try:
            call(x, y)
        except RuntimeError as error:  # a fake mode may refuse real tensors
            assert "ake" in str(error)  # noqa: PT017

    forget()
    want = run(call, (x, y))
    forget()
    first(attempt)
    assert_equal(run(call, (x, y)), want)


def test_constants_are_ordinary_tensors_of_the_cpu():
    with torch.inference_mode(), torch.device("meta"), default_dtype(torch.float64):
        kept = constant([1, 2], torch.int32)
    assert not kept.is_inference()
    assert (kept.device.type, kept.dtype, kept.tolist()) == ("cpu", torch.int32, [1, 2])


def test_a_function_keeps_the_modules_of_equal_options_of_one_type_apart():
    x, prototypes = torch.randn(4, 3), torch.randn(5, 3)
    functional.swav(x, x, prototypes, iterations=1)
    with pytest.raises(TypeError, match=r"^iterations: got bool, expected an integer"):
        functional.swav(x, x, prototypes, iterations=True)


def test_a_function_takes_lists():
    x, labels = torch.randn(6, 4), torch.arange(6) // 2
    want = functional.recall_at_k(x, labels, ks=(1, 2))
    assert torch.equal(functional.recall_at_k(x, labels, ks=[1, 2]), want)
