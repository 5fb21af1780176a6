"""Compares another library's loss with ours: values and gradients of all leaves, in fp64."""

import torch

RTOL, ATOL = 1e-10, 1e-12


def leaf(*shape, scale=1.0):
    return (scale * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def units(*shape):
    return torch.nn.functional.normalize(leaf(*shape).detach(), dim=-1).requires_grad_()


def summed(value):
    """One number from a loss, a tuple of losses or a dict of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return sum((k + 1) * v.sum() for k, v in enumerate(value))
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
    return (weights * value).sum()


def gradients(value, leaves):
    return torch.autograd.grad(summed(value), leaves, allow_unused=True)


def close(found, want, what, rtol=RTOL):
    torch.testing.assert_close(
        found, want, rtol=rtol, atol=ATOL, msg=lambda m: f"{what}: {m}", check_dtype=True
    )


def agree(ours, theirs, given, leaves, rtol=RTOL, **named):
    """Both give the same result, of the same type, and the same gradients of the leaves."""
    found, want = ours(*given, **named), theirs(*given, **named)
    assert type(found) is type(want)
    if isinstance(want, dict):
        assert list(found) == list(want)
    close(found, want, "value", rtol)
    if not any(leaf.requires_grad for leaf in leaves):
        return
    pairs = zip(gradients(found, leaves), gradients(want, leaves), strict=True)
    for k, (mine, other) in enumerate(pairs):
        other = torch.zeros_like(leaves[k]) if other is None else other
        close(torch.zeros_like(other) if mine is None else mine, other, f"gradient {k}", rtol)


def over_the_ranks(world, function, own, *args):
    """Every rank has the values of theirs, and the gradients of its ``own`` first leaves. Those of
    the others, which all ranks have, are the same after DDP has averaged them over ranks."""
    mine, other = (world.run(function, 4, which, *args) for which in (0, 1))
    for rank, ((values, grads), (want, theirs)) in enumerate(zip(mine, other, strict=True)):
        close(values, want, f"values of rank {rank}")
        close(grads[:own], theirs[:own], f"gradients of rank {rank}")
    for k in range(own, len(mine[0][1])):
        means = [torch.stack([grads[k] for _, grads in ranks]).mean(0) for ranks in (mine, other)]
        close(*means, f"mean of gradient {k}")
