"""Handwritten digits without labels: the same encoder, trained with one loss after another.

    python examples/images.py --picture images.png
    python examples/images.py --losses nt_xent vicreg --steps 300

Two random distortions of an image are a positive pair; only SupCon uses the labels. Then every
test image gets the label of its nearest labelled neighbour, with 1, 5 and all labels per class.
scikit-learn (``pip install 'contrastloss[demo]'``) has the images, nothing is downloaded.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor, nn
from tqdm import tqdm

import contrastloss as cl
from contrastloss.demo import LABELS, Digits, accuracies, augment, features

#: A tenth of the other images in a batch show the same digit. A low temperature would push these
#: apart most strongly.
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "nt_xent": lambda: cl.NTXentLoss(0.5),
    "dcl": lambda: cl.DCLLoss(0.5),
    "hard_negative": lambda: cl.HardNegativeLoss(0.5),
    "spectral": lambda: cl.SpectralLoss(loss_weight=10.0),
    "alignment_uniformity": lambda: cl.AlignmentUniformityLoss(),
    "barlow_twins": lambda: cl.BarlowTwinsLoss(0.02),
    "vicreg": lambda: cl.VICRegLoss(),
    "supcon": lambda: cl.SupConLoss(0.5),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--steps", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="file for a plot of the test embeddings")
    return parser.parse_args()


def encoder() -> nn.Sequential:
    """From 8 x 8 pixels to 256 features."""

    def conv(inputs: int, outputs: int) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    pool = nn.MaxPool2d(2)
    return nn.Sequential(*conv(1, 16), *conv(16, 32), pool, *conv(32, 64), pool, nn.Flatten())


def projection() -> nn.Sequential:
    """From features to the 64 dimensions that the loss compares; discarded after training."""
    return nn.Sequential(nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))


def train(digits: Digits, loss: nn.Module, steps: int, batch: int) -> nn.Module:
    model, head = encoder(), projection()
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in tqdm(range(steps), desc=type(loss).__name__, leave=False, disable=None):
        chosen = torch.randperm(len(digits.train))[:batch]
        images, labels = digits.train[chosen], digits.train_labels[chosen]
        z = head(model(torch.cat([augment(images), augment(images)])))
        inputs = (z, labels.repeat(2)) if isinstance(loss, cl.SupConLoss) else z.chunk(2)
        optimizer.zero_grad()
        loss(*inputs).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def draw(embedded: dict[str, Tensor], labels: Tensor, path: Path) -> None:
    """Two principal components of each model's embeddings of the test images."""
    columns = (len(embedded) + 1) // 2
    figure = Figure(figsize=(3 * columns, 6.4), layout="constrained")
    places = figure.subplots(2, columns, squeeze=False).flat
    for axes in places[len(embedded) :]:
        axes.axis("off")
    for axes, (name, z) in zip(places, embedded.items(), strict=False):
        axes.scatter(*PCA(2).fit_transform(z.numpy()).T, c=labels, cmap="tab10", s=5)
        axes.set(title=name, xticks=[], yticks=[])
    figure.savefig(path)


def main() -> None:
    args = arguments()
    digits = Digits.load()
    torch.manual_seed(args.seed)
    models = {"raw pixels": nn.Flatten(), "untrained encoder": encoder().eval()}
    heads = ["all labels" if n is None else f"{n} per class" for n in LABELS]
    print(f"{'accuracy, %; labels:':<22}" + "".join(f"{head:>13}" for head in heads))
    for name in [*models, *args.losses]:
        if name not in models:
            torch.manual_seed(args.seed)  # the same weights, batches and distortions for every loss
            models[name] = train(digits, LOSSES[name](), args.steps, args.batch)
        values = "".join(f"{100 * v:>13.1f}" for v in accuracies(digits, models[name]))
        print(f"{name:<22}{values}", flush=True)
    if args.picture:
        embedded = {name: features(model, digits.test) for name, model in models.items()}
        draw(embedded, digits.test_labels, args.picture)
        print(f"picture: {args.picture}")


if __name__ == "__main__":
    main()
