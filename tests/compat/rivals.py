"""The other libraries' modules, and ours of the same names."""

import contextlib
import sys
from importlib import import_module
from pathlib import Path

import torch

# what `make .venv/.vision` installs; here, and not in the environment, where others would import it
sys.path.append(str(Path(sys.prefix) / "vision"))
# Torchvision's operators are for a torch with CUDA, and one for CPUs does not load them. It says of
# two what their results look like, so these must exist; open_clip imports it and calls neither.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
with contextlib.suppress(RuntimeError):  # they exist
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

THEIRS = {
    "open_clip": "open_clip.loss",
    "grad_cache": "gradcache.loss",
    "info_nce": "info_nce",
    "lightly": "lightly.loss",
    "sentence_transformers": "sentence_transformers.sentence_transformer.losses",
}


def pair(name):
    """Our module called ``name``, and theirs."""
    return import_module(f"contrastloss.compat.{name}"), import_module(THEIRS[name])
