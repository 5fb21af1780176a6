"""What the times of a backend depend on: the device, versions, and the backend's own code."""

from __future__ import annotations

import hashlib
import importlib
import platform
import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Stamp", "installed", "processor", "sources", "stamp"]

_HERE = Path(__file__).parent


class Stamp(NamedTuple):
    """Where and with what a backend was checked or timed."""

    #: the type of the device, "cuda"
    device: str
    #: the GPU, or the CPU with the number of torch's threads
    name: str
    #: "9.0", an architecture of AMD, or the vector instructions of a CPU
    capability: str
    driver: str
    torch: str
    triton: str
    #: of the backend's code: :func:`sources`
    sources: str

    def differences(self, now: Stamp) -> str:
        """Which versions are not those of ``now``, in words."""
        pairs = zip(self._fields, self, now, strict=True)
        changed = [(field, a, b) for field, a, b in pairs if a != b]
        return ", ".join(
            "another version of its code" if field == "sources" else f"{field} {a}, not {b}"
            for field, a, b in changed
        )


def stamp(device: torch.device, backend: str) -> Stamp:
    """The stamp of a backend on this machine, now."""
    versions = torch.__version__, installed("triton"), sources(backend)
    if device.type != "cuda":
        name = f"{processor()}, {torch.get_num_threads()} threads"
        return Stamp(device.type, name, torch.backends.cpu.get_cpu_capability(), "none", *versions)
    found = torch.cuda.get_device_properties(device)
    capability = f"{found.major}.{found.minor}"
    if torch.version.hip:
        capability = found.gcnArchName.split(":")[0]
    return Stamp("cuda", found.name, capability, _driver(), *versions)


def _driver() -> str:
    """The version of the GPU's driver, as far as the system tells it without a process."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "unknown"
    found = re.search(r"NVRM version:.*?(\d+\.[\d.]+)", text)
    return found[1] if found else "unknown"


def processor() -> str:
    """The name of the CPU, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [told[key] for key in ("CPU implementer", "CPU part") if key in told]  # of an ARM
    return told.get("model name") or " ".join([platform.machine(), *numbers])


def installed(package: str) -> str:
    """The version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@lru_cache(maxsize=16)
def sources(backend: str) -> str:
    """A hash of a backend's code: of its Python files and of what its library was compiled from."""
    found = hashlib.sha256()
    for path in sorted([_HERE / f"{backend}.py", *(_HERE / backend).glob("*.py")]):
        found.update(path.read_bytes() if path.exists() else b"")
    try:
        build = importlib.import_module("contrastloss._build")
    except ModuleNotFoundError:  # nothing was built
        return found.hexdigest()[:16]
    found.update(getattr(build, "SOURCES", {}).get(f"_{backend}", "").encode())
    return found.hexdigest()[:16]
