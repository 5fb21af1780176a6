"""Which backends can run an operator on the device of the test suite."""

from functools import lru_cache

import torch

from contrastloss import ops
from contrastloss.backends.choose import BACKENDS
from contrastloss.channel import LSE

#: the smallest call of each operator, with a given backend
CALLS = {
    "pair_stats": lambda x, backend: ops.pair_stats(x, x, (LSE(),), backend=backend),
    "pair_topk": lambda x, backend: ops.pair_topk(x, None, 1, backend=backend),
    "gather_scores": lambda x, backend: ops.gather_scores(
        x, x, torch.zeros(2, 1, dtype=torch.int64, device=x.device), backend=backend
    ),
    "sort_network": lambda x, backend: ops.sort_network(x, backend=backend),
}


@lru_cache
def serves(backend, operator, device):
    try:
        CALLS[operator](torch.ones(2, 2, device=device), backend)
    except RuntimeError as error:
        if "cannot serve" not in str(error):
            raise
        return False
    return True


def serving(device, operators=("pair_stats",), among=BACKENDS):
    """Names of the backends that can run all of the operators. Other errors are raised."""
    return [name for name in among if all(serves(name, each, device) for each in operators)]
