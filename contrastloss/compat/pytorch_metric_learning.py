"""The losses and miners of pytorch-metric-learning whose scores are cosines or plain products.

Each class inherits from the library's own class of its name: options, reducers, regularisers and
wrappers such as ``CrossBatchMemory`` and ``SelfSupervisedLoss`` are the library's. Where the pairs
are those of labels, scores are not stored: memory is O(N). Everything else, other distances,
``indices_tuple`` and statistics, the library computes; the log says so once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import functional, mining, ops
from ..channel import INDEX, LSE, SUM, Channel, Test, differs, same
from ..losses.base.loss import softplus
from .hand_over import say_once
from .labels import numbered

try:
    from pytorch_metric_learning import distances, losses, miners, reducers
except ImportError as error:
    raise ImportError(
        "contrastloss.compat.pytorch_metric_learning inherits from pytorch-metric-learning's "
        f"classes, which do not import: {error}"
    ) from error

__all__ = [
    "BatchHardMiner",
    "CircleLoss",
    "ContrastiveLoss",
    "MultiSimilarityLoss",
    "MultiSimilarityMiner",
    "NTXentLoss",
    "PairMarginMiner",
    "SupConLoss",
    "TripletMarginLoss",
    "TripletMarginMiner",
]

_LABEL = "label"
_POSITIVE, _NEGATIVE = (same(_LABEL),), (differs(_LABEL),)


def _unlike(distance: Any) -> str | None:
    """Why a distance is none of those computed here; None: it is."""
    known = type(distance) in (distances.CosineSimilarity, distances.DotProductSimilarity)
    if known and distance.power == 1 and (distance.p == 2 or not distance.normalize_embeddings):
        return None
    return f"{type(distance).__name__}(p={distance.p}, power={distance.power})"


@lru_cache(maxsize=256)
def _channel(kind: type[Channel], *fields: Any, pairs: tuple[Test, ...]) -> Channel:
    """A channel of these fields, made once."""
    return kind(*fields, pairs=pairs)


class _Pairs:
    """The pairs of embeddings by their labels, as the library finds them: an embedding is its own
    positive only where references have labels of their own."""

    def __init__(
        self, distance: Any, x: Tensor, labels: Tensor, ref: Tensor, ref_labels: Tensor | None
    ) -> None:
        alike = ref_labels is None or ref_labels is labels
        self.x, self.y = x, None if ref is x and alike else ref
        self.others = (differs(INDEX),) if alike and self.y is not None else ()
        self.positive, self.negative = (*_POSITIVE, *self.others), _NEGATIVE
        rows, cols = numbered(labels, labels if ref_labels is None else ref_labels)
        self.rows, self.cols = {_LABEL: rows}, {_LABEL: cols}
        self.cosine = distance.normalize_embeddings

    @property
    def few(self) -> bool:
        """So few that there may be at most one of each kind, when the library's loss is 0."""
        return self.x.shape[0] * (self.x if self.y is None else self.y).shape[0] <= 4

    def stats(
        self,
        channels: Sequence[Channel],
        rows: Mapping[str, Tensor] | None = None,
        scale: Any = None,
    ) -> list[Any]:
        given: dict[str, Any] = {"rows": {**self.rows, **(rows or {})}, "cols": self.cols}
        return ops.pair_stats(self.x, self.y, channels, scale=scale, cosine=self.cosine, **given)

    def full(self, value: float) -> Tensor:
        dtype = ops.stat_dtype(self.x)
        return torch.full(self.x.shape[:1], value, dtype=dtype, device=self.x.device)


_AVERAGES = (reducers.MeanReducer, reducers.AvgNonZeroReducer)


