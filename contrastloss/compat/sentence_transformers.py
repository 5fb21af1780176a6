"""The in-batch losses of sentence-transformers, for cosines and dot products.

Each class inherits from the library's own class of its name: constructors, embedding, gradient
caching, configuration and citations are the library's, and its ``MatryoshkaLoss`` goes around them.
Scores are not stored: memory is O(N), and a cached loss needs no mini-batches of scores. Other
similarities and distances the library computes; the log says so once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .. import functional, ops
from ..channel import COL, LSE, MAX, SUM, Channel, differs, same
from ..losses.base.label_loss import largest_class
from .hand_over import say_once
from .labels import numbered
from .ranks import share_of_gradient

try:
    from sentence_transformers import SentenceTransformer, util
    from sentence_transformers.base.losses.merged_forward import embed_columns
    from sentence_transformers.sentence_transformer import losses
except ImportError as error:
    raise ImportError(
        "contrastloss.compat.sentence_transformers inherits from the classes of "
        f"sentence-transformers 6 or later, which do not import: {error}"
    ) from error

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "CachedGISTEmbedLoss",
    "CachedMultipleNegativesRankingLoss",
    "GISTEmbedLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
]

LIBRARY = "sentence-transformers"


def _handed_over(loss: Any, reason: str) -> None:
    say_once(f"{type(loss).__name__}: {reason} is computed by {LIBRARY}")


# ---- ranking -------------------------------------------------------------------------------------

#: whether similarities are cosines, for those that are computed here
_COSINE = {util.cos_sim: True, util.pytorch_cos_sim: True, util.dot_score: False}
#: ids: the query that a document belongs to, and a document's place among all
_OWN, _PLACE = (same("own"),), (same("place"),)
_OTHERS = (differs("own"),)
_POSITIVE, _ALL, _BY_COLUMN = SUM("id", pairs=_PLACE), LSE(), LSE(axis=COL)
_OF_OTHERS = LSE(pairs=_OTHERS)


@lru_cache(maxsize=64)
def _of_documents(mode: str | None, theta: float) -> tuple[list[Channel], list[Channel]]:
    """The log-sum-exps of documents whose scores have no penalty, and of those with one: without
    the positive where a mode of hardness has no channel for it."""
    if mode is None:
        return [_ALL], []
    if mode == "in_batch_negatives":
        return [LSE(pairs=_OWN)], [LSE(theta, pairs=_OTHERS)]
    if mode == "hard_negatives":
        return [_OF_OTHERS], [LSE(theta, pairs=(*_OWN, differs("place")))]
    return [], [LSE(theta, pairs=(differs("place"),))]


class _Batch:
    """The queries and documents of a loss, and those of all ranks."""

    def __init__(self, loss: Any, embeddings: Sequence[Tensor]) -> None:
        queries, *docs = embeddings
        self.n, offset = len(queries), 0
        self.every_query = queries
        if loss.gather_across_devices:
            self.every_query = util.all_gather_with_grad(queries)
            docs = [util.all_gather_with_grad(part) for part in docs]
            offset = util.get_rank() * self.n
        self.alone = len(self.every_query) == self.n
        own = slice(offset, offset + self.n)
        self.queries, self.positives = self.every_query[own], docs[0][own]
        self.docs = docs[0] if len(docs) == 1 else torch.cat(docs)
        self.columns = len(docs)
        places = torch.arange(len(self.docs), device=queries.device)
        self.ids = {"own": places % len(self.every_query), "place": places}
        self.own = {name: values[own] for name, values in self.ids.items()}
        self.options = {"scale": loss.scale, "cosine": _COSINE[loss.similarity_fct]}

    def stats(self, rows: Tensor, columns: Tensor | None, *channels: Channel) -> list[Any]:
        """Statistics of this rank's rows with columns, which are documents or queries."""
        used = frozenset().union(*[channel.ids for channel in channels])
        own = {name: self.own[name] for name in used}
        cols = {name: self.ids[name][: len(rows if columns is None else columns)] for name in used}
        return ops.pair_stats(rows, columns, channels, rows=own, cols=cols, **self.options)


