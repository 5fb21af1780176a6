"""The examples, with fewer steps. tests/distributed/test_examples.py tests ddp_digits.py."""

import importlib.util
import os
import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder, name, *arguments):
    """The output of the example."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def figures(printed):
    """The numbers in the last line, by name: ``what: name 0.9 (0.8), other name 0.7``."""
    line = printed.splitlines()[-1].rpartition(": ")[2]
    found = re.findall(r"([^,]+?) (\d\.\d+)(?: \(\d\.\d+\))?(?:, |$)", line)
    return {name.strip(): float(value) for name, value in found}


def test_images(tmp_path):
    losses = ["nt_xent", "supcon"]
    picture = tmp_path / "picture.png"
    printed = run(tmp_path, "images", "--steps", 20, "--losses", *losses, "--picture", picture)
    rows = [re.split(r"  +", line) for line in printed.splitlines()[1:-1]]
    one_label = {name: float(values[0]) for name, *values in rows}
    assert list(one_label) == ["raw pixels", "untrained encoder", *losses]
    assert one_label["raw pixels"] == 64.5
    for loss, gain in zip(losses, (2, 6), strict=True):
        assert one_label[loss] > one_label["untrained encoder"] + gain
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.extra
def test_anomalies(tmp_path):
    found = figures(run(tmp_path, "anomalies", "--splits", 1, "--steps", 80, "--seed", 3))
    assert list(found) == ["CLAN", "untrained", "PCA reconstruction", "isolation forest"]
    assert found["untrained"] < 0.85
    assert found["CLAN"] > 0.94
    assert found["PCA reconstruction"] > 0.9


def test_text(tmp_path):
    found = figures(run(tmp_path, "text", "--steps", 15, "--batch", 128))
    assert list(found) == ["untrained", "contrastive", "TF-IDF"]
    assert found["contrastive"] > found["untrained"] + 0.03


@pytest.mark.extra
def test_graphs(tmp_path):
    found = figures(run(tmp_path, "graphs", "--steps", 100))
    assert list(found) == ["SCGC", "MEOW", "untrained", "k-means", "spectral"]
    assert found["untrained"] < 0.9
    assert min(found["SCGC"], found["MEOW"]) > 0.93


@pytest.mark.extra
def test_multimodal(tmp_path):
    found = figures(run(tmp_path, "multimodal", "--steps", 40))
    assert list(found) == ["CLIP", "SigLIP", "three modalities", "CCA", "chance"]
    assert found["chance"] < 0.002
    for name in ("CLIP", "SigLIP", "three modalities"):
        assert found[name] > 0.025


def test_gradient_caching(tmp_path):
    printed = run(tmp_path, "gradient_caching", "--batch", 160, "--chunk", 8)
    rows = [re.split(r"  +", line) for line in printed.splitlines()[1:]]
    assert [name for name, *_ in rows] == ["gradient caching", "accumulation", "one batch"]
    sizes, losses, errors = ([float(row[k]) for row in rows] for k in (2, 3, 4))
    assert losses[0] == losses[2] > losses[1] + 1
    assert errors[0] < 1e-5 < errors[1]
    assert sizes[0] < sizes[2] / 2


# ---- graph matching ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matching():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("matching", EXAMPLES / "graph_matching.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.extra
def test_graph_matching(tmp_path):
    found = figures(run(tmp_path, "graph_matching", "--steps", 50, "--batch", 24))
    names = [
        f"{state} {order}" for state in ("untrained", "trained") for order in ("nodes", "and edges")
    ]
    assert list(found) == names
    assert found["trained and edges"] > found["untrained and edges"] + 0.15
    assert found["trained nodes"] > found["untrained nodes"] + 0.15


def known_graphs(seed, nodes=9):
    """Edges of a graph and of the same graph with other numbers of its nodes, and these numbers. An
    edge costs -1 on itself; nodes are told apart by nothing but their edges."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(nodes)
    ends = [(i, (i + k) % nodes) for i in range(nodes) for k in (1, 3)]
    x_edges = np.array(ends)
    shuffled = generator.permutation(len(x_edges))
    y_edges = order[x_edges[shuffled]]
    pairwise = -(np.arange(len(x_edges))[:, None] == shuffled).astype(float)
    return order, x_edges, y_edges, pairwise


@pytest.mark.parametrize("seed", range(5))
def test_edges_alone_decide_a_known_matching(matching, seed):
    order, x_edges, y_edges, pairwise = known_graphs(seed)
    unary = 1e-3 * np.random.default_rng(seed + 50).random((9, 9))
    found = matching.solve(unary, pairwise, x_edges, y_edges)
    assert found.argmax(1).tolist() == order.tolist()
    nodes_alone = matching.solve(unary, 0 * pairwise, x_edges, y_edges)
    assert nodes_alone.argmax(1).tolist() != order.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_solver_beside_all_permutations(matching, seed):
    """The cheapest matching of nodes; with edges, no worse than it, and at times the cheapest."""
    generator = np.random.default_rng(seed)
    unary, (_, x_edges, y_edges, pairwise) = generator.random((5, 5)), known_graphs(seed, 5)
    pairwise = generator.random(pairwise.shape) - 0.5

    def cost(v, pairwise):
        ends = matching.both_ends(v, x_edges, y_edges)
        return (unary * v).sum() + (pairwise * ends).sum()

    every = [np.eye(5)[list(p)] for p in permutations(range(5))]
    alone = matching.solve(unary, 0 * pairwise, x_edges, y_edges)
    assert cost(alone, 0 * pairwise) == pytest.approx(min(cost(v, 0 * pairwise) for v in every))
    both = matching.solve(unary, pairwise, x_edges, y_edges)
    least = min(cost(v, pairwise) for v in every)
    assert least - 1e-9 <= cost(both, pairwise) <= cost(alone, pairwise)
    assert sorted(both.argmax(1)) == list(range(5))


def test_the_gradient_is_a_difference_of_solutions(matching):
    unary = torch.tensor([[0.1, 0.0], [0.0, 0.1]], requires_grad=True)
    pairwise = torch.zeros(1, 1, requires_grad=True)
    edge = torch.tensor([[0, 1]])
    found = matching.Matching.apply(unary, pairwise, edge, edge, 0.5)
    assert found.tolist() == [[0, 1], [1, 0]]
    # costs with half of this gradient are those of the true matching, and it is the other one
    found.backward(torch.tensor([[-0.5, 0.5], [0.5, -0.5]]))
    assert unary.grad.tolist() == [[2, -2], [-2, 2]]
    assert pairwise.grad.tolist() == [[2]]


def test_the_distance_of_known_matchings(matching):
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    assert matching.matching_loss(x, 2 * x, noise=0.0) == 0
    order = torch.arange(12)
    order[:4] = torch.tensor([1, 2, 3, 0])
    # a third of the nodes is elsewhere: each is one pair too many and one too few
    assert matching.matching_loss(x, x[order], noise=0.0).item() == pytest.approx(2 / 3)
    edges = matching.edges_of(x, 3)
    assert edges.shape == (36, 2)
    near = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).mT
    wanted = near.fill_diagonal_(-2).topk(3).indices
    assert edges[:, 1].view(12, 3).equal(wanted)
    unary, pairwise = matching.costs(x, x, edges, edges)
    assert torch.allclose(unary.diagonal(), torch.tensor(-0.5))
    assert torch.allclose(pairwise.diagonal(), torch.tensor(-0.25))
