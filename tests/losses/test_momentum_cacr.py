"""CACR of queries against keys, with the properties of all losses and by hand."""

from math import e, exp, log

import pytest
import torch
from properties import E1, E2, checks_but, close, tensor

from contrastloss import MomentumCACRLoss
from contrastloss.functional import momentum_cacr
from contrastloss.testing import Subject


# the weights are constants: gradients are compared with those of the reference
@checks_but("gradients")
@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
def test_properties(check, cost, device, backend):
    check(Subject(MomentumCACRLoss, {"cost": cost}, device, backend, thorough=False))


def test_by_hand(device, backend):
    # distances of the queries to their key 0 and 2; scores with the keys 1, 0 and 0, 1
    queries, keys = tensor([E1, E2], [E2, E1], device=device), tensor(E1, E2, device=device)
    options = {"reduction": "none", "backend": backend}
    far = 1 / (1 + exp(-2))
    near = log(1 + exp(-1))
    close(momentum_cacr(queries, keys, **options), [far * log(1 + e) + (1 - far) * near] * 2)
    close(momentum_cacr(queries, keys, cost="euclidean", **options), [far - (1 - far)] * 2)
    # one row has no negatives
    close(momentum_cacr(queries[:1], keys[:1], cost="euclidean", **options), [far])


def test_errors(device):
    queries, keys = torch.ones(3, 2, 4, device=device), torch.ones(3, 4, device=device)
    with pytest.raises(ValueError, match=r"keys: got shape \(2, 4\), expected \(3, 4\)"):
        momentum_cacr(queries, keys[:2])
    with pytest.raises(ValueError, match="cost: got 'cosine'"):
        MomentumCACRLoss(cost="cosine")