def _ranking_losses(loss: Any, embeddings: Sequence[Tensor]) -> Tensor:
    """The loss of every query of this rank, (N,)."""
    batch = _Batch(loss, embeddings)
    hard = loss.hardness_mode if loss.hardness_strength > 0 else None
    theta = 1 + loss.hardness_strength / loss.scale if hard else 1.0
    plain, weighted = _of_documents(hard, theta)
    # one pass for both directions, where the columns are this rank's positives alone
    both = "doc_to_query" in loss.directions and batch.alone and batch.columns == 1
    across = [_BY_COLUMN] if both else []
    positive, *found = batch.stats(batch.queries, batch.docs, _POSITIVE, *plain, *weighted, *across)
    by_query = [found.pop()] if both else []
    # a penalty is a constant: the gradient is that of the scores without it
    parts = found[: len(plain)]
    parts += [share_of_gradient(value, 1 / theta) for value in found[len(plain) :]]
    if hard in ("hard_negatives", "all_negatives"):
        parts.append(positive)
    directions = [_log_sum(parts)]
    if "query_to_query" in loss.directions:
        columns, channel = (None, _ALL) if batch.alone else (batch.every_query, _OF_OTHERS)
        directions += batch.stats(batch.queries, columns, channel)
    if "doc_to_query" in loss.directions:
        directions += by_query or batch.stats(batch.positives, batch.every_query, _ALL)
    if "doc_to_doc" in loss.directions:
        directions += batch.stats(batch.positives, batch.docs, _OF_OTHERS)
    if loss.partition_mode == "joint":
        return _log_sum(directions) - positive
    return torch.stack(directions).mean(0) - positive


def _log_sum(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).logsumexp(0)


def _ranked_here(loss: Any, embeddings: Sequence[Tensor]) -> bool:
    """Whether the loss's scores are computed here."""
    function = loss.similarity_fct
    if any(values.is_sparse for values in embeddings):
        _handed_over(loss, "a sparse embedding")
        return False
    if not any(function is known for known in _COSINE):
        _handed_over(loss, f"similarity_fct={util.similarity_fct_name(function)}")
        return False
    return True


