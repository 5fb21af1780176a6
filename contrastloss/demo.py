"""SimCLR on scikit-learn's handwritten digits: 1797 real images of 8 x 8 pixels, no download.

An encoder learns without labels that two random distortions of one image belong together, and all
other images of the batch do not; the batch is the whole training set. Then one or five labels per
class are drawn, and every test image gets the label of its nearest labelled neighbour. The accuracy
is compared with that of raw pixels, of the same encoder before training and, for a loss other than
NT-Xent, of an encoder that NT-Xent has trained for as long.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm  # type: ignore[import-untyped]

from .arguments import integer, output
from .backends import available
from .losses import LOSSES, HierarchicalContrastiveLoss, SelfConLoss
from .losses.base.ranking import SmoothRankLoss

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Result", "add_arguments", "main", "run"]

EPOCHS = 180
#: the loss that every other loss is compared with
BASELINE = "nt_xent"
TRAIN_IMAGES = 1024
#: labels per class that the classifier gets; None means all of them
LABELS = (1, 5, None)
#: an accuracy is averaged over so many random choices of these labels
DRAWS = 25
#: A tenth of the "negatives" here are images of the same digit, and a low temperature would push
#: these apart most. Losses that are not listed keep their own default.
TEMPERATURE = dict.fromkeys(("info_nce", "clip", "nt_xent", "dcl", "hard_negative", "supcon"), 0.5)


def takes(cls: type[nn.Module], argument: str) -> bool:
    return argument in inspect.signature(cls.forward).parameters


def required(cls: type[nn.Module]) -> tuple[str, ...]:
    """The names of the required inputs of a loss."""
    found = list(inspect.signature(cls.forward).parameters.values())[1:]
    return tuple(p.name for p in found if p.default is p.empty and p.kind is not p.VAR_POSITIONAL)


#: losses of two views or of labels. Not those of time series or of several exits of a network, nor
#: those that rank 200 positives per row, which takes minutes
CHOICES = [
    name
    for name, cls in LOSSES.items()
    if required(cls) in (("x", "y"), ("z", "labels"), ("views",))
    and not issubclass(cls, (HierarchicalContrastiveLoss, SelfConLoss, SmoothRankLoss))
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loss", choices=CHOICES, default=BASELINE)
    parser.add_argument("--epochs", type=integer(1), default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--seed", type=integer(0), default=0)
    parser.add_argument("--backend", choices=list(available()), help="default: chosen by the call")
    picture = output("png", "jpg", "pdf", "svg")
    parser.add_argument("--output", type=picture, default="demo.png", help="the picture")


def main(args: argparse.Namespace) -> int:
    note = " (supervised: it gets the labels)" if supervised(args.loss) else ""
    print(f"SimCLR on {TRAIN_IMAGES} handwritten digits, loss {args.loss}{note}", flush=True)
    given = (args.epochs, args.seed, args.backend)
    result = run(args.loss, *given, progress=True)
    if args.loss != BASELINE:
        other = run(BASELINE, *given, progress=True)
        result.accuracy[f"trained by {BASELINE}"] = other.accuracy["trained encoder"]
    print(f"\n{result.table()}\n")
    draw(result, args.output)
    print(f"picture: {args.output}")
    return 0


# ---- data -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) in [0, 1] and their digits; the split is the same for every seed."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @staticmethod
    def load() -> Digits:
        images, labels = load_digits(return_X_y=True)
        parts = train_test_split(
            images, labels, train_size=TRAIN_IMAGES, stratify=labels, random_state=0
        )
        train, test = (torch.tensor(p / 16.0).float().view(-1, 1, 8, 8) for p in parts[:2])
        return Digits(train, torch.tensor(parts[2]), test, torch.tensor(parts[3]))


def augment(images: Tensor) -> Tensor:
    """Each image rotated, sheared, stretched, shifted and bent; then scaled in brightness, with
    noise added."""
    n = len(images)

    def between(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high)

    angle, shear = between(-0.3, 0.3), between(-0.3, 0.3)
    wide, high = between(0.8, 1.2), between(0.8, 1.2)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        [cos * wide, (shear - sin) * wide, between(-0.25, 0.25)],
        [sin * high, cos * high, between(-0.25, 0.25)],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    bend = F.interpolate(0.1 * torch.randn(n, 2, 4, 4), size=8, mode="bicubic", align_corners=True)
    views = F.grid_sample(images, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    return views * between(0.8, 1.2).view(n, 1, 1, 1) + 0.1 * torch.randn_like(views)


# ---- model and training -----------------------------------------------------------------------


def encoder() -> nn.Sequential:
    """Maps 8 x 8 pixels to 512 features."""

    def conv(inputs: int, outputs: int) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]

    pool = nn.MaxPool2d(2)
    return nn.Sequential(*conv(1, 32), *conv(32, 64), pool, *conv(64, 128), pool, nn.Flatten())


def projection() -> nn.Sequential:
    """Maps features to the 64 dimensions that the loss compares; discarded after training."""
    return nn.Sequential(nn.Linear(512, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))


def supervised(loss: str) -> bool:
    return takes(LOSSES[loss], "labels")


def train(model: nn.Module, digits: Digits, loss: nn.Module, name: str, steps: Any) -> list[float]:
    """Train in place, with all training images as one batch per step; returns the loss per step."""
    head = projection()
    parameters = [*model.parameters(), *head.parameters(), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(steps))
    model.train()
    curve = []
    for _ in steps:
        views = torch.cat([augment(digits.train), augment(digits.train)])
        x, y = head(model(views)).chunk(2)
        if supervised(name):
            value = loss(torch.cat([x, y]), digits.train_labels.repeat(2))
        elif takes(LOSSES[name], "views"):
            value = loss([x, y])
        else:
            value = loss(x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        curve.append(value.item())
    model.eval()
    return curve


# ---- evaluation -------------------------------------------------------------------------------


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> Tensor:
    return F.normalize(model(images))


def accuracies(digits: Digits, model: nn.Module) -> list[float]:
    """Test accuracy of the nearest labelled neighbour by cosine, for each entry of LABELS."""
    labels = digits.train_labels
    similarity = features(model, digits.test) @ features(model, digits.train).mT
    found = []
    for count in LABELS:
        generator = torch.Generator().manual_seed(0)  # the same draws for every model
        hits = []
        for _ in range(1 if count is None else DRAWS):
            order = torch.randperm(len(labels), generator=generator)
            chosen = torch.cat([order[labels[order] == c][:count] for c in range(10)])
            nearest = chosen[similarity[:, chosen].argmax(1)]
            hits.append((labels[nearest] == digits.test_labels).float().mean())
        found.append(torch.stack(hits).mean().item())
    return found


def peak_memory() -> float | None:
    """The largest resident set of this process so far, in MiB; None if it is not known."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass
