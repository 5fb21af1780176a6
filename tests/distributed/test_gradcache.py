"""Gradient caching over ranks: a step is that of the same chunks run with graph and, without
dropout, that of one process on the whole batch; gradients are reduced once."""

import pytest
import torch
from cached import batch, gradients, siamese, whole, with_ddp, with_fsdp
from torch.testing import assert_close

from contrastloss import CLIPLoss

SIZES = {1: [9], 2: [5, 4], 3: [4, 0, 6], 4: [3, 5, 1, 2]}


def agree(found, want, rtol=1e-10):
    assert_close(found[0], want[0], rtol=rtol, atol=1e-12)
    for ours, theirs in zip(found[1], want[1], strict=True):
        assert (ours - theirs).norm() <= rtol * theirs.norm()
        assert theirs.norm() > 0


@pytest.mark.parametrize("wrapped", [False, True], ids=["module", "function"])
@pytest.mark.parametrize("world", SIZES)
def test_ddp(ranks, world, wrapped):
    sizes = SIZES[world]
    found = ranks.run(with_ddp, world, sizes, 2, 0.0, True, wrapped)
    for mine in found:
        agree(mine, whole(sizes))
        assert mine[2] == 1


@pytest.mark.parametrize("world", [2, 4])
def test_ddp_with_dropout(ranks, world):
    sizes = SIZES[world]
    cached, plain = (ranks.run(with_ddp, world, sizes, 2, 0.4, how, False) for how in (True, False))
    for ours, theirs in zip(cached, plain, strict=True):
        agree(ours, theirs)
    assert not torch.equal(cached[0][0], whole(sizes)[0])


def test_one_module_for_both_sides(ranks):
    """A step within ``no_sync``, whose gradients stay, and a second one, which reduces both."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 4).double()
    loss = CLIPLoss()(*map(model, batch(9)))
    (2 * loss).backward()
    for numbers, grads in ranks.run(siamese, 2, SIZES[2], 2):
        assert numbers == [0, 1]
        agree((loss, grads), (loss, gradients(model)))


@pytest.mark.parametrize("sync", [True, False])
def test_fsdp(ranks, sync):
    found = ranks.run(with_fsdp, 2, SIZES[2], 3, sync)
    reductions = [1, 1, 0]  # of the tower, and of the rest
    for mine in found:
        assert mine[2] == (reductions if sync else [0]) + reductions
        if sync:
            agree(mine, whole(SIZES[2]))
