"""Anomalies found by a model of what is normal, in the manner of CLAN.

    python examples/anomalies.py

Cell nuclei of scikit-learn's breast cancer data, 30 measurements each. Training uses half of the
benign nuclei only: they attract each other, and copies that are moved out of their region are
negatives. The anomaly score of a nucleus is one minus its cosine to the mean direction of the
training nuclei. AUROC on all other nuclei, as the mean of several splits, compared with PCA and an
isolation forest. The kind of negatives was selected on these data. scikit-learn (``pip install
'contrastloss[demo]'``) has the data, nothing is downloaded.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from contrastloss import CLANLoss


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="default: %(default)s")
    parser.add_argument("--margin", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--splits", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def negatives(rows: Tensor, copies: int = 4) -> Tensor:
    """Rows moved away from a random other row, by up to four times their difference, plus noise."""
    rows = rows.repeat(copies, 1)
    away = rows - rows[torch.randperm(len(rows))]
    return rows + (1 + 3 * torch.rand(len(rows), 1)) * away + torch.randn_like(rows)


def train(rows: Tensor, steps: int, margin: float, seed: int) -> nn.Module:
    torch.manual_seed(seed)  # the untrained model has the same weights
    layers = nn.Linear(rows.shape[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
    model = nn.Sequential(*layers, nn.Linear(128, 32))
    loss = CLANLoss(margin=margin)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(rows), model(negatives(rows))).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def distance(model: nn.Module, normal: Tensor, rows: Tensor) -> Tensor:
    """One minus the cosine to the mean direction of the normal rows."""
    centre = F.normalize(model(normal)).mean(0, keepdim=True)
    return 1 - F.cosine_similarity(model(rows), centre)


def compare(steps: int, margin: float, seed: int) -> dict[str, float]:
    """AUROC of each method on one split."""
    measured, benign = load_breast_cancer(return_X_y=True)
    normal, healthy = train_test_split(measured[benign == 1], random_state=seed, test_size=0.5)
    scale = StandardScaler().fit(normal)
    normal, healthy, ill = map(scale.transform, (normal, healthy, measured[benign == 0]))
    test = np.concatenate([healthy, ill])
    anomalous = [0] * len(healthy) + [1] * len(ill)

    rows, held_out = (torch.from_numpy(part).float() for part in (normal, test))
    pca = PCA(10).fit(normal)
    scores = {
        "CLAN": distance(train(rows, steps, margin, seed), rows, held_out),
        "untrained": distance(train(rows, 0, margin, seed), rows, held_out),
        "PCA reconstruction": ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(1),
        "isolation forest": -IsolationForest(random_state=seed).fit(normal).score_samples(test),
    }
    return {name: roc_auc_score(anomalous, score) for name, score in scores.items()}


def main() -> None:
    args = arguments()
    seeds = range(args.seed, args.seed + args.splits)
    found = [compare(args.steps, args.margin, seed) for seed in seeds]
    means = {name: sum(split[name] for split in found) / len(found) for name in found[0]}
    results = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    print(f"anomaly detection, AUROC: {results}")


if __name__ == "__main__":
    main()
