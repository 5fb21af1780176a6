"""Steps of gradient caching that the ranks of a test run. A module of its own, since their
processes import it."""

import contextlib
from unittest import mock

import torch
import torch.distributed as dist
from ranks import mine
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from contrastloss import CLIPLoss, LogitScale
from contrastloss.gradcache import GradCache


class Towers(nn.Module):
    """Both towers and the temperature in one module, as DDP wants them."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), nn.Tanh())
        self.images, self.texts, self.temperature = nn.Linear(8, 4), nn.Linear(8, 4), LogitScale()
        self.double()

    def forward(self, x, y):
        return self.images(self.tower(x)), self.texts(self.tower(y)), self.temperature()


def batch(n):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(n, 6, generator=g, dtype=torch.float64) for _ in range(2)]


def in_graph(model, size, x, y):
    """The same chunks, all with graph; at least one of them, as every rank has to call."""
    starts = range(0, max(len(x), 1), size)
    xs, ys, scales = zip(*(model(x[k : k + size], y[k : k + size]) for k in starts), strict=True)
    return torch.cat(xs), torch.cat(ys), scales[-1]


def whole(sizes):
    """The step of one process on the whole batch, without dropout."""
    model = Towers()
    x, y, scale = model(*batch(sum(sizes)))
    loss = CLIPLoss()(x, y, logit_scale=scale)
    loss.backward()
    return loss.detach(), gradients(model)


def gradients(model):
    def full(grad):
        return grad.full_tensor() if hasattr(grad, "full_tensor") else grad

    return [full(p.grad) for p in model.parameters()]


class Reductions(list):
    """The sizes of what DDP has reduced in a group, by its communication hook."""

    def __init__(self, model, group):
        self.group = group
        model.register_comm_hook(None, self.mean)

    def mean(self, _, bucket):
        self.append(bucket.buffer().numel())
        done = dist.all_reduce(bucket.buffer(), group=self.group, async_op=True).get_future()
        return done.then(lambda future: future.value()[0] / self.group.size())


def with_ddp(group, sizes, size, dropout, cached, wrapped):
    """Loss, gradients and the number of reductions of the second of two steps, whose buckets are
    the final ones. ``wrapped``: the encoder is a function, which does not show its module."""
    model = DistributedDataParallel(Towers(dropout), process_group=group)
    calls = Reductions(model, group)
    x, y = (mine(group, sizes, part) for part in batch(sum(sizes)))
    encode = (lambda a, b: model(a, b)) if wrapped else model
    for _ in range(2):
        model.zero_grad()
        calls.clear()
        torch.manual_seed(dist.get_rank(group))
        with GradCache(size, modules=[model] if wrapped else []) as cache:
            found = cache(encode, x, y) if cached else in_graph(model, size, x, y)
            loss = CLIPLoss(group=group)(*found[:2], logit_scale=found[2])
            loss.backward()
    return loss.detach(), gradients(model.module), len(calls)


def siamese(group, sizes, size):
    """Two calls of one module, which reduces its gradients in the last chunk of the last of them,
    and not at all in a step that is accumulated."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(6, 4).double(), process_group=group)
    calls = Reductions(model, group)
    x, y = (mine(group, sizes, part) for part in batch(sum(sizes)))
    numbers = []
    for synced in (False, True):
        cache = GradCache(size)
        with contextlib.nullcontext() if synced else model.no_sync():
            CLIPLoss(group=group)(cache(model, x), cache(model, y)).backward()
        numbers.append(len(calls))
    return numbers, gradients(model.module)


def with_fsdp(group, sizes, size, sync):
    """Loss, gradients and the number of reductions."""
    model = Towers()
    mesh = DeviceMesh.from_group(group, "cpu")
    fully_shard(model.tower, mesh=mesh)
    fully_shard(model, mesh=mesh)
    x, y = (mine(group, sizes, part) for part in batch(sum(sizes)))
    # what FSDP calls, by the version of torch
    name = next(n for n in ("reduce_scatter_single", "reduce_scatter_tensor") if hasattr(dist, n))
    reduce, count = getattr(dist, name), []

    def counted(*args, **kwargs):
        count.append(1)
        return reduce(*args, **kwargs)

    with mock.patch.object(dist, name, counted):
        for synced in (sync, True):
            model.zero_grad()
            with GradCache(size, sync=synced) as cache:
                x_, y_, scale = cache(model, x, y)
                loss = CLIPLoss(group=group)(x_, y_, logit_scale=scale)
                loss.backward()
            count.append(0)
    return loss.detach(), gradients(model), count