class _Fused:
    """Computes a loss's dictionary where :meth:`unfit` allows, else the library does."""

    #: the reducers for which a loss of single pairs or triplets is computed; None: any
    reduced: tuple[type, ...] | None = None

    def compute_loss(
        self: Any,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: Any,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        given = embeddings, labels, indices_tuple, ref_emb, ref_labels
        alone = ref_emb is embeddings and (ref_labels is labels or ref_labels is None)
        reason = self.unfit(indices_tuple, alone)
        if reason is not None:
            say_once(f"{type(self).__name__}: {reason} is computed by pytorch-metric-learning")
        elif labels is not None:
            pairs = _Pairs(self.distance, embeddings, labels, ref_emb, ref_labels)
            if not pairs.few:
                return self.fused(pairs)
        return super().compute_loss(*given)  # type: ignore[misc]

    def unfit(self: Any, indices_tuple: Any, alone: bool) -> str | None:
        """Why this call is the library's; None: it is computed here. ``alone``: embeddings are
        compared among themselves."""
        if indices_tuple is not None:
            return "indices_tuple"
        own = [self.reducer_of(name) for name in self._sub_loss_names()]
        if self.reduced is not None:
            for reducer in own:
                if type(reducer) not in self.reduced:
                    return type(reducer).__name__
        if any(module.collect_stats for module in (self, self.distance, *own)):
            return "collect_stats"
        return _unlike(self.distance)

    def reducer_of(self: Any, name: str) -> Any:
        if not isinstance(self.reducer, reducers.MultipleReducers):
            return self.reducer
        made: Mapping[str, Any] = dict(self.reducer.reducers.items())
        return made.get(name, self.reducer.default_reducer)

    def of_rows(self: Any, found: Tensor, some: Tensor | None = None) -> dict[str, Any]:
        """Losses of rows, (N,) or (N, 1). They are 0 unless ``some``; averages of them are then 0,
        too, and other reducers are told."""
        if some is not None:
            if type(self.reducer_of("loss")) not in _AVERAGES and not bool(some):
                return self.zero_losses()
            found = torch.where(some, found, 0.0)
        rows = torch.arange(len(found), device=found.device)
        return {"loss": {"losses": found, "indices": rows, "reduction_type": "element"}}


def _reduced(value: Tensor) -> dict[str, Any]:
    return {"losses": value, "indices": None, "reduction_type": "already_reduced"}


class NTXentLoss(_Fused, losses.NTXentLoss):
    r"""The mean, over all positive pairs, of

    :math:`\ell_{ap} = -\log
    \frac{e^{s_{ap} / \tau}}{e^{s_{ap} / \tau} + \sum_n e^{s_{an} / \tau}}`

    Computed here with ``MeanReducer``, the default.
    """

    reduced = (reducers.MeanReducer,)

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        scale = 1 / self.temperature
        channels = _channel(LSE, pairs=pairs.negative), _channel(SUM, "one", pairs=pairs.positive)
        lse, positives = pairs.stats(channels, scale=scale)
        above = _channel(SUM, "softplus", -1.0, "lse", pairs=pairs.positive)
        (total,) = pairs.stats((above,), {"lse": lse}, scale)
        return {"loss": _reduced(total.sum() / positives.sum().clamp_min(1))}


class SupConLoss(_Fused, losses.SupConLoss):
    r"""For every anchor, the mean over its positives of

    :math:`-\log \frac{e^{s_{ap} / \tau}}{\sum_{j \ne a} e^{s_{aj} / \tau}}`

    With ``AvgNonZeroReducer``, the default, losses of 0 are not counted.
    """

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        own = [_channel(SUM, psi, pairs=pairs.positive) for psi in ("id", "one")]
        other = _channel(SUM, "one", pairs=pairs.negative)
        channels = _channel(LSE, pairs=pairs.others), *own, other
        lse, total, count, negatives = pairs.stats(channels, scale=1 / self.temperature)
        found = torch.where(count > 0, lse - total / count.clamp_min(1), 0.0)
        return self.of_rows(found, (count.sum() > 0) & (negatives.sum() > 0))


class MultiSimilarityLoss(_Fused, losses.MultiSimilarityLoss):
    r"""For every anchor

    :math:`\frac1\alpha \log\Bigl(1 + \sum_p e^{-\alpha (s_{ap} - b)}\Bigr) +
    \frac1\beta \log\Bigl(1 + \sum_n e^{\beta (s_{an} - b)}\Bigr)`
    """

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        alpha, beta, base = self.alpha, self.beta, self.base
        positive = _channel(LSE, -alpha, pairs=pairs.positive)
        near, far = pairs.stats((positive, _channel(LSE, beta, pairs=pairs.negative)))
        terms = softplus(near + alpha * base) / alpha + softplus(far - beta * base) / beta
        return self.of_rows(terms[:, None])


class CircleLoss(_Fused, losses.CircleLoss):
    r"""For every anchor with a positive and a negative, :math:`\log(1 + P N)` with

    :math:`P = \sum_p e^{-\gamma [1 + m - s_{ap}]_+ (s_{ap} - 1 + m)}, \qquad
    N = \sum_n e^{\gamma [s_{an} + m]_+ (s_{an} - m)}`
    """

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        gamma, m = self.gamma, float(self.m)
        positive = _channel(LSE, -gamma, m, pairs=pairs.positive)
        near, far = pairs.stats((positive, _channel(LSE, gamma, m, pairs=pairs.negative)))
        both = near + far
        found = torch.where(both > -torch.inf, self.soft_plus(both), 0.0)
        return self.of_rows(found[:, None])


class ContrastiveLoss(_Fused, losses.ContrastiveLoss):
    """The positives' ``[pos_margin - s]_+`` and the negatives' ``[s - neg_margin]_+``, each reduced
    for itself. Computed here with ``AvgNonZeroReducer``, the default, or ``MeanReducer``."""

    reduced = _AVERAGES

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        channels: list[Channel] = []
        sides = ("pos_loss", -1.0, pairs.positive), ("neg_loss", 1.0, pairs.negative)
        for name, sign, tests in sides:
            mean = type(self.reducer_of(name)) is reducers.MeanReducer
            for psi in ("relu", "one" if mean else "step"):
                channels.append(_channel(SUM, psi, sign, name, pairs=tests))
        margins = {
            "pos_loss": pairs.full(self.pos_margin),
            "neg_loss": pairs.full(self.neg_margin),
        }
        found = pairs.stats(channels, margins)
        totals = [value.sum() for value in found]
        return {
            name: _reduced(total / count.clamp_min(1))
            for name, total, count in zip(margins, totals[::2], totals[1::2], strict=True)
        }


class TripletMarginLoss(_Fused, losses.TripletMarginLoss):
    """``[s_an - s_ap + margin]_+`` of all triplets. Computed here for embeddings among themselves,
    without ``swap``, ``smooth_loss`` and ``triplets_per_anchor``, and with ``AvgNonZeroReducer``,
    the default, or ``MeanReducer``. The library's default distance is Euclidean and its own."""

    reduced = _AVERAGES

    def unfit(self, indices_tuple: Any, alone: bool) -> str | None:
        plain = {"swap": False, "smooth_loss": False, "triplets_per_anchor": "all"}
        for name, value in plain.items():
            if getattr(self, name) != value:
                return f"{name}={getattr(self, name)!r}"
        return super().unfit(indices_tuple, alone) if alone else "ref_emb"

    def fused(self, pairs: _Pairs) -> dict[str, Any]:
        mean = type(self.reducer_of("loss")) is reducers.MeanReducer
        value = functional.triplet(
            pairs.x,
            pairs.rows[_LABEL],
            margin=self.margin,
            normalize=pairs.cosine,
            reduction="sum" if mean else "mean",
        )
        if mean:
            tests = pairs.positive, pairs.negative
            positives, negatives = pairs.stats([_channel(SUM, "one", pairs=t) for t in tests])
            value = value / (positives.double() @ negatives.double()).clamp_min(1)
        return {"loss": _reduced(value)}


# ---- miners --------------------------------------------------------------------------------------


class _Mined:
    """Mines by :mod:`contrastloss.mining` where the scores are cosines or plain products, else the
    library does.

    ``k``: the largest number of negatives, the most similar ones, for every row, or triplets of a
    positive; None for all of them.
    """

    def __init__(self, *args: Any, k: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.k = k

    def mine(
        self: Any, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
    ) -> tuple[Tensor, ...]:
        alone = ref_emb is embeddings and ref_labels is labels
        reason = "collect_stats" if self.collect_stats else _unlike(self.distance)
        if ref_labels is labels and not alone:
            reason = "ref_emb with the labels of the batch"
        if reason is not None:
            say_once(f"{type(self).__name__}: {reason} is mined by pytorch-metric-learning")
            return super().mine(embeddings, labels, ref_emb, ref_labels)  # type: ignore[misc]
        rows, cols = numbered(labels, ref_labels)
        options = {} if alone else {"ref": ref_emb, "ref_labels": cols}
        options["normalize"] = self.distance.normalize_embeddings
        k = max(len(ref_emb), 1) if self.k is None else self.k
        return self.mined(embeddings, rows, k, **options).tuples()


class BatchHardMiner(_Mined, miners.BatchHardMiner):
    """The least similar positive and the most similar negative of every row, in O(N) memory."""

    def mined(self, z: Tensor, labels: Tensor, k: int, **options: Any) -> mining.Triplets:
        return mining.batch_hard(z, labels, **options)


class MultiSimilarityMiner(_Mined, miners.MultiSimilarityMiner):
    """See :func:`contrastloss.mining.multi_similarity`; with all negatives that it finds."""

    def mined(self, z: Tensor, labels: Tensor, k: int, **options: Any) -> mining.Pairs:
        return mining.multi_similarity(z, labels, k, epsilon=self.epsilon, **options)


class PairMarginMiner(_Mined, miners.PairMarginMiner):
    """See :func:`contrastloss.mining.pair_margin`; with all negatives that it finds."""

    def mined(self, z: Tensor, labels: Tensor, k: int, **options: Any) -> mining.Pairs:
        margins = {"pos_margin": self.pos_margin, "neg_margin": self.neg_margin}
        return mining.pair_margin(z, labels, k, **margins, **options)


class TripletMarginMiner(_Mined, miners.TripletMarginMiner):
    """See :func:`contrastloss.mining.triplet_margin`; with all negatives that it finds."""

    def mined(self, z: Tensor, labels: Tensor, k: int, **options: Any) -> mining.Triplets:
        kind = self.type_of_triplets
        return mining.triplet_margin(z, labels, k, margin=self.margin, kind=kind, **options)
