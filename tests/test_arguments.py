"""Every argument of every public callable, with values of every kind: a result, or an error that
names an argument, what came and what was expected."""

import inspect
import math
import re
import warnings

import numpy as np
import pytest
import torch

from contrastloss import (
    GradCache,
    LogitScale,
    MatryoshkaLoss,
    Monitor,
    channel,
    decoding,
    functional,
    metrics,
    mining,
    mixing,
    ops,
    sorting,
)
from contrastloss.losses import LOSSES
from contrastloss.memory import CrossBatchMemory, EmbeddingQueue, MomentumEncoder
from contrastloss.testing import Subject


def values():
    """Of all kinds; tensors mostly have four rows, as those of a valid call."""
    z = torch.randn(4, 3)
    warnings.simplefilter("ignore")  # sparse, nested and quantized tensors are deprecated, or beta
    yield from (None, "x", b"x", 1.5, -1, 0, True, math.nan, math.inf, 1e-320, 2**62, 10**400, 1j)
    yield from (object(), len, [], ["a"], {}, (), torch.nn.Linear(2, 2), np.ones((4, 3)))
    yield from (np.bool_(True), torch.tensor(1.0), torch.tensor(1), torch.tensor(math.nan))
    yield from (torch.ones(5), torch.zeros(5).long(), torch.ones(5, 7), torch.ones(2, 2, 2))
    yield from (-torch.ones(4).long(), torch.ones(4, dtype=torch.uint64))
    yield from (torch.ones(4, 0), torch.ones(0, 3), z.to("meta"), z.requires_grad_())
    for dtype in (torch.int64, torch.complex64, torch.float64, torch.float8_e4m3fn, torch.bool):
        yield torch.ones(4, 3).to(dtype)
    z = z.detach()
    yield from (z.to_sparse(), z.to_sparse_csr(), z.to_mkldnn())
    yield torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(1, 3)])
    yield torch.quantize_per_tensor(z, 0.1, 0, torch.qint8)


def inputs(name):
    if name == "adjacency_contrastive":
        return [torch.randn(4, 3), torch.eye(4).to_sparse_csr()]
    return Subject(LOSSES[name]).inputs(n=4, d=3, dtype=torch.float32)


def losses():
    for name, cls in LOSSES.items():
        loss = Subject(cls).loss()
        parameters = list(inspect.signature(loss.forward).parameters.values())
        if parameters[0].kind is parameters[0].VAR_POSITIONAL:
            continue
        call = dict(zip([p.name for p in parameters], inputs(name), strict=False))
        yield name, loss, call, [p.name for p in parameters]
        function = getattr(functional, name)
        yield f"functional.{name}", function, call, [*inspect.signature(function).parameters]