class MultipleNegativesRankingLoss(losses.MultipleNegativesRankingLoss):
    r"""For every query, :math:`\log Z - s(q, d^+)`: Z has the documents of all queries and, by
    ``directions``, the other queries, the queries of its document, and the other documents; scores
    are ``scale`` times ``cos_sim``, the default, or ``dot_score``. All options are computed here.
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        if len(embeddings) < 2 or not _ranked_here(self, embeddings):
            found: Tensor = super().compute_loss_from_embeddings(embeddings, labels)
            return found
        return _ranking_losses(self, embeddings).mean()


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """The ranking loss of queries among documents and of documents among queries, each with its own
    softmax: their mean."""

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = util.cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model=model,
            scale=scale,
            similarity_fct=similarity_fct,
            gather_across_devices=gather_across_devices,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
        )


class CachedMultipleNegativesRankingLoss(losses.CachedMultipleNegativesRankingLoss):
    """:class:`MultipleNegativesRankingLoss` with gradient caching: ``mini_batch_size`` bounds the
    embeddings that a model computes at once, and scores are never stored."""

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        embeddings = [torch.cat(column) for column in reps]
        if not _ranked_here(self, embeddings):
            found: Tensor = super().calculate_loss(reps, labels, with_backward=with_backward)
            return found
        return _cached(_ranking_losses(self, embeddings).mean(), with_backward)


def _cached(loss: Tensor, with_backward: bool) -> Tensor:
    if with_backward:
        loss.backward()
        loss = loss.detach()
    return loss


# ---- guided --------------------------------------------------------------------------------------


def _guided_loss(loss: Any, embeddings: Sequence[Tensor], guide: Sequence[Tensor]) -> Tensor:
    anchors, positives, *negatives = embeddings
    anchors_guide, positives_guide, *negatives_guide = guide
    further = [torch.cat(negatives_guide)] if negatives else []
    return functional.gist(
        anchors,
        positives,
        torch.cat(negatives) if negatives else None,
        guide=(anchors_guide, positives_guide, *further),
        temperature=loss.temperature,
        margin=loss.margin,
        margin_strategy=loss.margin_strategy,
        contrast_anchors=loss.contrast_anchors,
        contrast_positives=loss.contrast_positives,
    )


def _guided_here(loss: Any) -> bool:
    reason = None
    if loss.gather_across_devices and torch.distributed.is_initialized():
        reason = "gather_across_devices=True"
    elif loss.margin < 0:  # a row may then be its own negative
        reason = "a negative margin"
    if reason:
        _handed_over(loss, reason)
    return reason is None


class GISTEmbedLoss(losses.GISTEmbedLoss):
    """InfoNCE of anchors, positives and negatives, without the negatives that a guide model scores
    above the positive. Computed here in one process, for margins of at least 0."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        features = list(sentence_features)
        if len(features) not in (2, 3) or not _guided_here(self):
            found: Tensor = super().forward(features, labels)
            return found
        copies = [dict(column) for column in features]  # embedding adds to them
        embeddings = embed_columns(self.model, features)
        with torch.no_grad():
            if self.must_retokenize:
                copies = [self._retokenized(column) for column in features]
            guide = embed_columns(self.guide, copies)
        return _guided_loss(self, embeddings, guide)

    def _retokenized(self, column: dict[str, Tensor]) -> dict[str, Tensor]:
        """The column's texts, as the guide's tokens."""
        tokens: Any = column["input_ids"]
        if "cu_seq_lens_q" in column:  # one row of all texts
            flat = tokens[0].tolist()
            tokens = [flat[a:b] for a, b in pairwise(column["cu_seq_lens_q"].tolist())]
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        found: dict[str, Tensor] = util.batch_to_device(
            self.guide.preprocess(texts), self.guide.device
        )
        return found


class CachedGISTEmbedLoss(losses.CachedGISTEmbedLoss):
    """:class:`GISTEmbedLoss` with gradient caching."""

    def calculate_loss(
        self,
        reps: list[list[Tensor]],
        reps_guided: list[list[Tensor]],
        *,
        with_backward: bool = False,
    ) -> Tensor:
        if len(reps) < 2 or len(reps) != len(reps_guided) or not _guided_here(self):
            found: Tensor = super().calculate_loss(reps, reps_guided, with_backward=with_backward)
            return found
        embeddings, guide = ([torch.cat(column) for column in side] for side in (reps, reps_guided))
        return _cached(_guided_loss(self, embeddings, guide), with_backward)


# ---- triplets ------------------------------------------------------------------------------------

_DISTANCES = losses.BatchHardTripletLossDistanceFunction
_COS, _EUCLIDEAN = _DISTANCES.cosine_distance, _DISTANCES.euclidean_distance
_LABEL = "label"
_ALIKE, _UNLIKE = (same(_LABEL),), (differs(_LABEL),)
_FARTHEST_NEGATIVE = (MAX(-1.0, pairs=_UNLIKE),)
_EXTREMES = MAX(-1.0, pairs=_ALIKE), MAX(pairs=_UNLIKE), MAX(-1.0)


def _measured_here(loss: Any, labels: Tensor, embeddings: Tensor, *known: Any) -> bool:
    """Whether the loss's distance is one of those that are ``known``; labels that do not fit are
    the library's to refuse."""
    if labels.numel() != len(embeddings):
        return False
    if loss.distance_metric in known:
        return True
    name = getattr(loss.distance_metric, "__name__", str(loss.distance_metric))
    _handed_over(loss, f"distance_metric={name}")
    return False


