"""Every loss over ranks gives the value and the gradients of one process on the whole batch. Many
implementations have a wrong ratio of gradients here."""

import copy
import subprocess
import sys

import pytest
import torch
from ranks import compare, together
from spread import (
    CLIPById,
    EvenMoCHi,
    NTXentById,
    autocast_step,
    collectively,
    compiled,
    counted,
    guided_step,
    loss_step,
    peak,
    schedules,
    second_derivative,
    shared,
    uneven_series,
)

import contrastloss
from contrastloss.losses import LOSSES, PairLoss, TwoViewLoss
from contrastloss.testing import Subject

STRATEGIES = ("gather", "ring")
SIZES = {1: [9], 2: [5, 4], 3: [4, 0, 6], 4: [3, 5, 0, 2]}
WORLDS = [pytest.param(world, marks=pytest.mark.extra) for world in (1, 2, 4)]
OPTIONS = {
    "cost": [{"weight": 0.7}],
    "dcl": [{}, {"weight": 0.5}, {"weight": 0.5, "detach_weight": False}],
    "supcon": [{}, {"variant": "in"}],
    "info_nce": [{}, {"hardness": 3.0}],
    "latent_positive": [{"form": "info_nce"}],
    "margin_ranking": [{}, {"symmetric": True}],
    "mochi": [{"hardest": 5, "mixed": 4, "mixed_with_query": 3}],
    "multi_similarity": [{"base": 4.0}],
    "soft_supcon": [{}, {"variant": "bce"}],
    "soft_target": [{"variant": "kl"}, {"variant": "bce", "identity": 0.5}],
    "triplet": [{"mining": "hard", "margin": 9.0}],
}
SPREAD = [
    name for name, cls in LOSSES.items() if issubclass(cls, PairLoss) and "group" not in cls.without
]
CASES = [(name, options) for name in SPREAD for options in OPTIONS.get(name, [{}])]


def class_of(name):
    return EvenMoCHi if name == "mochi" else LOSSES[name]


def inputs_of(name, n):
    """Inputs with ``n`` rows, or series, to be split."""
    if name == "simctg":
        return [1 + 0.1 * torch.randn(n, 4, 6, dtype=torch.float64)]
    return Subject(LOSSES[name]).inputs(n=n, d=6)


def whole(cls, options, inputs):
    """Value and gradients in one process, with all rows."""
    leaves = Subject(cls).leaves(inputs)
    temperature = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = cls(temperature=temperature, **options)(*leaves, logit_bias=bias)
    value, shown = value if isinstance(value, tuple) else (value, {})
    wanted = [v for v in leaves if v.requires_grad]
    grads = torch.autograd.grad(value.sum(), [*wanted, temperature, bias])
    return value.detach(), grads, shown


