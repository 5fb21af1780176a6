"""A step of CLIP on a batch whose activations need much memory: with gradient caching, as one batch
and with accumulated gradients. Prints time, peak memory, the loss, and how far the gradient is from
that of the batch. Memory is measured as Linux with glibc allows it.

    python examples/gradient_caching.py [--batch 512] [--chunk 32]
"""

from __future__ import annotations

import argparse
import ctypes
import re
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from contrastloss import CLIPLoss
from contrastloss.gradcache import GradCache

WIDTH, TOKENS, LAYERS = 64, 32, 3


class Tower(nn.Module):
    """A small transformer: the mean of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(1)


class Step:
    """Both towers, a batch, and three ways to get gradients."""

    def __init__(self, batch: int, chunk: int) -> None:
        torch.manual_seed(0)
        self.images, self.texts, self.loss, self.chunk = Tower(), Tower(), CLIPLoss(), chunk
        self.batch = torch.randn(2, batch, TOKENS, WIDTH)

    def cached(self) -> float:
        with GradCache(self.chunk) as cache:
            x, y = cache(self.images, self.batch[0]), cache(self.texts, self.batch[1])
            loss = self.loss(x, y)
            loss.backward()
        return loss.item()

    def one_batch(self) -> float:
        loss = self.loss(self.images(self.batch[0]), self.texts(self.batch[1]))
        loss.backward()
        return loss.item()

    def accumulated(self) -> float:
        chunks = self.batch.split(self.chunk, 1)
        total = 0.0
        for images, texts in chunks:
            loss = self.loss(self.images(images), self.texts(texts)) / len(chunks)
            loss.backward()
            total += loss.item()
        return total

    def gradient(self) -> Tensor:
        """Of all parameters; they have none afterwards."""
        parameters = [*self.images.parameters(), *self.texts.parameters()]
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        for p in parameters:
            p.grad = None
        return found


def memory(name: str) -> float:
    """MB of this process: ``VmRSS``, in use, or ``VmHWM``, the peak."""
    with open("/proc/self/status") as file:
        found = re.search(rf"{name}:\s*(\d+)", file.read())
    assert found is not None
    return int(found[1]) / 1024


def measured(step: Callable[[], float]) -> tuple[float, float, float]:
    """Seconds, MB and the loss."""
    ctypes.CDLL(None).malloc_trim(0)  # gives back what was freed before
    before, start = memory("VmRSS"), time.perf_counter()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    loss = step()
    return time.perf_counter() - start, memory("VmHWM") - before, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=32)
    options = parser.parse_args()
    step = Step(options.batch, options.chunk)
    ways = {
        "gradient caching": step.cached,
        "accumulation": step.accumulated,
        "one batch": step.one_batch,
    }
    Step(4, 2).cached()  # loads everything that is loaded once
    rows, gradients = {}, {}
    for name, way in ways.items():
        rows[name], gradients[name] = measured(way), step.gradient()
    want = gradients["one batch"]
    print(f"{'':18} seconds  peak MB    loss  gradient differs by")
    for name, (seconds, size, loss) in rows.items():
        error = (gradients[name] - want).norm() / want.norm()
        print(f"{name:18} {seconds:7.1f} {size:8.0f} {loss:7.3f}  {error:.0e}")


if __name__ == "__main__":
    main()
