"""Functions that the ranks of a test run. A module of its own, since their processes import it."""

import contextlib
from inspect import signature
from unittest import mock

import torch
import torch.distributed as dist
from ranks import mine

from contrastloss import (
    CLIPLoss,
    CrossBatchMemory,
    EmbeddingQueue,
    GISTLoss,
    HierarchicalContrastiveLoss,
    MoCHiLoss,
    MoCoLoss,
    NTXentLoss,
    SampledContrastiveLoss,
    SupConLoss,
    SupReMixLoss,
    SwAVLoss,
)
from contrastloss.distributed import Peers, pair_stats
from contrastloss.testing import Subject

VECTORS = ("row_scale", "col_scale", "row_bias", "col_bias")


def stats(group, channels, problem, row_sizes, col_sizes, strategy, upstream):
    """Values of this rank and, if ``upstream`` is given, gradients of its tensors."""
    x, y = problem["x"], problem["y"]
    x = mine(group, row_sizes, x).clone().requires_grad_()
    y = None if y is None else mine(group, col_sizes, y).clone().requires_grad_()
    scale = problem["scale"].clone().requires_grad_()
    options = {"scale": scale}
    for name in VECTORS:
        if name in problem:
            sizes = row_sizes if name.startswith("row") else col_sizes
            options[name] = mine(group, sizes, problem[name]).clone().requires_grad_()
    rows = {k: mine(group, row_sizes, v).clone() for k, v in problem["rows"].items()}
    cols = {k: mine(group, col_sizes, v).clone() for k, v in problem["cols"].items()}
    shifts = [v.requires_grad_() for d in (rows, cols) for k, v in d.items() if k == "shift"]
    results, layout = pair_stats(
        x, y, channels, group=group, strategy=strategy, rows=rows,
        cols=None if y is None and not cols else cols, cosine=problem["cosine"], **options,
    )  # fmt: skip
    assert layout.rows == tuple(row_sizes)
    flat = [v for r in results for v in ([r] if isinstance(r, torch.Tensor) else r)]
    if upstream is None:
        return [v.detach() for v in flat], []
    loss = 0
    for value, weight, axis in zip(flat, upstream, _axes(channels), strict=True):
        if value.is_floating_point():
            sizes = row_sizes if axis == "row" else col_sizes
            # the -inf of an empty set times a weight of 0 would be NaN
            finite = torch.where(value == -torch.inf, 0.0, value)
            loss = loss + (finite * mine(group, sizes, weight)).sum()
    wanted = [x, *([] if y is None else [y]), *options.values(), *shifts]
    return [v.detach() for v in flat], list(torch.autograd.grad(loss, wanted))


def batched_stats(group, channels, problem, row_sizes, col_sizes, upstream):
    """The same with batch dimensions, for channels of rows."""

    def own(sizes, value, dim):
        return mine(group, sizes, value.movedim(dim, 0)).movedim(0, dim).clone()

    x, y = own(row_sizes, problem["x"], -2), own(col_sizes, problem["y"], -2)
    leaves = [v.requires_grad_() for v in (x, y, own(col_sizes, problem["col_bias"], -1))]
    rows, cols = (
        {k: own(sizes, v, -2 if k == "form" else -1) for k, v in problem[side].items()}
        for side, sizes in (("rows", row_sizes), ("cols", col_sizes))
    )
    results, _ = pair_stats(
        x, y, channels, group=group, rows=rows, cols=cols, col_bias=leaves[2], cosine=True
    )
    flat = [v for r in results for v in ([r] if isinstance(r, torch.Tensor) else r)]
    pairs = [(v, own(row_sizes, u, -1)) for v, u in zip(flat, upstream, strict=True)]
    loss = sum((v * u).sum() for v, u in pairs if v.is_floating_point())
    return [v.detach() for v in flat], list(torch.autograd.grad(loss, leaves))


def _axes(channels):
    return [c.axis for c in channels for _ in c.returns]


def collectively(group, function, *args):
    """``function`` with the collectives that are used on devices other than a CPU."""
    with mock.patch.object(Peers, "direct", return_value=False):
        return function(group, *args)


class EvenMoCHi(MoCHiLoss):
    """The same numbers for every query, wherever it is."""

    def draw(self, count, device):
        numbers = 3 * self.mixed + 2 * self.mixed_with_query
        return (0.37 * torch.arange(1, numbers + 1) % 1).expand(count, -1)