@pytest.mark.parametrize("world", [*WORLDS, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_step_is_that_of_one_process(ranks, name, options, strategy, world):
    cls, sizes = class_of(name), SIZES[world]
    inputs = inputs_of(name, sum(sizes))
    for reduction in ("mean", "sum"):
        given = {**options, "reduction": reduction}
        want = whole(cls, given, inputs)
        assert want[0].abs() > 0.05, "a loss of zero would hide everything"
        found = ranks.run(loss_step, world, cls, {**given, "strategy": strategy}, inputs, sizes)
        compare(found, want, world, f"{name} {options} {reduction}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_guide_of_all_ranks(ranks, strategy):
    """The embeddings of the guide are gathered or sent together with the columns."""
    cls, sizes = LOSSES["gist"], SIZES[3]
    x, y = Subject(cls).inputs(n=sum(sizes), d=6)
    guide = torch.randn(2, sum(sizes), 5, dtype=torch.float64)
    guide[1] = guide[0] + guide[1]
    options = {"temperature": 0.2, "margin": 0.1}
    leaves = [v.clone().requires_grad_() for v in (x, y)]
    value = cls(**options)(*leaves, guide=tuple(guide))
    assert value < 0.99 * cls(**options)(x, y)  # the guide drops some negatives
    want = value.detach(), torch.autograd.grad(value, leaves), {}
    options["strategy"] = strategy
    found = ranks.run(guided_step, 3, options, [x, y], list(guide), sizes)
    compare(found, want, 3, f"gist {strategy}")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SPREAD)
def test_an_empty_rank_has_the_value_and_zero_gradients(ranks, name, strategy):
    cls, sizes = class_of(name), SIZES[3]
    inputs = inputs_of(name, sum(sizes))
    options = {**OPTIONS.get(name, [{}])[0], "strategy": strategy}
    found = ranks.run(loss_step, 3, cls, options, inputs, sizes)
    value, grads, _ = found[1]
    assert value == found[0][0] != 0
    split = len([v for v in Subject(cls).leaves(inputs) if v.requires_grad]) - len(
        [k for k in shared(cls) if inputs[k].is_floating_point()]
    )
    assert [g.shape[:1] for g in grads].count((0,)) == split
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", SPREAD)
def test_rows_and_statistics(ranks, name, strategy):
    """'none' returns the losses of this rank's rows, without a factor W; statistics are means over
    all ranks."""
    cls, sizes, world = class_of(name), [5, 4], 2
    inputs, statistics = inputs_of(name, 9), "return_stats" not in cls.without
    options = {**OPTIONS.get(name, [{}])[0], "reduction": "none", "return_stats": statistics}
    rows, grads, stats = whole(cls, options, inputs)
    found = ranks.run(loss_step, world, cls, {**options, "strategy": strategy}, inputs, sizes)
    parts = [part[0] for part in found]
    if issubclass(cls, TwoViewLoss):  # x's rows first, on every rank
        views = [part.chunk(2) for part in parts]
        parts = [torch.cat([view[k] for view in views]) for k in range(2)]
    torch.testing.assert_close(torch.cat(parts), rows, rtol=1e-9, atol=1e-12)
    for k, grad in enumerate(grads):
        total = together([part[1][k] for part in found], grad)
        torch.testing.assert_close(total, grad, rtol=1e-9, atol=1e-11)
    for part in found:
        for key, value in stats.items():
            torch.testing.assert_close(part[2][key], value, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["clip", "nt_xent", "supcon"])
def test_equal_parts_need_no_header(ranks, name, strategy):
    cls = LOSSES[name]
    inputs = Subject(cls).inputs(n=8, d=6)
    found = ranks.run(loss_step, 4, cls, {"strategy": strategy}, inputs, [2, 2, 2, 2], True)
    compare(found, whole(cls, {}, inputs), 4, name)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_narrow_embeddings(ranks, strategy, dtype, rtol):
    """Columns travel as they are, gradients are added up in fp32 and rounded once."""
    cls, sizes = contrastloss.CLIPLoss, [7, 2, 8, 7]
    inputs = [v.to(dtype) for v in Subject(cls).inputs(n=24, d=16)]
    value, grads, _ = whole(cls, {}, [v.double() for v in inputs])
    found = ranks.run(loss_step, 4, cls, {"strategy": strategy}, inputs, sizes)
    for part in found:
        torch.testing.assert_close(part[0].double(), value, rtol=rtol, atol=0)
    for k in range(2):
        assert found[0][1][k].dtype == dtype
        mean = torch.cat([part[1][k].double() for part in found]) / 4
        assert (mean - grads[k]).norm() < rtol * grads[k].norm()


def test_embeddings_of_two_dtypes_under_autocast(ranks):
    cls, sizes = contrastloss.CLIPLoss, [5, 4]
    x, y = Subject(cls).inputs(n=9, d=6)
    leaves = [x.float().requires_grad_(), y.bfloat16().requires_grad_()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = cls(0.2)(*leaves)
    grads = torch.autograd.grad(value, leaves)
    for mine, own, _ in (found := ranks.run(autocast_step, 2, cls, [x, y], sizes)):
        torch.testing.assert_close(mine, value.detach(), rtol=1e-6, atol=0)
        assert [v.dtype for v in own] == [torch.float32, torch.bfloat16]
    for k, grad in enumerate(grads):
        mean = torch.cat([own[k] for _, own, _ in found]).double() / 2
        assert (mean - grad).norm() < (1e-5, 1e-2)[k] * grad.norm()


@pytest.mark.parametrize("sizes", [[4, 0, 6], [3, 3, 3]], ids=["uneven", "even"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_collectives_do_what_messages_do(ranks, strategy, sizes):
    """The collectives, used on devices other than a CPU, give the same result as the point-to-point
    messages used on a CPU."""
    cls, options = contrastloss.CLIPLoss, {"strategy": strategy}
    inputs = Subject(cls).inputs(n=sum(sizes), d=6)
    found = ranks.run(collectively, 3, loss_step, cls, options, inputs, sizes)
    compare(found, whole(cls, {}, inputs), 3, f"collectives {strategy}")


@pytest.mark.parametrize("strategy", ["gather", pytest.param("ring", marks=pytest.mark.extra)])
def test_it_compiles_around_the_collectives(ranks, strategy):
    cls, sizes = contrastloss.NTXentLoss, [5, 4]
    inputs = Subject(cls).inputs(n=9, d=6)
    leaves = [v.clone().requires_grad_() for v in inputs]
    value = cls()(*leaves)
    want = value.detach(), torch.autograd.grad(value, leaves), {}
    compare(ranks.run(compiled, 2, cls, inputs, sizes, strategy), want, 2, "compiled")


@pytest.mark.parametrize("shape", [(9, 6), (9, 4, 6)], ids=["shared", "own"])
@pytest.mark.parametrize("alone", [False, True], ids=["beside the batch", "alone"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["InfoNCELoss", "CLIPLoss", "SigLIPLoss"])
def test_given_negatives(ranks, name, strategy, alone, shape):
    """The rows of all ranks use shared negatives; a row's own negatives stay on its rank."""
    cls, sizes = getattr(contrastloss, name), [5, 0, 4]
    options = {"in_batch_negatives": not alone}
    inputs = [*Subject(cls).inputs(n=9, d=6), torch.randn(shape, dtype=torch.float64)]
    want, options = whole(cls, options, inputs), options | {"strategy": strategy}
    compare(ranks.run(loss_step, 3, cls, options, inputs, sizes), want, 3, "given")
    if len(shape) == 2:
        options["gather_negatives"] = False  # every rank gives them all
        compare(ranks.run(loss_step, 3, cls, options, inputs, sizes), want, 3, "the same")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cls", [CLIPById, NTXentById])
def test_equal_ids_on_different_ranks(ranks, cls, strategy):
    sizes, ids = [5, 0, 4], torch.tensor([1, 2, 3, 1, 5, 2, 7, 8, 1])
    inputs = [*Subject(cls.__mro__[1]).inputs(n=9, d=6), ids]
    want = whole(cls, {}, inputs)
    found = ranks.run(loss_step, 3, cls, {"strategy": strategy}, inputs, sizes)
    compare(found, want, 3, "ids")


# ---- cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [2, 4])
def test_elements_sent(ranks, world):
    """A rank with b x D columns sends all of them to every other rank once, and the gradients back
    once; the ring also sends the columns again in the backward pass."""
    n, d = 12, 64
    unit = (world - 1) * n * d
    for strategy, backward in (("gather", 1), ("ring", 2)):
        found = ranks.run(counted, world, contrastloss.CLIPLoss, {"strategy": strategy}, n, d)
        for forward_sent, backward_sent in found:
            assert unit <= forward_sent <= 1.1 * unit <= 2 * unit
            assert backward * unit <= backward_sent <= backward * 1.1 * unit
            assert forward_sent + backward_sent <= 4 * unit


def test_the_rings_memory_does_not_grow_with_the_ranks(ranks):
    n, d = 2048, 512
    block = n * d * 4
    # with four or more ranks, some steps send columns and gradients at the same time
    four, five = (max(ranks.run(peak, world, "ring", n, d)) / block for world in (4, 5))
    assert five <= four + 0.5, f"{four:.1f} and {five:.1f} blocks"
    gathered = [max(ranks.run(peak, world, "gather", n, d)) / block for world in (4, 5)]
    assert gathered[1] >= gathered[0] + 1, f"{gathered} blocks: the measure sees nothing"


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.extra)])
def test_no_deadlock_over_random_schedules(ranks, count):
    for strategy in STRATEGIES:
        found = ranks.run(schedules, 4, contrastloss.NTXentLoss, {}, count, strategy)
        assert max(found) < 1e-12
    assert max(ranks.run(schedules, 3, contrastloss.CLIPLoss, {}, count, "ring")) < 1e-12


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_second_derivative_is_an_error(ranks, strategy):
    """Otherwise it would be a derivative without the terms that pass through other ranks."""
    for message in ranks.run(second_derivative, 2, strategy, 5):
        assert "second derivatives are not implemented" in str(message)


# ---- options -------------------------------------------------------------------------------------


def test_series_of_different_lengths_are_named(ranks):
    for answer in ranks.answers(uneven_series, 2):
        assert "batch: got (3,) on rank 0; (4,) on rank 1; expected the same" in answer.args[0]


def test_layers_of_modalities_take_no_group(ranks):
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    (answer,) = ranks.answers(loss_step, 1, contrastloss.MultiModalLoss, {}, [x, x], [2])
    assert "embeddings[0]: got shape (2, 4, 3), expected (N, D)" in answer.args[0]


LATER = """
import torch, torch.distributed as dist
from contrastloss import CLIPLoss, NTXentLoss
losses = CLIPLoss(group="world"), NTXentLoss()
losses[1].group = "world"
x, y = torch.randn(2, 5, 3)
for loss in losses:
    try:
        loss(x, y)
    except RuntimeError as error:
        print(error)
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
for loss in losses:
    torch.testing.assert_close(loss(x, y), type(loss)()(x, y))
    assert loss.group.world == 1
dist.destroy_process_group()
"""


def test_the_default_group_is_looked_up_at_the_first_call():
    """Before torch.distributed is initialised, dist.group.WORLD is None, which is a local loss.
    The name is looked up when it is needed, and an error if there is no group then."""
    done = subprocess.run(
        [sys.executable, "-c", LATER], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("group: got 'world', expected torch.distributed.init_process_gr") == 2


def test_wrong_groups_are_named():
    x = torch.randn(3, 2)
    with pytest.raises(TypeError, match="group: got int, expected a ProcessGroup or a DeviceMesh"):
        contrastloss.CLIPLoss(group=3)
    with pytest.raises(
        ValueError, match="strategy: got 'star', expected one of auto, gather, ring"
    ):
        contrastloss.CLIPLoss(strategy="star")
    assert copy.deepcopy(contrastloss.CLIPLoss())(x, x) == contrastloss.CLIPLoss()(x, x)
