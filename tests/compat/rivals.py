"""The other libraries' modules, and ours of the same names."""

import contextlib
from importlib import import_module

import torch

# Torchvision's wheel has its operators for a torch with CUDA, and a torch for CPUs does not load
# them. It says of two what their results look like, so these must exist; open_clip and lightly
# import it and call neither.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
with contextlib.suppress(RuntimeError):  # they exist
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

THEIRS = {
    "open_clip": "open_clip.loss",
    "grad_cache": "gradcache.loss",
    "info_nce": "info_nce",
}


def pair(name):
    """Our module called ``name``, and theirs."""
    return import_module(f"contrastloss.compat.{name}"), import_module(THEIRS[name])
