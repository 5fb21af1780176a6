"""Communities of a graph by contrastive learning, without a label.

    python examples/graphs.py

Zachary's karate club: 34 members, their friendships, and the two clubs into which they split.
SCGC (AdjacencyContrastiveLoss) pulls the embeddings of friends together. MEOW contrasts two copies
of the graph with dropped edges; a pair counts more as a negative, the more of several k-means
clusterings of the features separate it. The script prints the share of members whose cluster, out
of two, is their club, and the same for the encoder before training, k-means on the adjacency matrix
and spectral clustering. networkx has the graph, nothing is downloaded.
"""

import argparse

import networkx as nx
import torch
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn
from torch.nn import functional as F

from contrastloss import AdjacencyContrastiveLoss, MEOWLoss

#: number of clusters in each of MEOW's clusterings
CLUSTERS = (2, 3, 4, 6)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def smoothing(adjacency: Tensor) -> Tensor:
    """Two steps of the random walk with self loops, symmetrically normalised."""
    loops = adjacency + torch.eye(len(adjacency))
    scale = loops.sum(1).rsqrt()
    step = scale[:, None] * loops * scale
    return step @ step


def encoder(n: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)  # the untrained model has the same weights
    return nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 16))


def scgc(adjacency: Tensor, steps: int, seed: int) -> Tensor:
    features = smoothing(adjacency)
    # CSR: where the rows begin, and the columns
    edges = F.pad(adjacency.sum(1).cumsum(0), (1, 0)).long(), adjacency.nonzero()[:, 1]
    model, loss = encoder(len(adjacency), seed), AdjacencyContrastiveLoss(temperature=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(features), edges).backward()
        optimizer.step()
    return model(features).detach()


def meow(adjacency: Tensor, steps: int, seed: int) -> Tensor:
    features = smoothing(adjacency)
    model, loss = encoder(len(adjacency), seed), MEOWLoss(temperature=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    clusters = torch.stack([clustering(features, k, 0) for k in CLUSTERS], dim=1)
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = (model(smoothing(dropped(adjacency))) for _ in range(2))
        loss(x, y, clusters).backward()
        optimizer.step()
    return model(features).detach()


def dropped(adjacency: Tensor, share: float = 0.2) -> Tensor:
    """The graph without this share of its edges, in both directions."""
    kept = torch.rand_like(adjacency).triu(1) >= share
    return adjacency * (kept.triu(1) | kept.triu(1).mT)


def clustering(z: Tensor, count: int, seed: int) -> Tensor:
    means = KMeans(count, n_init=5, random_state=seed)
    return torch.from_numpy(means.fit_predict(F.normalize(z).numpy())).long()


def agreement(found: Tensor, club: Tensor) -> str:
    """The share of members in the cluster of their club, and the mutual information."""
    hits = (found == club).float().mean().item()
    return f"{max(hits, 1 - hits):.3f} ({normalized_mutual_info_score(club, found):.2f})"


def main() -> None:
    args = arguments()
    graph = nx.karate_club_graph()
    adjacency = torch.from_numpy(nx.to_numpy_array(graph, weight=None)).float()
    club = torch.tensor([name == "Officer" for _, name in graph.nodes(data="club")]).long()
    spectral = SpectralClustering(2, affinity="precomputed", random_state=args.seed)
    found = {}
    found["SCGC"] = clustering(scgc(adjacency, args.steps, args.seed), 2, args.seed)
    found["MEOW"] = clustering(meow(adjacency, args.steps, args.seed), 2, args.seed)
    found["untrained"] = clustering(scgc(adjacency, 0, args.seed), 2, args.seed)
    found["k-means"] = clustering(adjacency, 2, args.seed)
    found["spectral"] = torch.from_numpy(spectral.fit_predict(adjacency.numpy())).long()
    results = ", ".join(f"{name} {agreement(labels, club)}" for name, labels in found.items())
    print(f"karate club, members in the right cluster (NMI): {results}")


if __name__ == "__main__":
    main()
