from math import e, log

import pytest
import torch
from properties import E1, E2, close, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import AdjacencyContrastiveLoss
from contrastloss.functional import adjacency_contrastive
from contrastloss.testing import CHECKS, Subject


class Graph(AdjacencyContrastiveLoss):
    """Mostly connected communities. Weights are multiples of 1/4, some of them 0; entries are
    repeated; some rows have no neighbours, one has more than a chunk."""

    def forward(self, z, crow, col, quarters):
        return super().forward(z, (crow, col, quarters / 4))

    @staticmethod
    def reference(z, crow, col, quarters, **options):
        return AdjacencyContrastiveLoss.reference(z, crow, col, quarters / 4, **options)

    @staticmethod
    def example(n, d, generator):
        labels = torch.randint(0, max(n // 6, 1), (n,), generator=generator)
        centres, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
        z = normalize(centres[labels]) + 0.7 * normalize(noise)
        drawn = torch.rand(n, n, generator=generator)
        linked = (labels[:, None] == labels) & (drawn < 0.8) | (drawn < 0.02)
        linked[:1] = True
        linked[3::7] = False
        row, col = linked.nonzero().unbind(1)
        row, col = row.repeat_interleave(2), col.repeat_interleave(2)
        crow = torch.bincount(row, minlength=n).cumsum(0)
        quarters = torch.randint(0, 5, (len(col),), generator=generator)
        return z, torch.nn.functional.pad(crow, (1, 0)), col, quarters


# without check_permutation, which does not renumber the columns of the graph
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c.__name__ != "check_permutation"], ids=lambda c: c.__name__
)
def test_properties(check, device):
    check(Subject(Graph, {}, device, thorough=False))


@pytest.mark.parametrize("options", [{"self_score": True, "eps": 1e-3}, {"self_score": True}])
def test_options(options, device):
    CHECKS[0](Subject(Graph, options, device))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(Graph, {"eps": 1e-8}, device, backend))


# scores: 01 1, 02 0, 12 0; row 0 is linked to 1 with weight 1/2 and to 2 with 2, row 1 to itself
Z = E1, E1, E2
EDGES = [[0.0, 0.5, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]


def graphs(device):
    dense = tensor(*EDGES, device=device)
    csr = dense.to_sparse_csr()
    return (
        csr,
        dense.to_sparse(),
        (csr.crow_indices().int(), csr.col_indices().int(), csr.values()),
    )


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_by_hand(device, backend):
    z = tensor(*Z, device=device)
    options = {"reduction": "none", "backend": backend}
    want = -log((0.5 * e + 2) / (e + 1))
    for graph in graphs(device):
        close(adjacency_contrastive(z, graph, **options), [want, 0.0, 0.0])
        close(adjacency_contrastive(z, graph, backend=backend), want)
    eps = -log((0.5 * e + 2) / (e + 1) + 0.25)
    close(adjacency_contrastive(z, graph, eps=0.25, **options), [eps, 0.0, 0.0])
    # self_score adds e^0 to the denominator, and row 1's own weight to the numerator
    masked = [-log((0.5 * e + 2) / (e + 2)), -log(3 / (e + 2)), 0.0]
    close(adjacency_contrastive(z, graph, self_score=True, **options), masked)
    close(adjacency_contrastive(z, graph, self_score=True, backend=backend), sum(masked) / 2)
    # without values every edge has weight 1: the numerator of row 0 is its denominator
    close(adjacency_contrastive(z, graph[:2], **options)[0], 0.0)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_hub_and_no_edges(device, backend):
    n = 100
    z = torch.randn(n, 5, dtype=torch.float64, device=device, requires_grad=True)
    hub = torch.zeros(n, n, dtype=torch.float64, device=device)
    hub[7] = 1.0
    rows = adjacency_contrastive(z, hub.to_sparse_csr(), reduction="none", backend=backend)
    close(rows, [0.0] * n)  # all others are neighbours
    assert adjacency_contrastive(z, (0 * hub).to_sparse_csr(), backend=backend).item() == 0.0
    value = adjacency_contrastive(z[:1], hub[:1, :1].to_sparse_csr(), self_score=True)
    assert value.item() == 0.0
    assert not gradients(value, z)[0].any()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_errors(device):
    z = tensor(*Z, device=device)
    csr, _, (crow, col, values) = graphs(device)

    def wrong(kind, message, graph):
        with pytest.raises(kind, match="^adjacency: " + message):
            adjacency_contrastive(z, graph)

    wrong(TypeError, "got layout torch.strided, expected sparse CSR or COO", csr.to_dense())
    wrong(TypeError, "got tuple, expected a sparse tensor", (crow,))
    wrong(TypeError, "got float as crow, expected a tensor", (1.0, col))
    wrong(TypeError, "got torch.float64 as col, expected int32 or int64", (crow, values))
    wrong(ValueError, r"got shape \(3,\) as crow, expected \(4,\)", (crow[:3], col))
    wrong(ValueError, r"got shape \(2,\) as values, expected \(E,\)", (crow, col, values[:2]))
    with pytest.raises(ValueError, match=r"^adjacency: got shape \(3, 3\), expected \(2, 2\)"):
        adjacency_contrastive(z[:2], csr)
