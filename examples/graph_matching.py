"""Two views of a batch as graphs, whose matching is learnt through a solver, as in LVM-Med.

    python examples/graph_matching.py

The nodes of a graph are the embeddings of a batch of digits, its edges the nearest neighbours. A
matching v of both views' nodes has the cost

    -sum_ia (cos(x_i, y_a) - 1/2) v_ia - 1/2 sum_ef (cos(x_e, y_f) - 1/2) v_ia v_jb

with e = (i, j) and f = (a, b) over the edges of both, whose features are differences of their
nodes: the second order. The loss is the Hamming distance of the cheapest matching from the true
one. It is constant almost everywhere; its gradient comes from perturb and map (implicit maximum
likelihood): how the solution under random noise changes if its costs also contain the loss. The
script prints the share of held-out images that are matched, before and after training, with edges
and without. Cosines and edges are operators of the package, the assignment is that of scipy.
"""

import argparse

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from contrastloss import ops


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--neighbours", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--noise", type=float, default=0.05, help="default: %(default)s")
    parser.add_argument("--strength", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


# ---- graphs and costs ----------------------------------------------------------------------------


def edges_of(z: Tensor, neighbours: int) -> Tensor:
    """From each node to its nearest ones, (E, 2)."""
    near = ops.pair_topk(z.detach(), None, neighbours, cosine=True).indices
    start = torch.arange(len(z), device=z.device)[:, None].expand_as(near)
    return torch.stack([start, near], -1)[near >= 0]


def cosines(x: Tensor, y: Tensor) -> Tensor:
    every = torch.arange(len(y), device=y.device).expand(len(x), len(y))
    return ops.gather_scores(x, y, every, cosine=True)


def costs(x: Tensor, y: Tensor, x_edges: Tensor, y_edges: Tensor) -> tuple[Tensor, Tensor]:
    """Of pairs of nodes, (N, N), and of pairs of edges, (E, F)."""
    x_spans, y_spans = (
        z[edges[:, 1]] - z[edges[:, 0]] for z, edges in ((x, x_edges), (y, y_edges))
    )
    return 0.5 - cosines(x, y), 0.5 * (0.5 - cosines(x_spans, y_spans))


# ---- the solver ----------------------------------------------------------------------------------


def assigned(cost: np.ndarray) -> np.ndarray:
    """The cheapest permutation matrix."""
    matching = np.zeros_like(cost)
    matching[linear_sum_assignment(cost)] = 1.0
    return matching


def both_ends(v: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray) -> np.ndarray:
    """Of each pair of edges, whether v matches both ends."""
    (i, j), (a, b) = x_edges.T, y_edges.T
    return v[np.ix_(i, a)] * v[np.ix_(j, b)]


def solve(
    unary: np.ndarray,
    pairwise: np.ndarray,
    x_edges: np.ndarray,
    y_edges: np.ndarray,
    iterations: int = 30,
) -> np.ndarray:
    """A matching of low cost by the method of Frank and Wolfe, whose steps are assignments, from
    the best matching of nodes and from no preference. Without edges it is the cheapest one; with
    them, the problem is hard, and it may not be."""
    (i, j), (a, b) = x_edges.T, y_edges.T

    def second(v: np.ndarray) -> np.ndarray:
        """The gradient of the cost of edges."""
        slope = np.zeros_like(unary)
        np.add.at(slope, np.ix_(i, a), pairwise * v[np.ix_(j, b)])
        np.add.at(slope, np.ix_(j, b), pairwise * v[np.ix_(i, a)])
        return slope

    def cost(v: np.ndarray) -> float:
        return float((unary * v).sum() + (pairwise * both_ends(v, x_edges, y_edges)).sum())

    found = [assigned(unary)]
    for v in (found[0], np.full_like(unary, 1 / len(unary))):
        for _ in range(iterations):
            slope = unary + second(v)
            found.append(assigned(slope))
            step = found[-1] - v
            gain, curvature = (slope * step).sum(), (second(step) * step).sum()
            if gain > -1e-9:
                break
            v = v + step * (1.0 if curvature <= 0 else min(1.0, -gain / curvature))
        found.append(assigned(-v))
    return min(found, key=cost)


class Matching(torch.autograd.Function):
    """The matching under given costs. Its gradient is a difference of solutions: of these costs,
    and of costs that ``strength`` times the gradient of the loss is added to."""

    @staticmethod
    def forward(ctx, unary, pairwise, x_edges, y_edges, strength):
        ctx.given = [v.detach().cpu().numpy() for v in (unary, pairwise, x_edges, y_edges)]
        ctx.strength, ctx.found = strength, solve(*ctx.given)
        return unary.new_tensor(ctx.found)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        unary, pairwise, *edges = ctx.given
        other = solve(unary + ctx.strength * gradient.cpu().numpy(), pairwise, *edges)
        of_nodes = (other - ctx.found) / ctx.strength
        of_edges = (both_ends(other, *edges) - both_ends(ctx.found, *edges)) / ctx.strength
        return gradient.new_tensor(of_nodes), gradient.new_tensor(of_edges), None, None, None


def gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


def matching_loss(
    x: Tensor, y: Tensor, *, neighbours: int = 3, noise: float = 0.05, strength: float = 10.0
) -> Tensor:
    """The Hamming distance of the cheapest matching from x_i with y_i, per column, where noise is
    subtracted from the costs."""
    edges = edges_of(x, neighbours), edges_of(y, neighbours)
    unary, pairwise = costs(x, y, *edges)
    unary, pairwise = unary - noise * gumbel(unary), pairwise - 0.5 * noise * gumbel(pairwise)
    found = Matching.apply(unary, pairwise, *edges, strength)
    true = torch.eye(len(x), dtype=found.dtype, device=found.device)
    return (found * (1 - true) + (1 - found) * true).mean(0).sum()


# ---- digits --------------------------------------------------------------------------------------


def view(images: Tensor) -> Tensor:
    """Moved by up to a pixel, with noise."""
    down, right = (int(v) for v in torch.randint(-1, 2, (2,)))
    moved = images.view(-1, 8, 8).roll((down, right), (1, 2)).flatten(1)
    return moved + 0.1 * torch.randn_like(moved)


@torch.no_grad()
def matched(model: nn.Module, images: Tensor, batch: int, neighbours: int, seed: int) -> float:
    """The share of images that are matched with their other view; without neighbours, by their
    nodes alone."""
    torch.manual_seed(seed)
    hits = []
    for part in images.split(batch):
        x, y = (model(view(part)) for _ in range(2))
        edges = edges_of(x, max(neighbours, 1)), edges_of(y, max(neighbours, 1))
        unary, pairwise = costs(x, y, *edges)
        given = [v.numpy() for v in (unary, pairwise if neighbours else 0 * pairwise, *edges)]
        hits.append(np.trace(solve(*given)) / len(part))
    return float(np.mean(hits))


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    images = torch.from_numpy(load_digits().data).float() / 16
    images = images[torch.randperm(len(images))]
    held_out, images = images[: 6 * args.batch], images[6 * args.batch :]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    found = {}

    def measure(name: str) -> None:
        for order, neighbours in (("nodes", 0), ("and edges", args.neighbours)):
            share = matched(model, held_out, args.batch, neighbours, args.seed)
            found[f"{name} {order}"] = share

    measure("untrained")
    torch.manual_seed(args.seed)
    for step in range(args.steps):
        part = images[torch.randint(len(images), (args.batch,))]
        optimizer.zero_grad()
        loss = matching_loss(
            *(F.normalize(model(view(part))) for _ in range(2)),
            neighbours=args.neighbours, noise=args.noise, strength=args.strength,
        )  # fmt: skip
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:4}: Hamming distance {loss.item():.2f}", flush=True)
    measure("trained")
    results = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
    print(f"digits, share of images matched with their other view: {results}")


if __name__ == "__main__":
    main()
