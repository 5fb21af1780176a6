"""Gradients have the layouts that the fake kernels declare: a compiler relies on them."""

import pytest
import torch
from layouts import column_major
from torch.utils._python_dispatch import TorchDispatchMode

from contrastloss import ops
from contrastloss.channel import COL, LSE

CALLS = {
    "pair_stats": lambda x, y, backend: ops.pair_stats(
        x, y, (LSE(), LSE(axis=COL)), cosine=True, backend=backend
    ),
    "gather_scores": lambda x, y, backend: [
        ops.gather_scores(x, y, torch.zeros(6, 2, dtype=torch.int64, device=x.device),
                          backend=backend)
    ],
    "pair_topk": lambda x, y, backend: [ops.pair_topk(x, y, 2, backend=backend).values],
    "sort_network": lambda x, y, backend: ops.sort_network(x, y[:2], backend=backend),
}  # fmt: skip


class BackwardOperators(TorchDispatchMode):
    """Records the calls of this library's backward operators."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "contrastloss" and "backward" in str(operator):
            self.calls.append((operator, args))
        return operator(*args, **(kwargs or {}))


def check(name, device, backend):
    x, y = (column_major(torch.randn(n, 4, device=device)).requires_grad_() for n in (6, 9))
    with BackwardOperators() as found:
        values = CALLS[name](x, y, backend)
        torch.autograd.grad(sum(v.sum() for v in values), (x, y), create_graph=True)
    ((operator, args),) = found.calls
    torch.library.opcheck(operator, args, test_utils="test_faketensor")


def test_of_pair_stats(device, backend):
    check("pair_stats", device, backend)


@pytest.mark.operators("pair_topk", "gather_scores")
@pytest.mark.parametrize("name", ["pair_topk", "gather_scores"])
def test_of_chosen_scores(name, device, backend):
    check(name, device, backend)


@pytest.mark.operators("sort_network")
def test_of_sort_network(device, backend):
    check("sort_network", device, backend)
