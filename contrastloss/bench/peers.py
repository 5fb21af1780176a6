"""The contestants of every problem: our loss, dense PyTorch and the classes of other libraries."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .. import backends
from ..losses import CLIPLoss, InfoNCELoss, NTXentLoss, PairLoss, SigLIPLoss, SupConLoss
from ..testing import example
from . import dense

__all__ = [
    "BLOCK",
    "CACHED",
    "CHECKPOINTED",
    "COMPILED",
    "CUDA",
    "CUT_CROSS_ENTROPY",
    "DENSE",
    "INF_CL",
    "LEFT_OUT",
    "LINEAR",
    "LINEAR_BLOCKS",
    "MASKED",
    "MASKED_COMPILED",
    "MEMEFF",
    "OURS",
    "PROBLEMS",
    "REFERENCE",
    "SIGLIP_KERNEL",
    "TRITON",
    "Library",
    "Loss",
    "Problem",
    "cached",
    "cut_cross_entropy",
    "inf_cl",
    "info_nce",
    "lightly",
    "lightly_loss",
    "linear_cross_entropy",
    "masked_nt_xent",
    "memeff_clip",
    "memeff_info_nce",
    "metric_learning",
    "metric_learning_supcon",
    "module",
    "open_clip",
    "open_clip_siglip",
    "sentence_transformers",
    "siglip_kernel",
    "versions",
]

#: contestants that are not run, of which the file says so
LEFT_OUT: set[str] = set()

OURS, DENSE, COMPILED, CHECKPOINTED = "contrastloss", "dense", "compiled", "checkpointed"
#: our loss with the backend of that name
TRITON, CUDA, REFERENCE = "triton", "cuda", "reference"
INF_CL, CUT_CROSS_ENTROPY = "inf-cl", "cut-cross-entropy"
MEMEFF, SIGLIP_KERNEL = "memeff", "siglip-kernel"
#: torch's own chunked loss, from 2.13 on, with the chunks that it chooses and with ``BLOCK`` rows
LINEAR, LINEAR_BLOCKS = "linear_cross_entropy", "linear_cross_entropy, blocks"
#: sentence-transformers' loss that computes ``BLOCK`` rows of scores at a time
CACHED = "sentence-transformers, cached"
#: NT-Xent with a mask, which copies all scores
MASKED, MASKED_COMPILED = "masked", "masked, compiled"
#: the number of rows of scores that the checkpointed baseline holds at a time
BLOCK = 1024

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Library:
    """A class of another package: ``load(loss)`` gives it the options of our ``loss``."""

    load: Callable[[Any], Loss]
    most_rows: float = float("inf")
    why: str = ""
    gpu: bool = False


@dataclass(frozen=True)
class Problem:
    """``gemms`` is the number of products of rows x rows x D in two passes, which store no scores:
    one forward, the same again backward, and two for the gradients. If a batch is compared with
    itself, half of the tiles are enough."""

    ours: PairLoss
    dense: Loss
    gemms: int
    views: int = 1
    libraries: dict[str, Library] = field(default_factory=dict)

    def inputs(self, rows: int, d: int, dtype: torch.dtype, device: str) -> list[Tensor]:
        """Inputs whose scores have ``rows`` rows."""
        made = example(type(self.ours), rows // self.views, d, torch.Generator().manual_seed(0))
        return [v.to(device, dtype if v.is_floating_point() else v.dtype) for v in made]

    @property
    def options(self) -> dict[str, Any]:
        bias = {"bias": self.ours.bias} if hasattr(self.ours, "bias") else {}
        return {"scale": 1 / self.ours.temperature, **bias}

    def load(self, name: str, rows: int = 0) -> Loss:
        """The contestant of this name, to be called with ``inputs``.

        Raises:
            ImportError: its package is not installed.
            ValueError: it cannot be run with this many rows, or on this machine.
        """
        if name in LEFT_OUT:
            raise ValueError("left out of this run")
        plain = partial(self.dense, **self.options)
        if name == OURS:
            return self.ours
        if name == DENSE:
            return plain
        if name == COMPILED:
            return torch.compile(plain, dynamic=False)
        if name == CHECKPOINTED:
            return partial(plain, block=BLOCK)
        if name in (TRITON, CUDA, REFERENCE):
            if lacks := backends.available()[name]:
                raise ValueError(lacks)
            ours = copy.copy(self.ours)
            ours.backend = name
            return ours
        library = self.libraries[name]
        if library.gpu and not torch.cuda.is_available():
            raise ValueError("its kernels need a GPU")
        if rows > library.most_rows:
            raise ValueError(library.why)
        return library.load(self.ours)

    @property
    def names(self) -> list[str]:
        return [OURS, DENSE, COMPILED, CHECKPOINTED, *self.libraries]


# ---- other libraries ----------------------------------------------------------------------------


def module(name: str, bare: Iterable[str] = (), blank: Iterable[str] = ()) -> ModuleType:
    """Import one module of a package whose ``__init__`` files import everything else in it.

    ``bare`` packages are entered without running their ``__init__``. ``blank`` modules are imported
    by the module, but the class does not use them. So neither torchvision nor timm is needed; their
    builds on PyPI do not load with a CPU-only torch.
    """
    for parent in bare:
        spec = find_spec(parent)
        if spec is None:
            raise ModuleNotFoundError(f"{parent} is not installed")
        sys.modules.setdefault(parent, module_from_spec(spec))
    for child in blank:
        sys.modules.setdefault(child, mock.MagicMock())
    return importlib.import_module(name)


def open_clip(ours: Any) -> Loss:
    loss = module("open_clip.loss", bare=["open_clip"]).ClipLoss()
    return lambda x, y: loss(normalize(x), normalize(y), 1 / ours.temperature)


def open_clip_siglip(ours: Any) -> Loss:
    loss = module("open_clip.loss", bare=["open_clip"]).SigLipLoss()
    return lambda x, y: loss(normalize(x), normalize(y), 1 / ours.temperature, ours.bias)


def lightly_loss(name: str) -> ModuleType:
    """One of the modules of ``lightly.loss``."""
    return module(
        f"lightly.loss.{name}",
        bare=["lightly", "lightly.loss", "lightly.models", "lightly.models.modules"],
        blank=["lightly.models.utils"],
    )


def lightly(ours: Any, **options: Any) -> Loss:
    return lightly_loss("ntx_ent_loss").NTXentLoss(temperature=ours.temperature, **options)


def metric_learning(ours: Any) -> Loss:
    losses = module("pytorch_metric_learning.losses")
    return losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=ours.temperature))


def metric_learning_supcon(ours: Any) -> Loss:
    return module("pytorch_metric_learning.losses").SupConLoss(temperature=ours.temperature)


def info_nce(ours: Any) -> Loss:
    return module("info_nce").InfoNCE(temperature=ours.temperature)


def inf_cl(ours: Any) -> Loss:
    flash, scale = module("inf_cl").cal_flash_loss, 1 / ours.temperature

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x, y = normalize(x), normalize(y)
        options = {"scale": scale, "head_dim": min(256, x.shape[1])}
        return (flash(x, y, **options).mean() + flash(y, x, **options).mean()) / 2

    return loss


def cut_cross_entropy(ours: Any) -> Loss:
    entropy, scale = module("cut_cross_entropy").linear_cross_entropy, 1 / ours.temperature

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x, y, target = normalize(x), normalize(y), dense.numbers(x, 0)
        options = {"filter_eps": None}  # no gradient is dropped
        by_row = entropy(scale * x, y, target, **options)
        return (by_row + entropy(scale * y, x, target, **options)) / 2

    return loss


def linear_cross_entropy(ours: Any, *, both: bool, **options: Any) -> Loss:
    """Of rows among columns and, with ``both``, of columns among rows. ``options``: of chunks."""
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        raise ImportError("torch has linear_cross_entropy from 2.13 on")
    entropy, scale = torch.nn.functional.linear_cross_entropy, 1 / ours.temperature
    chunks = torch.nn.LinearCrossEntropyOptions(**options)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x, y, target = normalize(x), normalize(y), dense.numbers(x, 0)
        by_row = entropy(scale * x, y, target, options=chunks)
        return (by_row + entropy(scale * y, x, target, options=chunks)) / 2 if both else by_row

    return loss


def _linear(*, both: bool) -> dict[str, Library]:
    blocks = {"batch_chunk_size": BLOCK, "chunking_method": None}
    return {
        LINEAR: Library(partial(linear_cross_entropy, both=both)),
        LINEAR_BLOCKS: Library(partial(linear_cross_entropy, both=both, **blocks)),
    }


class _Cached(torch.autograd.Function):
    """A loss of sentence-transformers that computes its gradients by itself, part by part, as in a
    training step of that library."""

    @staticmethod
    def forward(ctx: Any, loss: Any, *columns: Tensor) -> Tensor:
        size = loss.mini_batch_size
        parts = [[v.detach().requires_grad_() for v in column.split(size)] for column in columns]
        with torch.enable_grad():
            value: Tensor = loss.calculate_loss(parts, None, with_backward=True)
        ctx.save_for_backward(*[torch.cat([v.grad for v in column]) for column in parts])
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (None, *[grad * value for value in ctx.saved_tensors])


def cached(loss: Any) -> Loss:
    """A loss of sentence-transformers with gradient caching, as a function of columns."""
    return lambda *columns: _Cached.apply(loss, *columns)


_FROM_QUERY, _FROM_DOC = ("query_to_doc",), ("doc_to_query",)


def sentence_transformers(ours: Any, *directions: str) -> Loss:
    losses = module("sentence_transformers.sentence_transformer.losses")
    options: dict[str, Any] = {"directions": directions, "partition_mode": "per_direction"}
    options |= {"scale": 1 / ours.temperature, "mini_batch_size": BLOCK}
    model = torch.nn.Sequential(torch.nn.Identity())  # which embeds nothing here
    return cached(losses.CachedMultipleNegativesRankingLoss(model, **options))


def memeff_clip(ours: Any) -> Loss:
    """By default its gradients are multiplied by a number that depends on the batch."""
    return module("memeff").MemoryEfficientCLIPLoss(ours.temperature, stable=False)


def memeff_info_nce(ours: Any) -> Loss:
    """With a margin of 2, no negative is masked."""
    return module("memeff").MemoryEfficientQwen3Loss(ours.temperature, margin=2.0, stable=False)


def siglip_kernel(ours: Any, **options: Any) -> Loss:
    fused = module("siglip_kernel").fused_siglip_loss

    def loss(x: Tensor, y: Tensor) -> Tensor:
        log_scale = -torch.tensor(ours.temperature, device=x.device).log()
        bias = torch.tensor(ours.bias, device=x.device)
        return fused(normalize(x), normalize(y), log_scale, bias, **options)

    return loss


def masked_nt_xent(ours: Any) -> Loss:
    return partial(dense.nt_xent_masked, scale=1 / ours.temperature)


PROBLEMS = {
    "clip": Problem(
        CLIPLoss(),
        dense.clip,
        4,
        libraries={
            "open_clip": Library(open_clip),
            **_linear(both=True),
            CACHED: Library(lambda ours: sentence_transformers(ours, *_FROM_QUERY, *_FROM_DOC)),
            INF_CL: Library(inf_cl, gpu=True),
            CUT_CROSS_ENTROPY: Library(cut_cross_entropy, gpu=True),
            MEMEFF: Library(memeff_clip, gpu=True),
        },
    ),
    "nt_xent": Problem(
        NTXentLoss(),
        dense.nt_xent,
        2,
        views=2,
        libraries={
            MASKED: Library(masked_nt_xent),
            MASKED_COMPILED: Library(lambda ours: torch.compile(masked_nt_xent(ours))),
            "lightly": Library(lightly),
            "pytorch-metric-learning": Library(metric_learning, 256, "its memory grows as rows³"),
        },
    ),
    "info_nce": Problem(
        InfoNCELoss(),
        dense.info_nce,
        4,
        libraries={
            "info-nce": Library(info_nce),
            **_linear(both=False),
            CACHED: Library(lambda ours: sentence_transformers(ours, *_FROM_QUERY)),
            MEMEFF: Library(memeff_info_nce, gpu=True),
        },
    ),
    "siglip": Problem(
        SigLIPLoss(),
        dense.siglip,
        4,
        libraries={
            "open_clip": Library(open_clip_siglip),
            SIGLIP_KERNEL: Library(siglip_kernel, gpu=True),
        },
    ),
    "supcon": Problem(
        SupConLoss(),
        dense.supcon,
        2,
        libraries={"pytorch-metric-learning": Library(metric_learning_supcon)},
    ),
}


def versions() -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    packages = ["open_clip_torch", "lightly", "pytorch-metric-learning", "info-nce-pytorch"]
    packages += ["sentence-transformers", "gradcache", "solo-learn"]
    packages += [INF_CL, CUT_CROSS_ENTROPY, MEMEFF, SIGLIP_KERNEL]
    for name in (*packages, "faiss-cpu", "diffsort", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