class CLIPById(CLIPLoss):
    """With ids as an input."""

    def forward(self, x, y, ids, **overrides):
        return super().forward(x, y, ids=ids, **overrides)


class NTXentById(NTXentLoss):
    """With ids as an input."""

    def forward(self, x, y, ids, **overrides):
        return super().forward(x, y, ids=ids, **overrides)


def shared(cls, options=()):
    """Positions of the arguments that are the same on every rank."""
    same = {"queue", "bank", "bank_labels", "prototypes"}
    if "gather_negatives" in options:
        same.add("negatives")
    if issubclass(cls, SampledContrastiveLoss):
        same.add("y")
    names = list(signature(cls.forward).parameters)[1:]
    return {k for k, name in enumerate(names) if name in same}


def loss_step(group, cls, options, inputs, sizes, equal_sizes=False):
    """A training step on this rank's part of a batch: the value, all gradients and statistics."""
    same = shared(cls, options)
    own = [v if k in same else mine(group, sizes, v) for k, v in enumerate(inputs)]
    leaves = Subject(cls).leaves(own)
    temperature = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = cls(temperature=temperature, group=group, equal_sizes=equal_sizes, **options)
    value = loss(*leaves, logit_bias=bias)
    value, shown = value if isinstance(value, tuple) else (value, {})
    total = value if value.ndim == 0 else value.sum()
    wanted = [v for v in leaves if v.requires_grad]
    grads = torch.autograd.grad(total, [*wanted, temperature, bias])
    return value.detach(), list(grads), shown


def swav_step(group, inputs, stored, sizes):
    """SwAV of large and small crops on this rank's part of the batch, with this rank's queues."""
    x, y, crops, prototypes = inputs
    own = [mine(group, sizes, v).clone().requires_grad_() for v in (x, y, crops)]
    own.append(prototypes.clone().requires_grad_())
    queues = [EmbeddingQueue(7, x.shape[1], dtype=x.dtype) for _ in range(2)]
    for queue, rows in zip(queues, stored[dist.get_rank(group)], strict=True):
        queue.enqueue(rows)
    loss = SwAVLoss(constant_norms=True, group=group)
    value = loss(*own[:2], own[3], crops=own[2], queues=queues)
    return value.detach(), list(torch.autograd.grad(value, own)), {}


def supremix_step(group, z, labels, mixtures, sizes):
    """SupReMix of this rank's rows, with mixtures of them."""
    rank = dist.get_rank(group)
    own = mine(group, sizes, z).clone().requires_grad_()
    loss = SupReMixLoss(0.2, separate_maxima=True, group=group)
    value = loss(own, mine(group, sizes, labels), mixtures=mixtures[rank])
    return value.detach(), list(torch.autograd.grad(value, [own])), {}


def autocast_step(group, cls, inputs, sizes):
    """Value and gradients of a loss of two embeddings under autocast, the second in bfloat16."""
    x, y = (mine(group, sizes, v).clone() for v in inputs)
    leaves = [x.float().requires_grad_(), y.bfloat16().requires_grad_()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = cls(0.2, group=group)(*leaves)
    return value.detach(), list(torch.autograd.grad(value, leaves)), {}


def uneven_series(group):
    """Series with another number of time steps on every rank."""
    x = torch.randn(2, 3 + dist.get_rank(group), 4)
    return HierarchicalContrastiveLoss(group=group)(x, x)


def guided_step(group, options, inputs, guide, sizes):
    """A training step of GISTLoss with a guide."""
    x, y = (mine(group, sizes, v).clone().requires_grad_() for v in inputs)
    own = tuple(mine(group, sizes, v).clone() for v in guide)
    value = GISTLoss(group=group, **options)(x, y, guide=own)
    return value.detach(), list(torch.autograd.grad(value, (x, y))), {}


def own_step(group, cls, options, pieces, common):
    """A training step with this rank's own arguments; all floating ones get a gradient."""
    own = pieces[dist.get_rank(group)]
    leaves = {n: v.clone().requires_grad_() for n, v in own.items() if is_floating(v)}
    value = cls(group=group, **options)(**{**own, **leaves}, **common)
    value, shown = value if isinstance(value, tuple) else (value, {})
    return value.detach(), list(torch.autograd.grad(value, tuple(leaves.values()))), shown


def is_floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def counted(group, cls, options, n, d):
    """The numbers of elements that this rank sends in a forward and in a backward pass."""
    sent = 0
    swap, batch = Peers.swap, dist.batch_isend_irecv

    def swapped(peers, to, into, tag):
        nonlocal sent
        sent += sum(part.numel() for k, part in enumerate(to) if k != peers.rank)
        return swap(peers, to, into, tag)

    def batched(ops):
        nonlocal sent
        sent += sum(op.tensor.numel() for op in ops if op.op is dist.isend)
        return batch(ops)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Peers, "swap", swapped))
        stack.enter_context(mock.patch.object(dist, "batch_isend_irecv", batched))
        x, y = (torch.randn(n, d).requires_grad_() for _ in range(2))
        value = cls(group=group, equal_sizes=True, **options)(x, y)
        forward, sent = sent, 0
        value.backward()
        return forward, sent


