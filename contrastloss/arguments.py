"""Types of command line arguments. A wrong value is a usage error that says what is expected."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["device", "integer", "output"]


def integer(least: int, most: int = (1 << 31) - 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"got {text:.40}, expected an integer of {least} to {most}"
            )
        return value

    return read


def device(text: str) -> torch.device:
    """A device that can hold tensors on this machine."""
    try:
        return torch.empty(0, device=text).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"got {text}, expected a device of this machine: {reason}"
        ) from None


def output(*endings: str) -> Callable[[str], Path]:
    """A writable file with one of these endings; checked at the start, not after an hour's work."""

    def read(text: str) -> Path:
        path = Path(text)
        if path.suffix[1:].lower() not in endings:
            expected = ", ".join(f".{ending}" for ending in endings)
            raise argparse.ArgumentTypeError(f"got {text}, expected a name that ends in {expected}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()
        except OSError as error:
            raise argparse.ArgumentTypeError(
                f"got {text}, expected a file that can be written: {error.strerror}"
            ) from None
        return path

    return read
