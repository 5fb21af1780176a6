"""What solo-learn's functions compute, as in its repository (vturrisi/solo-learn, solo/losses and
solo/utils/misc.py): on matrices, and over ranks with its gradients."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.nn.functional import all_gather


def spread():
    return dist.is_initialized() and dist.get_world_size() > 1


def simclr_loss_func(z, indexes, temperature=0.1):
    """Columns are all ranks' rows, whose gradients are added up over ranks."""
    rank, z = dist.get_rank() if spread() else 0, F.normalize(z, dim=-1)
    every, labels = z, indexes
    if spread():
        every = torch.cat(all_gather(z))
        labels = torch.cat(all_gather(indexes))
    total = 0
    for i, (row, label) in enumerate(zip(z, indexes, strict=True)):
        weight = (every @ row / temperature).exp()
        others = torch.arange(len(every)) != rank * len(z) + i
        total -= (weight[others & (labels == label)].sum() / weight[others].sum()).log()
    return total / len(z)


def mocov2plus_loss_func(query, key, queue, temperature=0.1):
    scores = torch.cat([(query * key).sum(1, keepdim=True), query @ queue], 1) / temperature
    return -scores.log_softmax(1)[:, 0].mean()


class Mean(torch.autograd.Function):
    """The mean over ranks, of which each rank's part has its own gradient alone."""

    @staticmethod
    def forward(ctx, value):
        value = value.clone()
        dist.all_reduce(value)
        return value / dist.get_world_size()

    @staticmethod
    def backward(ctx, grad):
        return grad / dist.get_world_size()


def barlow_loss_func(z1, z2, lamb=5e-3, scale_loss=0.025):
    a, b = (torch.nn.BatchNorm1d(z.shape[1], affine=False).to(z)(z) for z in (z1, z2))
    c = a.mT @ b / len(z1)
    c = Mean.apply(c) if spread() else c
    weights = torch.full_like(c, lamb).fill_diagonal_(1)
    return scale_loss * (weights * (c - torch.eye(len(c)).to(c)).square()).sum()


def vicreg_loss_func(z1, z2, sim_loss_weight=25.0, var_loss_weight=25.0, cov_loss_weight=1.0):
    loss = sim_loss_weight * (z1 - z2).square().mean()
    for z in (z1, z2):
        deviation = (z.var(0) + 1e-4).sqrt()
        centred = z - z.mean(0)
        cov = centred.mT @ centred / (len(z) - 1)
        off = cov.square().sum() - cov.diagonal().square().sum()
        loss = loss + var_loss_weight * (1 - deviation).relu().mean()
        loss = loss + cov_loss_weight * off / z.shape[1]
    return loss


def byol_loss_func(p, z, simplified=True):
    least = 1e-8 if simplified else 1e-12
    p, z = (v / v.norm(dim=-1, keepdim=True).clamp_min(least) for v in (p, z.detach()))
    return 2 - 2 * (p * z).sum(-1).mean()
