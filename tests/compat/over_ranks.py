"""What the ranks of a test do: importable by their processes."""

import logging

import torch

from compat import solo
from compat.agree import gradients, leaf, units
from compat.rivals import pair
from contrastloss.compat import hand_over, solo_learn as ours_of_solo


def number(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def found(value, leaves):
    """A rank's values, and its gradients of the leaves."""
    grads = gradients(value, leaves)
    values = value if isinstance(value, tuple) else (value,)
    return [v.detach() for v in values], [
        torch.zeros_like(v) if g is None else g for v, g in zip(leaves, grads, strict=True)
    ]


def open_clip(group, which, name, options, n):
    """Gradients of features, scale and bias."""
    rank = torch.distributed.get_rank(group)
    torch.manual_seed(rank)
    x, y, scale, bias = units(n, 6), units(n, 6), number(9.0), number(-1.0)
    cls = getattr(pair("open_clip")[which], name)
    loss = cls(rank=rank, world_size=group.size(), **options)
    if name == "DistillClipLoss":
        teacher = units(n, 5).detach(), units(n, 5).detach(), number(20.0).detach()
        return found(loss(x, y, scale, *teacher), [x, y, scale])
    return found(loss(x, y, scale, bias), [x, y, scale, bias])


def overridden(module):
    class Signed(module.SigLipLoss):
        def get_ground_truth(self, device, dtype, num_logits, negative_only=False):
            return -super().get_ground_truth(device, dtype, num_logits, negative_only)

    return Signed


def signed(group, which, n):
    rank = torch.distributed.get_rank(group)
    torch.manual_seed(rank)
    x, y, scale, bias = units(n, 6), units(n, 6), number(9.0), number(-1.0)
    loss = overridden(pair("open_clip")[which])(rank=rank, world_size=group.size())
    return found(loss(x, y, scale, bias), [x, y, scale, bias])


def grad_cache(group, which, hard, options, n):
    torch.manual_seed(torch.distributed.get_rank(group))
    x, y = leaf(n, 6), leaf(n * (hard + 1), 6)
    loss = pair("grad_cache")[which].DistributedContrastiveLoss(n_hard_negatives=hard)
    return found(loss(x, y, **options), [x, y])


def said(group, function, *args):
    """What the adapter says in the log in two steps."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("contrastloss.compat").addHandler(handler)
    hand_over.say_once.cache_clear()
    for _ in range(2):
        function(group, 0, *args)
    return records


def ranking(group, which, columns, hardness, directions):
    torch.manual_seed(torch.distributed.get_rank(group))
    embeddings = [leaf(5, 6) for _ in range(1 + columns)]
    options = {"hardness_mode": hardness, "hardness_strength": 2.0 if hardness else 0.0}
    loss = pair("sentence_transformers")[which].MultipleNegativesRankingLoss(
        None, gather_across_devices=True, directions=directions, **options
    )
    return found(loss.compute_loss_from_embeddings(embeddings, None), embeddings)


def lightly(group, which, name, options, n):
    """Two steps: a memory bank and a centre keep the first."""
    torch.manual_seed(5)
    loss = getattr(pair("lightly")[which], name)(**options).double()
    torch.manual_seed(torch.distributed.get_rank(group))
    for _ in range(2):
        x, y = leaf(n, 6), leaf(n, 6)
        views = ([x, y], []) if name == "SwaVLoss" else ([x.detach(), y.detach()], [x, y])
        value = loss(*(views if name in ("SwaVLoss", "DINOLoss") else (x, y)))
    return found(value, [x, y])


def solo_learn(group, which, name, n):
    rank = torch.distributed.get_rank(group)
    torch.manual_seed(rank)
    function = getattr((ours_of_solo, solo)[which], name)
    x, y = leaf(n, 6), leaf(n, 6)
    if name != "simclr_loss_func":
        return found(function(x, y), [x, y])
    # an instance of each rank is also on the next one
    indexes = (torch.arange(n) + rank * (n - 1)).repeat(2)
    return found(function(torch.cat([x, y]), indexes), [x, y])
