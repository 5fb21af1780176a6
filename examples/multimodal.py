"""Matching halves of handwritten digits: which right half belongs to this left half?

    python examples/multimodal.py

The modalities are the left half of an image, its right half, and the mean darkness of its rows and
columns (for MultiModalLoss; CLIP and SigLIP use only the halves). Recall@1 is the share of left
halves whose most similar right half, among those of all 773 held-out images, is their own. It is
compared with canonical correlation analysis and chance. scikit-learn (``pip install
'contrastloss[demo]'``) has the images.
"""

import argparse
from collections.abc import Callable

import torch
from sklearn.cross_decomposition import CCA
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from contrastloss import CLIPLoss, LogitScale, MultiModalLoss, SigLIPLoss
from contrastloss.demo import Digits

#: (loss of the embeddings, a scale and a bias, number of modalities)
LOSSES: dict[str, tuple[Callable[..., Tensor], int]] = {
    "CLIP": (lambda z, s, b: CLIPLoss()(*z, logit_scale=s), 2),
    "SigLIP": (lambda z, s, b: SigLIPLoss()(*z, logit_scale=s, logit_bias=b), 2),
    "three modalities": (lambda z, s, b: MultiModalLoss()(*z, logit_scales=[s, s, s]), 3),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def modalities(images: Tensor) -> list[Tensor]:
    """Left half, right half, and the means of rows and columns."""
    left, right = images[..., :4], images[..., 4:]
    shade = torch.cat([images.mean(2), images.mean(3)], dim=2)
    return [part.flatten(1) for part in (left, right, shade)]


def tower(inputs: int) -> nn.Module:
    hidden = nn.Linear(inputs, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.2)
    return nn.Sequential(*hidden, nn.Linear(256, 64))


def train(parts: list[Tensor], loss: Callable[..., Tensor], steps: int, batch: int) -> nn.Module:
    towers = nn.ModuleList(tower(part.shape[1]) for part in parts)
    temperature, bias = LogitScale(0.1), nn.Parameter(torch.tensor(-5.0))
    optimizer = torch.optim.AdamW(
        [*towers.parameters(), *temperature.parameters(), bias], lr=2e-3, weight_decay=0.1
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in tqdm(range(steps), leave=False, disable=None):
        chosen = torch.randperm(len(parts[0]))[:batch]
        embedded = [t(part[chosen]) for t, part in zip(towers, parts, strict=True)]
        optimizer.zero_grad()
        loss(embedded, temperature(), bias).backward()
        optimizer.step()
        schedule.step()
    return towers.eval()


def recall(left: Tensor, right: Tensor) -> float:
    """How often the right half with the largest cosine is that of the same image."""
    nearest = (F.normalize(left) @ F.normalize(right).mT).argmax(1)
    return (nearest == torch.arange(len(left))).float().mean().item()


def main() -> None:
    args = arguments()
    digits = Digits.load()
    known, held_out = modalities(digits.train), modalities(digits.test)
    found = {}
    for name, (loss, count) in LOSSES.items():
        torch.manual_seed(args.seed)
        towers = train(known[:count], loss, args.steps, args.batch)
        with torch.no_grad():
            found[name] = recall(*(t(v) for t, v in zip(towers[:2], held_out[:2], strict=True)))
    cca = CCA(16, max_iter=1000).fit(known[0].numpy(), known[1].numpy())
    halves = cca.transform(held_out[0].numpy(), held_out[1].numpy())
    found["CCA"] = recall(*(torch.from_numpy(half) for half in halves))
    found["chance"] = 1 / len(held_out[0])
    results = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(f"left half to right half, recall@1: {results}")


if __name__ == "__main__":
    main()
