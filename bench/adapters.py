"""The adapters of contrastloss.compat, and the classes that they stand for, as functions of
embeddings.

``python bench/adapters.py NAME ours ROWS`` prints the bytes at the peak of a forward and
backward pass, in addition to its inputs and gradients, in a process that may address no more than
memory.py allows; ``theirs`` in place of ``ours`` for the other library's class.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import memory
import torch
from torch import Tensor
from torch.nn.functional import normalize

from contrastloss.bench.peers import cached, lightly_loss, module
from contrastloss.bench.timing import step

OURS, THEIRS = "ours", "theirs"
D = 128

#: a loss of one library's classes, and how many embeddings of a row it takes
Make = Callable[[Any], Callable[..., Tensor]]


def _image_text(name: str, *numbers: float) -> Make:
    def make(library: Any) -> Callable[..., Tensor]:
        loss = getattr(library, name)()
        return lambda x, y: loss(normalize(x), normalize(y), *numbers)

    return make


def _distilled(library: Any) -> Callable[..., Tensor]:
    loss = library.DistillClipLoss()

    def run(x: Tensor, y: Tensor) -> Tensor:
        x, y = normalize(x), normalize(y)
        teacher = x.detach().roll(1, 1), y.detach().roll(1, 1)
        return sum(loss(x, y, 14.3, *teacher, 14.3))

    return run


def _sentences(name: str, **options: Any) -> Make:
    def make(library: Any) -> Callable[..., Tensor]:
        loss = getattr(library, name)(None, **options)
        return lambda *columns: loss.compute_loss_from_embeddings(list(columns), None)

    return make


def _cached_sentences(name: str, **options: Any) -> Make:
    def make(library: Any) -> Callable[..., Tensor]:
        model = torch.nn.Sequential(torch.nn.Identity())  # which embeds nothing here
        return cached(getattr(library, name)(model, **options))

    return make


def _labels(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device) // 4


def _triplets(name: str, distance: str) -> Make:
    def make(library: Any) -> Callable[..., Tensor]:
        found = _library("sentence_transformers", THEIRS).BatchHardTripletLossDistanceFunction
        loss = getattr(library, name)(None, distance_metric=getattr(found, distance), margin=0.5)
        return lambda x: loss.compute_loss_from_embeddings([x], _labels(x))

    return make


def _metric_learning(name: str, cosine: bool = False, **options: Any) -> Make:
    def make(library: Any) -> Callable[..., Tensor]:
        distances = import_module("pytorch_metric_learning.distances")
        given = {"distance": distances.CosineSimilarity()} if cosine else {}
        loss = getattr(library, name)(**given, **options)
        return lambda x: loss(x, _labels(x))

    return make


def _plain(name: str, **options: Any) -> Make:
    """A class that is called with the columns."""
    return lambda library: getattr(library, name)(**options)


#: columns of the queue of MoCo v2+
QUEUE = 16384


def _simclr(library: Any) -> Callable[..., Tensor]:
    return lambda x, y: library.simclr_loss_func(
        torch.cat([x, y]), torch.arange(len(x), device=x.device).repeat(2)
    )


def _moco(library: Any) -> Callable[..., Tensor]:
    made = torch.Generator().manual_seed(1)
    queue = normalize(torch.randn(D, QUEUE, generator=made), dim=0)
    return lambda x, y: library.mocov2plus_loss_func(normalize(x), normalize(y), queue.to(x))


def _function(name: str) -> Make:
    return lambda library: getattr(library, name)


#: lightly's modules of classes
LIGHTLY = {
    "NTXentLoss": "ntx_ent_loss",
    "DCLLoss": "dcl_loss",
    "HypersphereLoss": "hypersphere_loss",
    "BarlowTwinsLoss": "barlow_twins_loss",
    "VICRegLoss": "vicreg_loss",
    "KoLeoLoss": "koleo_loss",
}


def _solo_learn() -> Any:
    """The functions of solo-learn's release, with the names and arguments of its repository's last
    state: SimCLR took the two views as two tensors."""

    def found(file: str, name: str) -> Any:
        return getattr(module(f"solo.losses.{file}", bare=["solo", "solo.losses"]), name)

    simclr = found("simclr", "simclr_loss_func")
    return SimpleNamespace(
        simclr_loss_func=lambda z, indexes: simclr(*z.chunk(2)),
        mocov2plus_loss_func=found("moco", "moco_loss_func"),
        barlow_loss_func=found("barlow", "barlow_loss_func"),
        vicreg_loss_func=found("vicreg", "vicreg_loss_func"),
    )


THEIR_MODULES = {
    "sentence_transformers": "sentence_transformers.sentence_transformer.losses",
    "pytorch_metric_learning": "pytorch_metric_learning.losses",
    "info_nce": "info_nce",
    "grad_cache": "gradcache.loss",
}


def _library(name: str, which: str) -> Any:
    if which == OURS:
        return import_module(f"contrastloss.compat.{name}")
    if name == "open_clip":
        return module("open_clip.loss", bare=["open_clip"])
    if name == "lightly":
        classes = {cls: getattr(lightly_loss(file), cls) for cls, file in LIGHTLY.items()}
        return SimpleNamespace(**classes)
    if name == "solo_learn":
        return _solo_learn()
    return import_module(THEIR_MODULES[name])


#: library, how many embeddings, the loss
ADAPTERS: dict[str, tuple[str, int, Make]] = {
    "open_clip ClipLoss": ("open_clip", 2, _image_text("ClipLoss", 14.3)),
    "open_clip SigLipLoss": ("open_clip", 2, _image_text("SigLipLoss", 14.3, -10.0)),
    "open_clip DistillClipLoss": ("open_clip", 2, _distilled),
    "sentence-transformers MultipleNegativesRankingLoss": (
        "sentence_transformers", 2, _sentences("MultipleNegativesRankingLoss"),
    ),
    "sentence-transformers MultipleNegativesRankingLoss, hard negatives": (
        "sentence_transformers", 3, _sentences("MultipleNegativesRankingLoss"),
    ),
    "sentence-transformers MultipleNegativesRankingLoss, four directions": (
        "sentence_transformers", 2,
        _sentences(
            "MultipleNegativesRankingLoss",
            directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        ),
    ),
    "sentence-transformers CachedMultipleNegativesRankingLoss": (
        "sentence_transformers", 2, _cached_sentences("CachedMultipleNegativesRankingLoss"),
    ),
    "sentence-transformers BatchHardTripletLoss": (
        "sentence_transformers", 1, _triplets("BatchHardTripletLoss", "euclidean_distance"),
    ),
    "sentence-transformers BatchAllTripletLoss, cosine": (
        "sentence_transformers", 1, _triplets("BatchAllTripletLoss", "cosine_distance"),
    ),
    "pytorch-metric-learning NTXentLoss": (
        "pytorch_metric_learning", 1, _metric_learning("NTXentLoss"),
    ),
    "pytorch-metric-learning SupConLoss": (
        "pytorch_metric_learning", 1, _metric_learning("SupConLoss"),
    ),
    "pytorch-metric-learning MultiSimilarityLoss": (
        "pytorch_metric_learning", 1, _metric_learning("MultiSimilarityLoss"),
    ),
    "pytorch-metric-learning CircleLoss": (
        "pytorch_metric_learning", 1, _metric_learning("CircleLoss"),
    ),
    "pytorch-metric-learning ContrastiveLoss, cosine": (
        "pytorch_metric_learning", 1,
        _metric_learning("ContrastiveLoss", cosine=True, pos_margin=0.9, neg_margin=0.1),
    ),
    "pytorch-metric-learning TripletMarginLoss, cosine": (
        "pytorch_metric_learning", 1, _metric_learning("TripletMarginLoss", cosine=True),
    ),
    "lightly NTXentLoss": ("lightly", 2, _plain("NTXentLoss")),
    "lightly DCLLoss": ("lightly", 2, _plain("DCLLoss")),
    "lightly HypersphereLoss": ("lightly", 2, _plain("HypersphereLoss")),
    "lightly BarlowTwinsLoss": ("lightly", 2, _plain("BarlowTwinsLoss")),
    "lightly VICRegLoss": ("lightly", 2, _plain("VICRegLoss")),
    "lightly KoLeoLoss": ("lightly", 1, _plain("KoLeoLoss")),
    "solo-learn simclr_loss_func": ("solo_learn", 2, _simclr),
    "solo-learn mocov2plus_loss_func": ("solo_learn", 2, _moco),
    "solo-learn barlow_loss_func": ("solo_learn", 2, _function("barlow_loss_func")),
    "solo-learn vicreg_loss_func": ("solo_learn", 2, _function("vicreg_loss_func")),
    "info-nce-pytorch InfoNCE": ("info_nce", 2, _plain("InfoNCE")),
    "GradCache SimpleContrastiveLoss": ("grad_cache", 2, _plain("SimpleContrastiveLoss")),
}  # fmt: skip


def loss(name: str, which: str) -> Callable[..., Tensor]:
    library, _, make = ADAPTERS[name]
    return make(_library(library, which))


def inputs(name: str, rows: int, dtype: torch.dtype = torch.float32) -> Sequence[Tensor]:
    """Columns that belong together, of rows that belong together."""
    made = torch.Generator().manual_seed(0)
    centre = torch.randn(-(-rows // 4), D, generator=made).repeat_interleave(4, 0)[:rows]
    columns = [centre + torch.randn(rows, D, generator=made) for _ in range(ADAPTERS[name][1])]
    return [(column / D**0.5).to(dtype) for column in columns]


def probe(name: str, which: str, rows: int) -> dict[str, int]:
    command = [sys.executable, __file__, name, which, str(rows)]
    environment = os.environ | memory.MALLOC
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"memory of {name}, {which}, {rows} rows: {last}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(name: str, which: str, rows: str) -> None:
    torch.set_num_threads(2)
    function = loss(name, which)
    step(function, inputs(name, 32))()  # loads libraries and starts threads
    run = step(function, inputs(name, int(rows)))
    memory.limit("cpu")
    before = memory.reset_peak("cpu")
    try:
        _, grads = run()
    except RuntimeError as error:
        if (size := memory.asked(error)) is None:
            raise
        print(json.dumps({"asked": size}))
        return
    extra = memory.peak("cpu") - before - sum(grad.nbytes for grad in grads)
    print(json.dumps({"extra": max(extra, 0)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
