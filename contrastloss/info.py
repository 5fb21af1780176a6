"""What a bug report needs: versions, the machine, backends and why one is missing, the build."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Iterable
from types import ModuleType

import torch

import contrastloss

from . import backends
from .backends import cpu, table
from .backends.machine import installed, processor

__all__ = ["info"]

#: variables that change which code runs or on how many threads; the first words of their names
_VARIABLES = (
    "CONTRASTLOSS_", "TRITON_", "TORCH_", "PYTORCH_", "CUDA_", "OMP_", "MKL_", "KMP_", "OPENBLAS_",
)  # fmt: skip


def info() -> str:
    """All facts, as text. It has no path, host or user name, but the values of the environment
    variables that it lists."""
    parts = {
        "versions": _versions(),
        "machine": _machine(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)},
        "backends": {
            name: f"missing: {reason}" if reason else "available"
            for name, reason in backends.available().items()
        },
        "checks and times of this user": _tuned(),
        "native code": _native(),
    }
    return "\n\n".join(_section(title, facts.items()) for title, facts in parts.items() if facts)


def _versions() -> dict[str, str]:
    return {
        "contrastloss": contrastloss.__version__,
        "torch": torch.__version__,
        "CUDA of torch": str(torch.version.cuda or torch.version.hip or "none"),
        "triton": installed("triton"),
        "numpy": installed("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _machine() -> dict[str, str]:
    facts = {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads of torch": str(torch.get_num_threads()),
        "instruction set in use": ", ".join(cpu.instruction_sets()[:1]) or "none",
    }
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(k)
            memory = found.total_memory / 2**30
            facts[f"GPU {k}"] = f"{found.name}, {found.major}.{found.minor}, {memory:.0f} GiB"
    return facts


def _tuned() -> dict[str, str]:
    """What `tune` has found: of each backend and machine, the newest."""
    try:
        entries = table.read(table.path())
    except ValueError as error:
        return {"file": f"ignored: {error}"}
    return {
        f"{e.backend} on {e.checked.name}, torch {e.checked.torch}": f"not chosen: {e.failure}"
        if e.failure
        else f"checked, {len(e.times)} times"
        for e in entries
    }


def _native() -> dict[str, str]:
    """Which native parts were compiled, or why they were not."""
    build, module = _optional("_build"), _optional("_C")
    facts = {}
    if build is None:
        facts["build"] = "this source tree was never installed (pip install -e .)"
    for part, reason in (build.MISSING if build else {}).items():
        facts[part] = "missing: " + reason if reason else "built"
    if module is not None:
        for name, value in module.build_info().items():
            shown = " ".join(value) or "none" if isinstance(value, tuple) else str(value)
            facts[name.replace("_", " ")] = shown
        facts["this CPU has"] = " ".join(module.cpu_capability()) or "none of the known extensions"
    return facts


def _optional(name: str) -> ModuleType | None:
    """A module of this package that may be missing from the build."""
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{name}":
            raise
        return None


def _section(title: str, facts: Iterable[tuple[str, str]]) -> str:
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in facts)])
