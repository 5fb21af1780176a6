"""The pair scores of a loss: temperature, normalisation and bias, in front of the operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...channel import Channel
from ...distributed import Peers, Strategy, pair_stats, softmax

__all__ = ["Scores", "cosine", "lacking", "wide"]


class Scores:
    r""":math:`s_{ij} = \text{scale}\; \langle \hat x_i, \hat y_j \rangle / \tau_i + \text{bias}`.

    Of low-precision embeddings only the products are taken in the narrow dtype: norms, scores and
    the sums that gradients are stay fp32. Statistics take embeddings as they come, so that no copy
    of them is made; whatever else is computed takes them widened, and sums gradients in fp32.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        *,
        scale: Tensor | float,
        row_scale: Tensor | None = None,
        bias: Tensor | None = None,
        normalize: bool = True,
        backend: str | None = None,
        wide_products: bool = False,
        peers: Peers | None = None,
        strategy: Strategy = "auto",
        equal_sizes: bool = False,
    ) -> None:
        self.peers, self.strategy, self.equal_sizes = peers, strategy, equal_sizes
        self.x, self.y = x, y
        #: rows of all ranks, known once their statistics are
        self.count = x.shape[-2]
        self.compute_dtype = ops.stat_dtype(x) if wide_products else _compute_dtype(x)
        self.scale, self.row_scale, self.bias = scale, row_scale, bias
        self.normalize, self.backend = normalize, backend
        #: 0-dim, or one per row
        self.inverse_temperature = scale if row_scale is None else row_scale

    def stats(
        self,
        channels: Sequence[Channel],
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
        *,
        columns: Tensor | None = None,
    ) -> list[Any]:
        """:func:`contrastloss.ops.pair_stats` of these scores, or those of all ranks together; with
        ``columns``, of the rows against these, which are the same on every rank."""
        options: dict[str, Any] = {**self._options(), "rows": rows, "cols": cols}
        if columns is not None:
            return ops.pair_stats(wide(self.x), wide(columns), channels, **options)
        if self.peers is None:
            same = self.y is None or self.y.dtype == self.x.dtype  # not under autocast
            x, y = (self.x, self.y) if same else self._wide()
            return ops.pair_stats(x, y, channels, **options)
        options |= {"group": self.peers, "strategy": self.strategy}
        options["equal_sizes"] = self.equal_sizes
        results, layout = pair_stats(self.x, self.y, channels, **options)
        self.count = sum(layout.rows)
        return results

    def topk(self, k: int, **candidates: Any) -> ops.TopK:
        """:func:`contrastloss.ops.pair_topk` of these scores, in this process."""
        x, y = self._wide()
        return ops.pair_topk(x, y, k, **candidates, **self._options())

    def gather(self, index: Tensor) -> Tensor:
        """:func:`contrastloss.ops.gather_scores` of these scores, in this process."""
        x, y = self._wide()
        return ops.gather_scores(x, y, index, **self._options())

    def _wide(self) -> tuple[Tensor, Tensor | None]:
        return wide(self.x), None if self.y is None else wide(self.y)

    def _options(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "row_scale": self.row_scale,
            "row_bias": self.bias,
            "cosine": self.normalize,
            "compute_dtype": self.compute_dtype,
            "backend": self.backend,
        }

    def distinct(self, numbers: Tensor) -> Tensor:
        """Numbers that stand for this rank's rows, made different from those of other ranks."""
        return numbers if self.peers is None else self.peers.distinct(numbers)

    def softmax(self, values: Tensor) -> Tensor:
        """Over the last dimension and, where rows are spread over ranks, over these."""
        return values.softmax(-1) if self.peers is None else softmax(values, self.peers)

    def aligned(self) -> Tensor:
        """``s_ii``, (N,), for positives that are not among the columns."""
        x, y = self._wide()
        columns = x if y is None else y
        if self.normalize:  # first: products have half the range of their dtype
            x, columns = ops.unit(x), ops.unit(columns)
        score = (x * columns).sum(-1) * self.scale
        if self.row_scale is not None:
            score = score * self.row_scale
        return score if self.bias is None else score + self.bias

    def surpassing(self, aligned: Tensor) -> Tensor:
        """What a score has to fall short of to be less than an aligned one, and no tie with it: the
        pass adds the same products up in another order."""
        scale = self.inverse_temperature
        size = scale.detach().abs() if isinstance(scale, Tensor) else abs(scale)
        slack: Tensor | float = ops.rounding(self.x) * size
        if not self.normalize:
            x, y = self._wide()
            slack = slack * x.norm(dim=-1) * (x if y is None else y).norm(dim=-1)
        return aligned.detach() - slack

    def cosines(self, scores: Tensor) -> Tensor:
        """Scores of rows without temperature and bias."""
        return (scores if self.bias is None else scores - self.bias) / self.inverse_temperature


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def lacking(unit: Tensor) -> Tensor:
    """What the squared lengths of unit vectors lack of 1, but for rounding: 1 of a zero vector. Its
    cosines are 0, and so its squared distance to whatever else is 2, though the difference's is 1.
    """
    rest = 1.0 - unit.square().sum(-1)
    return torch.where(rest > torch.finfo(rest.dtype).eps ** 0.5, rest, 0.0)


def wide(x: Tensor) -> Tensor:
    """Embeddings in the dtype of their statistics."""
    return x.to(ops.stat_dtype(x))


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosines of rows, in the dtype of statistics; that of a zero vector is 0."""
    x, y = wide(x), wide(y)
    return (ops.unit(x) * ops.unit(y)).sum(-1)
