"""The pair scores of a loss: temperature, normalisation and bias, in front of the operators."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...channel import COL, ROW, SUM, Axis, Channel, Test, differs
from ...distributed import softmax, total
from ...ops.check import scalar
from .blocks import BATCH, ID, Block, Ids, nothing
from .merging import merged
from .spread import Spread

__all__ = [
    "Scores",
    "at_least_one",
    "correction",
    "cosine",
    "lacking",
    "log_count",
    "wide",
]


#: how many columns, or rows, of other ids there are
_APART = {axis: SUM("one", pairs=(differs(ID),), axis=axis) for axis in (ROW, COL)}


class Scores:
    r""":math:`s_{ij} = \text{scale}\; \langle \hat x_i, \hat y_j \rangle / \tau_i + \text{bias}`
    of rows x and the columns of several blocks; rows and columns may have biases of their own.

    Of low-precision embeddings only the products are taken in the narrow dtype: norms, scores and
    the sums that gradients are stay fp32. Statistics take embeddings as they come, so that no copy
    of them is made; whatever else is computed takes them widened, and sums gradients in fp32.

    Args:
        x: rows.
        y: the batch's columns; None for x itself.
        blocks: which columns the rows meet; None: the batch's alone.
        spread: where the batch is spread over ranks: over which and how; None for this process.
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
        blocks: Sequence[Block] | None = None,
        spread: Spread | None = None,
    ) -> None:
        self.x, self.y, self.spread = x, y, spread
        self.blocks = (BATCH,) if blocks is None else tuple(blocks)
        self.stat_dtype = ops.stat_dtype(x)
        self.compute_dtype = self.stat_dtype if wide_products else _compute_dtype(x)
        self.scale, self.row_scale, self.bias = scale, row_scale, bias
        self.normalize, self.backend = normalize, backend
        #: multiplies the scores of each of the batch's columns, (N,)
        self.col_scale: Tensor | None = None
        #: added to the scores of each row, and of each of the batch's columns, (N,)
        self.row_bias: Tensor | None = None
        self.col_bias: Tensor | None = None
        #: multiplies the loss of each row
        self.row_weight: Tensor | None = None
        #: which rows take part in a loss of labels; None: all
        self.taken: Tensor | None = None
        #: ids of the batch; pairs of rows and columns of equal ones are left out; None: no ids
        self.apart: Tensor | None = None

    @property
    def count(self) -> int:
        """The number of rows, of all ranks."""
        return self.x.shape[-2] if self.spread is None else sum(self.spread.layout.rows)

    @property
    def taking_part(self) -> int | Tensor:
        """The number of rows, of all ranks, that take part."""
        return self.count if self.taken is None else self.total(self.taken.sum())

    @property
    def batch_columns(self) -> int:
        """The number of the batch's columns, of all ranks."""
        columns = self.x if self.y is None else self.y
        return columns.shape[-2] if self.spread is None else sum(self.spread.layout.cols)

    def but(self, **changed: Any) -> Scores:
        """The same scores but for some attributes."""
        other = copy(self)
        for name, value in changed.items():
            setattr(other, name, value)
        return other

    def between(self, x: Tensor, y: Tensor | None) -> Scores:
        """The same scores of other rows and columns of the batch, as many on each rank."""
        return self.but(x=x, y=y, blocks=(BATCH,), row_bias=None, col_bias=None)

    def part(self, rows: slice) -> Scores:
        """The scores of some rows, without the columns of a batch."""
        own = {name: getattr(self, name) for name in ("row_scale", "row_bias")}
        own = {name: None if value is None else value[rows] for name, value in own.items()}
        return self.but(x=self.x[rows], y=None, blocks=(), **own)

    def observed(self) -> Scores:
        """The scores with the columns that the loss has not made itself, whatever a guide says."""
        blocks = [block for block in self.blocks if not block.SYNTHETIC]
        kept = tuple([block.unguided or block for block in blocks])
        return self if kept == self.blocks else self.but(blocks=kept)

    def plain(self) -> Scores:
        """Cosines or products, without temperature and bias."""
        return self.but(scale=1.0, row_scale=None, bias=None, row_bias=None, col_bias=None)

    def transposed(self) -> Scores:
        """The scores of the batch's columns with its rows."""
        assert self.y is not None
        return self.but(x=self.y, y=self.x, row_bias=self.col_bias, col_bias=self.row_bias)

    @property
    def inverse_temperature(self) -> Tensor | float:
        """0-dim, or one per row."""
        return self.scale if self.row_scale is None else self.row_scale

    def factor(self, like: Tensor) -> Tensor:
        """The scale as a tensor, with the device and dtype of ``like``."""
        scale = self.scale
        return scale.to(like) if isinstance(scale, Tensor) else scalar("scale", scale, like)

    @property
    def starts(self) -> list[int]:
        """The number of each block's first column, counted over all blocks."""
        return [0, *accumulate(block.size(self) for block in self.blocks)][:-1]

    def stats(
        self, channels: Sequence[Channel], rows: Ids | None = None, cols: Ids | None = None
    ) -> list[Any]:
        """The values of the channels over all blocks; column channels take those of the batch.

        Args:
            channels: what to return; see :mod:`contrastloss.channel`.
            rows: what channels call of the rows, by name.
            cols: what they call of the batch's columns; None with ``y=None``: the same.
        """
        if self.blocks == (BATCH,):
            return self.batch_stats(channels, rows, cols)
        parts = [block.stats(self, channels, rows or {}, cols) for block in self.blocks]
        likes = {ROW: self.x, COL: self.x if self.y is None else self.y}
        vectors = {axis: z[..., 0].detach().to(self.stat_dtype) for axis, z in likes.items()}
        return merged(channels, parts, self.starts, vectors)

    def negatives(self, in_batch: int, axis: Axis = ROW) -> int | Tensor:
        """The number of negatives of each row, or column: so many of the batch, and all of the
        other blocks' columns that it meets."""
        found: list[Any] = []
        for block in self.blocks:
            if block is not BATCH:
                found.append(block.count(self, axis))
            elif self.apart is None:
                found.append(in_batch)
            else:
                ids = {ID: self.apart}
                found += self.batch_stats((_APART[axis],), ids, None if self.y is None else ids)
        return sum(found)

    def batch_stats(
        self, channels: Sequence[Channel], rows: Ids | None = None, cols: Ids | None = None
    ) -> list[Any]:
        """:func:`contrastloss.ops.pair_stats` of the batch, or of that of all ranks together."""
        x, y, options = self._batch(rows, cols)
        stats = ops.pair_stats if self.spread is None else self.spread.stats
        return stats(x, y, channels, **options)

    def _batch(
        self, rows: Ids | None, cols: Ids | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
        """The batch's rows and columns, and what an operator gets besides them."""
        options = {**self._options(), **self._of_columns(), "rows": rows, "cols": cols}
        same = self.y is None or self.y.dtype == self.x.dtype  # not under autocast
        return *((self.x, self.y) if same else self._wide()), options

    def loss(
        self,
        parts: Sequence[ops.Part],
        channels: Sequence[Channel],
        rows: Ids | None = None,
        cols: Ids | None = None,
        *,
        reduction: Any = "mean",
    ) -> tuple[Tensor, list[Any]]:
        """:func:`contrastloss.ops.pair_loss` of the batch in this process, with the rows'
        weights."""
        x, y, options = self._batch(rows, cols)
        options |= {"reduction": reduction, "row_weight": self.row_weight}
        return ops.pair_loss(x, y, channels, parts, **options)

    def against(
        self,
        columns: Tensor,
        channels: Sequence[Channel],
        rows: Ids,
        cols: Ids,
        log_weight: Tensor | None = None,
        *,
        widened: bool = False,
        everywhere: bool = False,
    ) -> list[Any]:
        """Statistics of the rows against these columns.

        Args:
            log_weight: added to the scores of a column.
            widened: in fp32, so that gradients of several passes are added up in it.
            everywhere: with those of all ranks; else they are the same on every rank.
        """
        called = frozenset().union(*[c.called[ROW] | c.called[COL] for c in channels])
        options = {**self._options(), "col_bias": log_weight}
        options["rows"] = {name: v for name, v in rows.items() if name in called}
        options["cols"] = {name: v for name, v in cols.items() if name in called}
        x = self.x
        if widened or columns.dtype != x.dtype:
            x, columns = wide(x), wide(columns)
        if everywhere and self.spread is not None:
            return self.spread.stats(x, columns, channels, own_sizes=True, **options)
        return ops.pair_stats(x, columns, channels, **options)

    def ids(self, name: str, rows: Ids) -> Tensor:
        """What the columns of this process have under a name, if they have; those of the batch have
        the rows'. Unfilled slots are left out, which synchronises a GPU."""
        having = [block for block in self.blocks if block is BATCH or name in block.ids]
        found = [rows[name] if block is BATCH else block.filled(name) for block in having]
        return found[0] if len(found) == 1 else torch.cat(found)

    def topk(
        self,
        k: int,
        *,
        pairs: Sequence[Test] = (),
        rows: Ids | None = None,
        cols: Ids | None = None,
        **how: Any,
    ) -> ops.TopK:
        """The k best columns of every row, of all blocks, in this process; their indices count
        over the blocks in their order."""
        found = [block.topk(self, k, pairs, rows or {}, cols, **how) for block in self.blocks]
        if not found:
            return nothing(self.x[..., 0], k, self.stat_dtype)
        if len(found) == 1:
            return found[0]
        return ops.merge_topk(found, self.starts, k=k, largest=how.get("largest", True))

    def topk_against(self, columns: Tensor | None, k: int, **candidates: Any) -> ops.TopK:
        """:func:`contrastloss.ops.pair_topk` of the rows and these columns."""
        columns = None if columns is None else wide(columns)
        return ops.pair_topk(wide(self.x), columns, k, **{**self._options(), **candidates})

    def gather(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        """:func:`contrastloss.ops.gather_scores` of the batch's columns, or of these, in this
        process."""
        of_columns = self._of_columns() if columns is None else {}
        columns = self.y if columns is None else columns
        columns = None if columns is None else wide(columns)
        return ops.gather_scores(wide(self.x), columns, index, **self._options(), **of_columns)

    def of_pairs(self, columns: Tensor, rows: Tensor) -> Tensor:
        """The scores of columns (M, D) with some rows each, whose numbers are ``rows``, (M, K)."""
        options = {**self._options(), "row_bias": self.bias, "col_bias": self.row_bias}
        options["col_scale"] = options.pop("row_scale")
        return ops.gather_scores(wide(columns), wide(self.x), rows, **options)

    def listed(self, rows: Tensor, cols: Tensor) -> Tensor:
        """The scores (P,) of pairs of a row and one of the batch's columns, in this process."""
        same = self.y is not None and self.y.dtype == self.x.dtype
        x, y = (self.x, self.y) if same else self._wide()
        assert y is not None
        how = self.normalize, self.compute_dtype, self.backend
        (score,) = ops.listed_products(x, y, rows, cols, *how)
        score = score * self.scale
        if self.row_scale is not None:
            score = score * self.row_scale[rows]
        if self.offset is not None:
            score = score + (self.offset[rows] if self.offset.ndim else self.offset)
        return score if self.col_bias is None else score + self.col_bias[cols]

    def _wide(self) -> tuple[Tensor, Tensor | None]:
        return wide(self.x), None if self.y is None else wide(self.y)

    def _options(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "row_scale": self.row_scale,
            "row_bias": self.offset,
            "cosine": self.normalize,
            "compute_dtype": self.compute_dtype,
            "backend": self.backend,
        }

    def _of_columns(self) -> dict[str, Any]:
        return {"col_scale": self.col_scale, "col_bias": self.col_bias}

    @property
    def offset(self) -> Tensor | None:
        """What is added to the scores of each row: one number, or one per row."""
        if self.bias is None or self.row_bias is None:
            return self.row_bias if self.bias is None else self.bias
        return self.bias + self.row_bias

    def weighted(self, losses: Tensor) -> Tensor:
        """The losses of rows, times their weights."""
        return losses if self.row_weight is None else self.row_weight.to(losses.dtype) * losses

    def distinct(self, numbers: Tensor) -> Tensor:
        """Numbers that stand for this rank's rows, made different from those of other ranks."""
        return numbers if self.spread is None else self.spread.peers.distinct(numbers)

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks, where rows are spread over them, of a number without gradient."""
        return value if self.spread is None else total(value.detach(), self.spread.peers)

    def softmax(self, values: Tensor) -> Tensor:
        """Over the last dimension and, where rows are spread over ranks, over these."""
        return values.softmax(-1) if self.spread is None else softmax(values, self.spread.peers)

    def aligned(self) -> Tensor:
        """``s_ii``, (N,), for positives that are not among the columns."""
        index = torch.arange(self.x.shape[-2], device=self.x.device).expand(self.x.shape[:-1])
        return self.gather(index.unsqueeze(-1)).squeeze(-1)

    def slack(self) -> Tensor | float:
        """How far apart kernels may find aligned scores and others that are their ties: they add
        the same products up in another order."""
        scale = self.inverse_temperature
        size = scale.detach().abs() if isinstance(scale, Tensor) else abs(scale)
        slack: Tensor | float = ops.rounding(self.x) * size
        if not self.normalize:
            x, y = self._wide()
            norms = x.detach().norm(dim=-1), (x if y is None else y).detach().norm(dim=-1)
            slack = slack * norms[0] * norms[1]
        return slack

    def surpassing(self, aligned: Tensor) -> Tensor:
        """What a score has to fall short of to be less than an aligned one, and no tie with it."""
        return aligned.detach() - self.slack()

    def cosines(self, scores: Tensor) -> Tensor:
        """Scores of rows without temperature and bias."""
        return (scores if self.bias is None else scores - self.bias) / self.inverse_temperature


def at_least_one(count: int | Tensor) -> Any:
    """A count to divide by."""
    return count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)


def log_count(count: int | Tensor, like: Tensor) -> Tensor:
    """The logarithm of a count of at least 1, in the dtype of ``like``."""
    if not isinstance(count, Tensor):
        count = torch.full((), count, dtype=ops.widest(like), device=like.device)
    return count.to(ops.widest(like)).clamp_min(1).log().to(like.dtype)


def correction(log_q: Tensor | None, like: Tensor) -> Tensor | None:
    """The bias of the scores of columns that are in a batch with probability q."""
    return None if log_q is None else -log_q.to(ops.stat_dtype(like))


def _compute_dtype(x: Tensor) -> torch.dtype:
    return (ops.autocast_dtype(x.device) if x.dtype != torch.float64 else None) or x.dtype


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