def schedules(group, cls, options, count, strategy):
    """The largest error of the value over a sequence of batches with random sizes."""
    world = dist.get_world_size(group)
    generator = torch.Generator().manual_seed(3)  # the same on every rank
    worst = 0.0
    for _ in range(count):
        sizes = torch.randint(0, 5, (world,), generator=generator).tolist()
        x, y = torch.randn(2, sum(sizes), 3, generator=generator, dtype=torch.float64)
        own = [mine(group, sizes, v).clone().requires_grad_() for v in (x, y)]
        value = cls(group=group, strategy=strategy, **options)(*own)
        value.backward()
        whole = cls(**options)(x, y)
        worst = max(worst, (value - whole).abs().item())
    return worst


def peak(group, strategy, n, d):
    """The peak memory of a training step, in bytes above the memory before it."""
    x, y = (torch.randn(n, d).requires_grad_() for _ in range(2))
    loss = CLIPLoss(group=group, strategy=strategy)
    loss(x[:64], y[:64]).backward()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _high()
    loss(x, y).backward()
    return _high() - before


def _high():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def compiled(group, cls, inputs, sizes, strategy):
    """The value and gradients of a compiled loss."""
    leaves = [mine(group, sizes, v).clone().requires_grad_() for v in inputs]
    loss = torch.compile(cls(group=group, strategy=strategy), backend="aot_eager")
    value = loss(*leaves)
    return value.detach(), list(torch.autograd.grad(value, leaves)), {}


def enqueued(group, size, batches, equal_sizes, differ=False):
    """The state of a queue after enqueuing this rank's parts of batches (keys, labels, ids)."""
    size += differ and dist.get_rank(group)
    queue = EmbeddingQueue(size, 2, labels=True, ids=True)
    for sizes, *columns in batches:
        own = [mine(group, sizes, column) for column in columns]
        queue.enqueue(*own, group=group, equal_sizes=equal_sizes)
    return queue.state_dict()


def moco_steps(group, size, steps):
    """Value and gradient of every step. Its keys are enqueued before its backward pass."""
    queue = EmbeddingQueue(size, 3, ids=True, dtype=torch.float64)
    loss, found = MoCoLoss(0.3, group=group), []
    for sizes, pair, ids in steps:
        query, key = (mine(group, sizes, v).clone() for v in pair)
        query.requires_grad_()
        own = mine(group, sizes, ids)
        value = loss(query, key, queue, ids=own)
        queue.enqueue(key, ids=own, group=group)
        found.append((value.detach(), torch.autograd.grad(value, query)[0]))
    return found


def supcon_steps(group, size, steps, strategy):
    """Value and gradient of every step of a loss with a memory."""
    loss = SupConLoss(0.3, group=group, strategy=strategy)
    memory, found = CrossBatchMemory(loss, size, 3, dtype=torch.float64), []
    for sizes, z, labels in steps:
        z = mine(group, sizes, z).clone().requires_grad_()
        value = memory(z, mine(group, sizes, labels))
        found.append((value.detach(), torch.autograd.grad(value, z)[0]))
    return found


def second_derivative(group, strategy, n):
    """The error message of a second derivative, or the derivative if there is no error."""
    x, y = torch.randn(2, n, 3, dtype=torch.float64)
    x.requires_grad_()
    value = CLIPLoss(group=group, strategy=strategy)(x, y)
    (grad,) = torch.autograd.grad(value, x, create_graph=True)
    try:
        return torch.autograd.grad(grad.square().sum(), x)
    except RuntimeError as error:
        return str(error)