def functions():
    """Callables and the arguments of a valid call."""
    z, y, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    top, tokens = ops.pair_topk(z, y, 2), torch.randn(2, 5, 4)
    lse, queue = channel.LSE(), EmbeddingQueue(9, 3, labels=True, ids=True)
    encoder, module = MomentumEncoder(torch.nn.Linear(2, 2)), torch.nn.Linear(2, 2)
    index = torch.zeros(4, 2, dtype=torch.int64)
    yield ops.pair_stats, {"x": z, "y": y, "channels": (lse,)}
    yield ops.pair_topk, {"x": z, "y": y, "k": 2}
    yield ops.gather_scores, {"x": z, "y": y, "index": index}
    yield ops.sort_network, {"x": z}
    yield ops.row_stats, {"scores": z, "channels": (lse,)}
    yield ops.merge, {"channel": lse, "parts": [z[:, 0], z[:, 1]]}
    yield ops.merge_topk, {"parts": [top, top], "offsets": [0, 4]}
    ranked = (metrics.recall_at_k, metrics.mean_reciprocal_rank, metrics.mean_average_precision)
    for function in (*ranked, metrics.mean_similarities, metrics.similarity_histogram):
        yield function, {"queries": z, "corpus": y}
    yield metrics.knn_accuracy, {"queries": z, "labels": labels}
    yield metrics.alignment, {"x": z, "y": y}
    yield metrics.uniformity, {"z": z}
    yield Monitor, {}
    yield Monitor().log, {"step": 0, "x": z, "y": y}
    yield mining.batch_hard, {"z": z, "labels": labels}
    yield mining.multi_similarity, {"z": z, "labels": labels, "k": 2}
    margins = {"pos_margin": 0.1, "neg_margin": 0.2}
    yield mining.pair_margin, {"z": z, "labels": labels, "k": 2, **margins}
    yield mining.triplet_margin, {"z": z, "labels": labels, "k": 2}
    corpus = {"corpus": torch.randn(9, 3), "positives": torch.arange(4), "k": 2}
    yield mining.hard_negatives, {"queries": z, **corpus}
    yield mixing.hallucinated_queries, {"query": z, "key": y}
    yield mixing.hard_mixtures, {"z": z, "labels": labels}
    yield mixing.label_mixtures, {"z": z, "y": torch.rand(4)}
    yield mixing.latent_positives, {"key": z, "prototypes": torch.randn(6, 3), "count": 2}
    for function in (sorting.sort, sorting.rank, sorting.soft_rank, sorting.soft_sort):
        yield function, {"x": z}
    yield sorting.rank_mass, {"x": z, "t": torch.ones(3)}
    candidates = {"probabilities": torch.rand(2, 3), "candidates": torch.randn(2, 3, 4)}
    yield decoding.contrastive_search, {**candidates, "context": tokens}
    yield decoding.isotropy, {"h": tokens}
    yield EmbeddingQueue, {"size": 4, "dim": 3}
    yield queue.enqueue, {"keys": z, "labels": labels, "ids": labels}
    yield MomentumEncoder, {"module": module}
    yield encoder.update, {"module": module}
    yield CrossBatchMemory, {"loss": LOSSES["supcon"](), "size": 4, "dim": 3}
    yield LogitScale, {}
    yield MatryoshkaLoss, {"loss": LOSSES["clip"](), "dims": (3, 2)}
    yield GradCache, {"chunk_size": 2}
    for function in (channel.same, channel.differs, channel.precedes, channel.row_weight):
        yield function, {"name": "a"}
    for function in (channel.col_weight, channel.distance, channel.form, channel.at_most):
        yield function, {"name": "a"}
    yield channel.not_above, {"name": "a"}
    yield channel.within, {"name": "a", "width": 2}
    yield channel.Test, {"op": "eq", "name": "a"}
    yield channel.Term, {"kind": "row", "names": ("a",)}
    for kind in (channel.LSE, channel.SUM, channel.EXPECT, channel.MAX):
        yield kind, {}


def calls():
    yield from losses()
    for function, call in functions():
        name = getattr(function, "__qualname__", type(function).__name__)
        target = function if hasattr(function, "__qualname__") else function.forward
        names = [n for n, p in inspect.signature(target).parameters.items() if p.kind < 4]
        yield name, function, call, names


@pytest.mark.parametrize(
    ("function", "call", "names"), [pytest.param(*rest, id=name) for name, *rest in calls()]
)
def test_errors_name_the_argument(function, call, names):
    function(**call)
    message = re.compile(rf"^({'|'.join(names)})\b.*: got .*, expected ", re.DOTALL)
    for name in names:
        for value in values():
            try:
                function(**{**call, name: value})
            except (TypeError, ValueError, IndexError) as error:
                assert len(str(error)) < 250  # noqa: PT017
                assert message.match(str(error)), f"{name}={value!r:.60}: {error}"  # noqa: PT017
            except Exception as error:
                raise AssertionError(f"{name}={value!r:.60}: {error!r:.300}") from error


@pytest.mark.parametrize(
    "name", [n for n, cls in LOSSES.items() if cls.inputs.get("labels") == "N int"]
)
def test_the_order_of_keywords_does_not_matter(name):
    """Labels may be a list also where they are named first."""
    z, labels, *others = LOSSES[name].positional
    if labels != "labels" or others:
        return
    first, given = inputs(name)[:2]
    loss = LOSSES[name]()
    assert torch.equal(loss(**{labels: given.tolist(), z: first}), loss(first, given))
