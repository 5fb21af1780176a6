from math import e, log1p

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor

from contrastloss import CLIPLoss, ClusterNTXentLoss, NTXentLoss
from contrastloss.functional import cluster_nt_xent
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(ClusterNTXentLoss, {"against": "own", "across": True}, device, thorough=False))


@pytest.mark.parametrize("against", ["other", "own"])
@pytest.mark.parametrize("across", [False, True])
def test_on_every_backend(against, across, device, backend):
    options = {"against": against, "across": across}
    CHECKS[0](Subject(ClusterNTXentLoss, options, device, backend))


def test_by_hand(device, backend):
    # x = e1, e1, e2 and y = e1, e2, e2; the first two instances share a cluster
    x, y = tensor(E1, E1, E2, device=device), tensor(E1, E2, E2, device=device)
    clusters = torch.tensor([4, 4, 9], device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    # x_0: positive score 1; e2, e2 in the other cluster, e1 and e2 in its own
    rows = cluster_nt_xent(x, y, clusters, **options)
    close(rows[0], log1p(2 / e))
    close(rows[1], log1p(2))
    close(rows[4], log1p(2 * e))  # y_1 = e2, its positive e1
    rows = cluster_nt_xent(x, y, clusters, against="own", **options)
    close(rows, [log1p((e + 1) / e), log1p(2 * e), 0.0, log1p((e + 1) / e), log1p(2), 0.0])
    # negatives of the other view only: y_1 for x_0, y_0 for x_1, and x for y_0 and y_1
    rows = cluster_nt_xent(x, y, clusters, against="own", across=True, **options)
    close(rows, [log1p(1 / e), log1p(e), 0.0, log1p(1), log1p(1), 0.0])


def test_where_clusters_do_not_matter(device, backend):
    x, y = torch.randn(2, 6, 4, device=device, dtype=torch.float64)
    options, one = {"temperature": 0.2, "backend": backend}, torch.zeros(6, device=device).long()
    want = NTXentLoss(**options)(x, y)
    close(cluster_nt_xent(x, y, torch.arange(6, device=device), **options), want)
    close(cluster_nt_xent(x, y, one, against="own", **options), want)
    clip = CLIPLoss(**options)(x, y)
    close(cluster_nt_xent(x, y, one, against="own", across=True, **options), clip)


def test_statistics_are_of_rows_with_negatives(device, backend):
    x, y = tensor(E1, E1, E2, device=device), tensor(E1, E2, E2, device=device)
    loss = ClusterNTXentLoss(1.0, against="own", return_stats=True, backend=backend)
    _, stats = loss(x, y, torch.tensor([4, 4, 9], device=device))
    # x_0, x_1, y_0, y_1: positive scores 1, 0, 1, 0; hardest negatives 1, 1, 1 and 0
    close(stats["positive"], 1 / 2)
    close(stats["hardest_negative"], 3 / 4)
    close(stats["accuracy"], 0.0)


def test_without_negatives(device, backend):
    x, y = torch.randn(2, 4, 3, device=device, requires_grad=True)
    for against, clusters in (("other", torch.zeros(4)), ("own", torch.arange(4))):
        clusters = clusters.to(device).long()
        loss = cluster_nt_xent(x, y, clusters, against=against, backend=backend)
        assert loss.item() == 0.0
        assert not any(grad.any() for grad in gradients(loss, x, y))


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match="clusters: got shape"):
        cluster_nt_xent(x, x, torch.zeros(2, device=device).long())