class Result:
    """The measurements of a run; ``accuracy[model]`` has one value per entry of LABELS."""

    loss: str
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0
    memory: tuple[float | None, float | None] = (None, None)
    #: test features before and after training, and the test digits
    embedded: tuple[Tensor, ...] = ()

    def table(self) -> str:
        heads = ["all labels" if n is None else f"{n} per class" for n in LABELS]
        lines = ["test accuracy, labels:" + "".join(f"{head:>14}" for head in heads)]
        for model, values in self.accuracy.items():
            lines.append(f"  {model:<20}" + "".join(f"{100 * v:>12.1f} %" for v in values))
        steps = len(self.curve)
        lines.append(f"training: {self.seconds:.1f} s, {self.seconds / steps:.3f} s per epoch")
        before, after = self.memory
        if before is not None:
            lines.append(f"peak memory: {after:.0f} MiB, {before:.0f} MiB of it before training")
        return "\n".join(lines)


def run(
    loss: str = BASELINE,
    epochs: int = EPOCHS,
    seed: int = 0,
    backend: str | None = None,
    *,
    progress: bool = False,
) -> Result:
    """Train an encoder with the named loss and compare it."""
    torch.manual_seed(seed)
    digits, model, cls = Digits.load(), encoder().eval(), LOSSES[loss]
    options: dict[str, Any] = {"backend": backend}
    if loss in TEMPERATURE:
        options["temperature"] = TEMPERATURE[loss]
    result = Result(loss)
    result.accuracy["raw pixels"] = accuracies(digits, nn.Flatten())
    result.accuracy["untrained encoder"] = accuracies(digits, model)
    before = features(model, digits.test)

    memory, start = peak_memory(), time.perf_counter()
    quiet = None if progress else True  # None: shown only on a terminal
    steps = tqdm(range(epochs), desc=loss, unit="epoch", disable=quiet)
    result.curve = train(model, digits, cls(**options), loss, steps)
    result.seconds, result.memory = time.perf_counter() - start, (memory, peak_memory())

    result.accuracy["trained encoder"] = accuracies(digits, model)
    result.embedded = (before, features(model, digits.test), digits.test_labels)
    return result


# ---- picture ----------------------------------------------------------------------------------


def draw(result: Result, path: Path) -> None:
    """A picture of the test images before and after training, the accuracies and the loss."""
    figure = Figure(figsize=(13, 3.6), dpi=90, layout="constrained")
    before, after, bars, curve = figure.subplots(1, 4)
    labels = result.embedded[2]
    for axes, points, title in (
        (before, result.embedded[0], "before training"),
        (after, result.embedded[1], "after training"),
    ):
        flat = TSNE(init="pca", random_state=0).fit_transform(points.numpy())
        axes.scatter(*flat.T, c=labels, cmap="tab10", s=6)
        for digit in range(10):
            x, y = torch.from_numpy(flat)[labels == digit].median(0).values.tolist()
            box = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.7}
            axes.text(x, y, str(digit), ha="center", va="center", weight="bold", bbox=box)
        axes.set(title=f"test images, {title}", xticks=[], yticks=[])

    names = ["all" if n is None else str(n) for n in LABELS]
    width = 0.8 / len(result.accuracy)
    shades = ("0.8", "0.55", "tab:blue", "tab:orange")
    for k, (model, values) in enumerate(result.accuracy.items()):
        at = [place + (k - (len(result.accuracy) - 1) / 2) * width for place in range(len(names))]
        drawn = bars.bar(at, [100 * v for v in values], width, label=model, color=shades[k])
        bars.bar_label(drawn, fmt="%.0f", fontsize=7)
    bars.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 140), yticks=range(0, 101, 20))
    bars.set(title="nearest-neighbour accuracy, %", xlabel="labels per class")
    bars.legend(fontsize=7, loc="upper left")

    curve.plot(range(1, len(result.curve) + 1), result.curve)
    curve.set(title=f"loss ({result.loss})", xlabel="epoch")
    figure.savefig(path)
