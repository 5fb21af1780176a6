"""The gradients of a batch that is spread over ranks, ours and others', in bench/results/ddp.json.

python bench/ddp.py       measure: four processes on gloo, a few seconds
python bench/report.py    write the table of docs/distributed.md from the result

The ranks share a linear encoder and a temperature. Each rank calls a system's class on its own
rows, and the gradients are averaged over the ranks, as DDP does. They are compared with the
gradient of the same formula on the whole batch in one process (contrastloss/bench/dense.py). Each
class is first checked to give that gradient in one process, so that only the distribution is
compared.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

import contrastloss
from contrastloss.bench import dense, peers

FILE = Path(__file__).parent / "results/ddp.json"
WORLD, ROWS, D, DTYPE = 4, 16, 32, torch.float64
TEMPERATURE, BIAS = 0.1, -10.0
#: how far our own ratios, and those of any class in one process, may be from 1
LIMIT = 1e-9

#: (x, y, labels, scale) -> loss, of the rows of two views and the labels of both
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

FORMULAS: dict[str, Loss] = {
    "CLIPLoss": lambda x, y, labels, scale: dense.clip(x, y, scale=scale),
    "SigLIPLoss": lambda x, y, labels, scale: dense.siglip(x, y, scale=scale, bias=BIAS),
    "NTXentLoss": lambda x, y, labels, scale: dense.nt_xent(x, y, scale=scale),
    "SupConLoss": lambda x, y, labels, scale: dense.supcon(*both(x, y, labels), scale=scale),
}
#: its name, the name of its formula, and a function of (rank, world size) that returns the loss
System = tuple[str, str, Callable[[int, int], Loss]]


def both(x: Tensor, y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([x, y]), torch.cat([labels, labels])


def ours(name: str, **options: Any) -> System:
    def load(rank: int, world: int) -> Loss:
        bias = {"bias": BIAS} if name == "SigLIPLoss" else {}
        group = dist.group.WORLD if world > 1 else None
        loss = getattr(contrastloss, name)(TEMPERATURE, group=group, **bias, **options)
        if name == "SupConLoss":
            return lambda x, y, labels, scale: loss(*both(x, y, labels), logit_scale=scale)
        return lambda x, y, labels, scale: loss(x, y, logit_scale=scale)

    return f"{peers.OURS} {name}, {shown(options)}", name, load


def open_clip(name: str, formula: str, **options: Any) -> System:
    def load(rank: int, world: int) -> Loss:
        cls = getattr(peers.module("open_clip.loss", bare=["open_clip"]), name)
        loss = cls(rank=rank, world_size=world, **options)
        bias = BIAS if formula == "SigLIPLoss" else None
        return lambda x, y, labels, scale: loss(normalize(x), normalize(y), scale, bias)

    return f"open_clip {name}, {shown(options)}", formula, load


def lightly(**options: Any) -> System:
    def load(rank: int, world: int) -> Loss:
        loss = peers.lightly(SimpleNamespace(temperature=TEMPERATURE), **options)
        return lambda x, y, labels, scale: loss(x, y)

    return f"lightly NTXentLoss, {shown(options)}", "NTXentLoss", load


def metric_learning(name: str, **options: Any) -> System:
    def load(rank: int, world: int) -> Loss:
        wrapper = peers.module("pytorch_metric_learning.utils.distributed").DistributedLossWrapper
        cls = getattr(peers.module("pytorch_metric_learning.losses"), name)
        loss = wrapper(cls(temperature=TEMPERATURE), **options)

        def call(x: Tensor, y: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
            if name == "NTXentLoss":  # each instance is its own class
                labels = torch.arange(rank * len(x), (rank + 1) * len(x))
            return loss(*both(x, y, labels))

        return call

    wrapped = f"pytorch-metric-learning DistributedLossWrapper({name})"
    return f"{wrapped}, {shown(options)}", name, load


def shown(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


#: the packages of the systems
LIBRARIES = ("open_clip_torch", "lightly", "pytorch-metric-learning")
NO_YES, EXCHANGES = (False, True), ("bidir", "shift", "reduce", "gather")
SYSTEMS = [
    *(ours(name, strategy=how) for name, how in product(FORMULAS, ("gather", "ring"))),
    *(
        open_clip("ClipLoss", "CLIPLoss", local_loss=local, gather_with_grad=grad)
        for local, grad in product(NO_YES, NO_YES)
    ),
    *(open_clip("SigLipLoss", "SigLIPLoss", dist_impl=how) for how in EXCHANGES),
    *(lightly(gather_distributed=value) for value in NO_YES),
    *(metric_learning("NTXentLoss", efficient=value) for value in NO_YES),
    *(metric_learning("SupConLoss", efficient=value) for value in NO_YES),
]


def problem() -> list[Tensor]:
    """The encoder, and two noisy views of the whole batch with labels."""
    random = torch.Generator().manual_seed(0)
    n = WORLD * ROWS
    encoder, x, noise = torch.randn(D + 2 * n, D, generator=random, dtype=DTYPE).split([D, n, n])
    return [encoder / D**0.5, x, x + noise, torch.randint(8, (n,), generator=random)]


def gradients(loss: Loss, encoder: Tensor, x: Tensor, y: Tensor, labels: Tensor) -> list[Any]:
    """Of the encoder and of the logarithm of the scale; None if the loss takes no scale."""
    scale = torch.tensor(1 / TEMPERATURE, dtype=DTYPE)
    weight, log_scale = nn.Parameter(encoder), nn.Parameter(scale.log())
    loss(x @ weight, y @ weight, labels, log_scale.exp()).backward()
    return [weight.grad, log_scale.grad]


def compare(found: list[Any], true: list[Any]) -> dict[str, float | None]:
    features, true_features = (g[0].flatten() for g in (found, true))
    return {
        "features": float(features.norm() / true_features.norm()),
        "cosine": float(cosine_similarity(features, true_features, dim=0)),
        "temperature": None if found[1] is None else float(found[1] / true[1]),
    }


def one(ratios: dict[str, float | None]) -> bool:
    return all(value is None or abs(value - 1) < LIMIT for value in ratios.values())


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of other libraries: deprecated calls, unused wrappers
    encoder, *batch = problem()
    true = {name: gradients(loss, encoder, *batch) for name, loss in FORMULAS.items()}
    refused = {}
    for name, formula, load in SYSTEMS:
        try:
            alone = compare(gradients(load(0, 1), encoder, *batch), true[formula])
            assert one(alone), f"{name} does not compute {formula}: {alone}"
        except (ImportError, TypeError) as error:  # it is not installed, or lacks the option
            refused[name] = {"refused": str(error).partition(" (")[0]}
    store = dist.FileStore(f"{folder}/store", WORLD)
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=limit)
    part = [value[rank * ROWS : (rank + 1) * ROWS] for value in batch]
    systems: list[dict[str, Any]] = []
    for name, formula, load in SYSTEMS:
        ratios = refused.get(name)
        if ratios is None:
            found = gradients(load(rank, WORLD), encoder, *part)
            for gradient in filter(torch.is_tensor, found):
                dist.all_reduce(gradient)
                gradient /= WORLD
            ratios = compare(found, true[formula])
        if name.startswith(peers.OURS):
            assert set(map(type, ratios.values())) == {float}, f"{name}: {ratios}"
            assert one(ratios), f"{name}: {ratios}"
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in ratios.items()}
        systems.append({"system": name, **rounded})
    dist.destroy_process_group()
    if rank == 0:
        Path(folder, "systems").write_text(json.dumps(systems))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (folder,), nprocs=WORLD)
        systems = json.loads(Path(folder, "systems").read_text())
    versions = {"torch": torch.__version__, peers.OURS: contrastloss.__version__}
    installed = peers.versions()
    versions |= {name: installed[name] for name in LIBRARIES if name in installed}
    setting = {"world": WORLD, "rows": ROWS, "d": D, "dtype": str(DTYPE).removeprefix("torch.")}
    data = {**setting, "versions": versions, "systems": systems}
    FILE.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
