"""Compiles the launches of calls for a chip that is not present, by Triton's own binder."""

import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from backends.sass import pieces
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from contrastloss.backends.triton import backward, config, forward, sort, topk
from contrastloss.backends.triton.config import Config

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
#: bytes of shared memory per program instance
SHARED = {
    "sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "sm_120": 99 << 10,
    "gfx90a": 64 << 10, "gfx942": 64 << 10, "gfx1100": 64 << 10,
}  # fmt: skip
#: multiprocessors, as many as an H100 has
PROCESSORS = 132


class Absent:
    """Triton's driver of a chip that is not there: kernels are compiled, and cannot be launched."""

    def __init__(self, architecture: str):
        self.architecture = architecture

    def get_current_target(self):
        return TARGETS[self.architecture]

    def get_current_device(self):
        return list(TARGETS).index(self.architecture)  # Triton keeps its kernels by device

    def get_current_stream(self, device=None):
        return 0


@dataclass
class Launch:
    """A launch that was only compiled."""

    architecture: str
    kernel: str
    grid: tuple[int, ...]
    options: dict[str, Any]
    binary: Any
    #: of kernels of pairs: the row of the table
    config: Config | None

    @property
    def label(self):
        sizes = [self.options.get(f"BLOCK_{axis}") for axis in "MND"]
        return f"{self.architecture} {self.kernel} {sizes}"

    @property
    def pairs(self):
        """Pairs of a tile per thread."""
        return self.options["BLOCK_M"] * self.options["BLOCK_N"] // (32 * self.options["num_warps"])

    def registers(self, folder):
        """(registers per thread, spilled bytes according to ptxas, or spilled registers according
        to the AMD assembler)."""
        if self.architecture.startswith("gfx"):
            code = self.binary.asm["amdgcn"]
            found = [re.search(rf"\.vgpr_{what}count:\s*(\d+)", code) for what in ("", "spill_")]
            return tuple(int(one[1]) for one in found)
        number = int(self.architecture.removeprefix("sm_"))
        found = get_ptxas(number)
        source = folder / "kernel.ptx"
        source.write_text(self.binary.asm["ptx"])
        chip = self.architecture + ("a" if number >= 90 else "")
        command = [getattr(found, "path", found), "-v", f"--gpu-name={chip}", source, "-o"]
        done = subprocess.run([*command, "/dev/null"], capture_output=True, text=True, check=True)
        found = [
            re.search(what, done.stderr) for what in (r"Used (\d+) reg", r"(\d+) bytes spill s")
        ]
        return tuple(int(one[1]) for one in found)

    def pieces(self, folder, tools):
        """The straight pieces of the machine code."""
        source = folder / "kernel.cubin"
        source.write_bytes(self.binary.asm["cubin"])
        command = [tools / "nvdisasm", "-c", source]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return pieces(done.stdout)


@contextmanager
def compiled(monkeypatch, architecture):
    """The list of all launches in this context, which are compiled for ``architecture``."""
    found, rows, run, choose = [], [], JITFunction.run, config.choose

    def compile_only(self, *args, grid, warmup, **options):
        binary = run(self, *args, grid=grid, warmup=True, **options)
        row = rows[-1] if "BLOCK_D" in options else None
        found.append(Launch(architecture, self.fn.__name__, grid, options, binary, row))

    def chosen(o):
        rows.append(choose(o))
        return rows[-1]

    def exact(o):
        return "ieee" if architecture.startswith("gfx") or o.x.dtype != torch.float32 else "tf32x3"

    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        patch.setattr(config, "architecture", lambda device: architecture)
        patch.setattr(config, "processors", lambda device: PROCESSORS)
        patch.setattr(sort, "processors", lambda device: PROCESSORS)
        for module in (forward, backward, topk):
            patch.setattr(module, "choose", chosen)
            patch.setattr(module, "precision", exact)
        patch.setattr(driver, "_active", Absent(architecture))
        yield found
