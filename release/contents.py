"""Adds to a wheel what it has of others: their licences, and a list of them (an SBOM).

The list is CycloneDX JSON in ``*.dist-info/sboms`` (PEP 770). Headers that are compiled in count as
parts, and so does the CUDA runtime, which is linked statically.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from cyclonedx.builder.this import this_component
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6

#: the name of the CUDA runtime's licence, which has no SPDX identifier
EULA = "LicenseRef-NVIDIA-CUDA-EULA"


@dataclass(frozen=True)
class Part:
    """Other people's code in a native library, and the file with its licence if there is one."""

    name: str
    version: str
    licence: str
    source: str
    text: Path | None = None

    def component(self) -> Component:
        return Component(
            name=self.name, version=self.version, type=ComponentType.LIBRARY,
            bom_ref=f"{self.name}@{self.version}",
            licenses=[LicenseFactory().make_from_string(self.licence)],
            external_references=[
                ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(self.source))
            ],
        )  # fmt: skip


def installed(name: str, licence: str, source: str) -> Part:
    """A Python package whose headers are compiled in."""
    found = metadata.distribution(name)
    texts = [
        f for f in found.files or [] if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E", str(f))
    ]
    plain = min(texts, key=lambda f: len(f.parts))
    return Part(name, found.version, licence, source, Path(str(found.locate_file(plain))))


def parts(modules: set[str], nvcc: str | None) -> list[Part]:
    """What the native libraries of these names have of others."""
    found = []
    if "_C" in modules:
        found.append(installed("pybind11", "BSD-3-Clause", "https://github.com/pybind/pybind11"))
    if modules & {"_cpu", "_cuda"}:
        found.append(installed("torch", "BSD-3-Clause", "https://github.com/pytorch/pytorch"))
    if "_cuda" in modules:
        if nvcc is None:
            raise SystemExit("the wheel has a CUDA library: expected CUDA_HOME to name its toolkit")
        version = re.search(r"V([\d.]+)", subprocess.check_output([nvcc, "--version"], text=True))
        found.append(Part("cuda-runtime", version[1] if version else "unknown", EULA,
                          "https://docs.nvidia.com/cuda/eula/"))  # fmt: skip
    return found


def bill(name: str, version: str, has: list[Part], when: int) -> str:
    """The list as text: the same for the same parts and time."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{name}-{version}-{has}"))
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
    bom.metadata.tools.components.add(this_component())
    bom.metadata.component = Component(
        name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"{name}@{version}",
        licenses=[LicenseFactory().make_from_string("MIT")],
    )  # fmt: skip
    for part in has:
        bom.components.add(part.component())
    bom.register_dependency(bom.metadata.component, [part.component() for part in has])
    return (
        json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=2, sort_keys=True) + "\n"
    )


def add(wheel: Path, nvcc: str | None) -> Path:
    """Packs the wheel anew, with licences and list; returns its path."""
    with TemporaryDirectory() as scratch:
        tool = [sys.executable, "-m", "wheel"]
        subprocess.run([*tool, "unpack", "-d", scratch, wheel], check=True, capture_output=True)
        (folder,) = Path(scratch).iterdir()
        (info,) = folder.glob("*.dist-info")
        name, version = info.name.removesuffix(".dist-info").split("-")
        modules = {path.name.split(".")[0] for path in folder.glob(f"{name}/*.so")}
        has = parts(modules, nvcc)
        for part in has:
            if part.text is not None:
                shutil.copyfile(part.text, info / "licenses" / f"LICENSE.{part.name}")
        (info / "sboms").mkdir()
        text = bill(name, version, has, int(os.environ["SOURCE_DATE_EPOCH"]))
        (info / "sboms" / f"{name}.cdx.json").write_text(text)
        wheel.unlink()
        packed = [*tool, "pack", "-d", wheel.parent, folder]
        subprocess.run(packed, check=True, capture_output=True)
    return wheel
