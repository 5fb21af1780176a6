"""``python -m contrastloss``: ``info`` about this installation, a ``demo`` of training, a ``bench``
of losses, the ``warmup`` of kernels that are compiled at their first call, ``tune``, which finds
the fastest backend, and ``mine``, which finds hard negatives on disk."""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
import time

import torch

from . import backends, functional
from .arguments import device, integer
from .info import info
from .losses import LOSSES, PairLoss
from .testing import example

DTYPES = ("bfloat16", "float16", "float32", "float64")
#: commands that need the packages of an extra: its name, their module, and what they do
EXTRAS = {
    "demo": ("demo", "demo", "train on a small data set"),
    "bench": ("bench", "bench.command", "time losses beside dense PyTorch and other libraries"),
    "tune": ("tune", "tune.command", "check and time backends, to choose the fastest here"),
    "mine": ("mining", "mining.command", "find hard negatives in a corpus of embeddings on disk"),
}


def warmup(given: argparse.Namespace) -> None:
    """One training step for every shape. Kernels depend on D, on the dtype and on whether a batch
    is small, but not on the exact number of rows."""
    for rows, dim in itertools.product(given.rows, given.dim):
        made = example(LOSSES[given.loss], rows, dim, torch.Generator().manual_seed(0))
        dtype = getattr(torch, given.dtype)
        inputs = [v.to(given.device, dtype if v.is_floating_point() else v.dtype) for v in made]
        for value in inputs:
            value.requires_grad_(value.is_floating_point())
        began = time.perf_counter()
        loss = getattr(functional, given.loss)(*inputs, backend=given.backend)
        loss.backward()
        value, seconds = loss.item(), time.perf_counter() - began
        print(f"{given.loss} {rows} x {dim} {given.dtype}: {seconds:.1f} s, loss {value:.4f}")


def install(extra: str) -> str:
    return f"pip install 'contrastloss[{extra}]'"


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m contrastloss", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, backends and native parts of this installation")
    warm = commands.add_parser("warmup", help="compile the kernels of a loss for given shapes")
    paired = sorted(name for name, cls in LOSSES.items() if issubclass(cls, PairLoss))
    warm.add_argument("--loss", choices=paired, default="clip")
    warm.add_argument("--rows", type=integer(1), nargs="+", default=[4096], help="rows of a batch")
    warm.add_argument(
        "--dim", type=integer(1), nargs="+", default=[512], help="length of embeddings"
    )
    warm.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    warm.add_argument("--device", type=device, default="cuda")
    warm.add_argument("--backend", choices=sorted(backends.available()), default="triton")
    extras = {
        name: commands.add_parser(name, help=f"{what} ({install(extra)})")
        for name, (extra, _, what) in EXTRAS.items()
    }
    name = arguments[0] if arguments else ""
    if name not in EXTRAS:
        given = parser.parse_args(arguments)
        if given.command == "info":
            print(info())
            return 0
        try:
            warmup(given)
        except RuntimeError as error:  # the backend is missing, or there is too little memory
            parser.exit(1, f"warmup: {error}\n")
        return 0
    extra, path, _ = EXTRAS[name]
    try:
        module = importlib.import_module(f"{__package__}.{path}")
        module.add_arguments(extras[name])
        return module.main(parser.parse_args(arguments)) or 0
    except ModuleNotFoundError as error:
        if str(error.name).startswith(str(__package__)):
            raise
        package = str(error.name).partition(".")[0]
        parser.exit(1, f"the {name} needs {package}: {install(extra)}\n")


if __name__ == "__main__":
    sys.exit(main())