def _numbers(labels: Tensor) -> Tensor:
    return numbered(labels.view(-1))[0]


class BatchAllTripletLoss(losses.BatchAllTripletLoss):
    """The mean of ``d_ap - d_an + margin`` over the triplets where it is positive; computed here
    for ``cosine_distance``."""

    def batch_all_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        if not _measured_here(self, labels, embeddings, _COS):
            found: Tensor = super().batch_all_triplet_loss(labels, embeddings)
            return found
        return functional.triplet(embeddings, _numbers(labels), margin=self.triplet_margin)


class BatchHardTripletLoss(losses.BatchHardTripletLoss):
    """The mean, over all rows, of ``[d_ap - d_an + margin]_+`` with the farthest positive, 0
    without one, and the nearest negative, the farthest row without one. Computed here for
    ``euclidean_distance``, the default, and ``cosine_distance``."""

    def batch_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        if not _measured_here(self, labels, embeddings, _COS, _EUCLIDEAN):
            found: Tensor = super().batch_hard_triplet_loss(labels, embeddings)
            return found
        z, ids = embeddings, {_LABEL: _numbers(labels)}
        cosine = self.distance_metric is _COS
        if not cosine:
            z = z.to(ops.stat_dtype(z))
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            # <x_i, x_j> - |x_j|^2 / 2 falls with the distance
            bias = None if cosine else z.square().sum(1) / -2
            extremes = ops.pair_stats(
                z, None, _EXTREMES, col_bias=bias, cosine=cosine, rows=ids, cols=ids
            )
            places = [found.index for found in extremes]
        positive, negative, farthest = (_distances(z, index, cosine) for index in places)
        nearest = torch.where(places[1] < 0, farthest, negative)
        return (positive - nearest + self.triplet_margin).relu().mean()


def _distances(z: Tensor, index: Tensor, cosine: bool) -> Tensor:
    """The distances of rows and those in their places of ``index``, 0 where it is negative."""
    some, other = index >= 0, z[index.clamp_min(0)]
    if cosine:
        return torch.where(some, 1 - ops.unit(z).mul(ops.unit(other)).sum(1), 0.0)
    square = (z.square().sum(1) - 2 * (z * other).sum(1) + other.square().sum(1)).relu()
    apart = some & (square > 0)
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


class BatchSemiHardTripletLoss(losses.BatchSemiHardTripletLoss):
    """The mean, over all positive pairs, of ``[d_ap - d_an + margin]_+`` with the nearest negative
    that is farther than the positive or, without one, the farthest negative. Computed here for
    ``cosine_distance``, in one pass for each positive of a row."""

    def batch_semi_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        if not _measured_here(self, labels, embeddings, _COS):
            found: Tensor = super().batch_semi_hard_triplet_loss(labels, embeddings)
            return found
        ids = _numbers(labels)
        options: dict[str, Any] = {"rows": {_LABEL: ids}, "cols": {_LABEL: ids}, "cosine": True}
        k = max(largest_class(ids) - 1, 1)
        near = ops.pair_topk(embeddings, None, k, largest=False, pairs=_ALIKE, **options)
        (far,) = ops.pair_stats(embeddings, None, _FARTHEST_NEGATIVE, **options)
        some = near.indices >= 0
        # without any negative, a row itself stands for it
        last = torch.where(far.index < 0, 1.0, -far.value)
        total = embeddings.new_zeros((), dtype=near.values.dtype)
        for rank in range(k):
            own, there = near.values[:, rank], some[:, rank]
            below = torch.nextafter(own.detach(), own.new_full((), -torch.inf))
            next_one = ops.pair_topk(embeddings, None, 1, pairs=_UNLIKE, upper=below, **options)
            outside = torch.where(next_one.indices[:, 0] < 0, last, next_one.values[:, 0])
            total = total + torch.where(there, outside - own + self.margin, 0.0).relu().sum()
        return total / some.sum().clamp_min(1)
