"""SimCLR on scikit-learn's digits, in one process or with the batch spread over several.

    python examples/ddp_digits.py --steps 20
    torchrun --nproc-per-node 2 examples/ddp_digits.py --steps 20

Both print the same losses, one per line: every process compares its rows with the columns of all
processes. scikit-learn (``pip install 'contrastloss[demo]'``) has the images; there is no download.
"""

import argparse

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastloss import LogitScale, NTXentLoss
from contrastloss.demo import Digits, augment


class SimCLR(nn.Module):
    """An encoder of 8 x 8 images, and the temperature, so that its gradient is averaged too."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        # No BatchNorm: its statistics would be those of one process's rows, so the result would
        # depend on the number of processes. LayerNorm uses one row at a time.
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 64)
        )
        self.temperature = LogitScale(temperature)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encoder(first), self.encoder(second), self.temperature()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=255, help="images per step, in all processes")
    parser.add_argument("--width", type=int, default=128, help="width of the hidden layer")
    parser.add_argument("--lr", type=float, default=0.3)
    parser.add_argument("--temperature", type=float, default=0.5, help="initial temperature")
    parser.add_argument("--strategy", choices=["auto", "gather", "ring"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if dist.is_torchelastic_launched():  # torchrun has set the rank and the number of processes
        dist.init_process_group("gloo")
    group = dist.group.WORLD  # None without a launcher, which means this process alone
    rank, world = (dist.get_rank(), dist.get_world_size()) if group else (0, 1)

    torch.manual_seed(args.seed)  # the same weights, batches and augmentations everywhere
    images = Digits.load().train
    model: nn.Module = SimCLR(args.width, args.temperature).double()
    if group:
        model = DistributedDataParallel(model)
    loss = NTXentLoss(group=group, strategy=args.strategy)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)

    for _ in range(args.steps):
        chosen = images[torch.randperm(len(images))[: args.batch]]
        # Every process draws the views of the whole batch and keeps its part, so that the curves
        # can be compared. A real loader loads only that part.
        views = [augment(chosen).double().tensor_split(world)[rank] for _ in range(2)]
        x, y, scale = model(*views)
        value = loss(x, y, logit_scale=scale)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if rank == 0:
            print(f"{value.item():.12f}")

    if group:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
