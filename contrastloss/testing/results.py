"""Properties of results: reductions, statistics, and columns that are split into blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..channel import COL, INDEX, MAX, ROW, differs
from ..losses import CrossLoss, RowLoss, TwoViewLoss
from ..ops.one_pass import reduced
from .compare import assert_same
from .subject import Subject, dense

__all__ = [
    "check_reductions",
    "check_sharded",
    "check_statistics",
]


def check_reductions(subject: Subject) -> None:
    """'sum' and 'mean', and their gradients, agree with the rows of 'none'; the mean is over the
    rows that count, or over the terms that they sum. Another value is an error."""
    if not issubclass(subject.cls, RowLoss):
        return
    inputs = subject.inputs()
    (rows, *grads), counted = subject.run(subject.rows(), inputs), dense(subject.loss(), *inputs)[1]
    assert rows.shape == counted.shape
    for reduction, terms in ("sum", 1), ("mean", counted.sum().item()):
        value, *found = subject.run(subject.loss(reduction=reduction), inputs)
        assert_same(value, rows.sum() / terms, reduction)
        want = [rows.numel() / terms * grad for grad in grads]
        assert_same(found, want, f"gradients of the {reduction}")
    message = ""
    try:
        subject.loss(reduction="average")
    except ValueError as error:
        message = str(error)
    assert message.startswith("reduction: got 'average', expected one of mean, "), message


def check_statistics(subject: Subject) -> None:
    """``return_stats`` does not change the loss; its values agree with the dense scores."""
    if not subject.statistics:
        return
    inputs = subject.leaves(subject.inputs())
    loss = subject.loss(return_stats=True)
    value, stats = loss(*inputs)
    assert_same(value, subject.loss()(*inputs), "loss")
    assert set(stats) == {"accuracy", "positive", "hardest_negative", "lse"}
    assert not any(v.requires_grad or v.ndim for v in stats.values())
    if not isinstance(loss, (CrossLoss, TwoViewLoss)) or len(inputs) != 2:
        return
    x, y = (F.normalize(v.detach()) if loss.normalize else v.detach() for v in inputs)
    n = len(x)
    if isinstance(loss, TwoViewLoss):
        x = y = torch.cat([x, y])
    s = x @ y.mT / loss.temperature + getattr(loss, "bias", 0.0)
    i = torch.arange(len(x), device=x.device)
    positive = s[i, (i + n) % len(x)]
    hardest = s.masked_fill(i[:, None] % n == i % n, -torch.inf).amax(1)
    lse = (s.fill_diagonal_(-torch.inf) if isinstance(loss, TwoViewLoss) else s).logsumexp(1)
    rows = {"accuracy": positive > hardest, "positive": positive, "hardest_negative": hardest}
    for name, want in {**rows, "lse": lse}.items():
        assert_same(stats[name], want.double().mean(), name)


def check_sharded(subject: Subject) -> None:
    """Merged statistics of column blocks give the same loss and gradients."""
    inputs = subject.inputs(n=21)
    want = subject.run(subject.loss(), inputs)
    for shards in (2, 5):
        with _sharded(shards):
            got = subject.run(subject.loss(), inputs)
        assert_same(got, want, f"{shards} shards: (loss, gradients)")


def _joined(values: Sequence[Any]) -> Any:
    """The results of column channels of all blocks."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values), -1)
    return type(values[0])(*map(_joined, zip(*values, strict=True)))


def _in_blocks(shards: int) -> Callable[..., list[Any]]:
    """``ops.pair_stats``, which processes the columns in blocks and merges the results."""
    whole = ops.pair_stats

    def pair_stats(x: Tensor, y: Tensor | None, channels: Any, **call: Any) -> list[Any]:
        rows = dict(call.pop("rows", None) or {})
        cols = rows if call.get("cols") is None and y is None else dict(call.get("cols") or {})
        call.pop("cols", None)
        columns = x if y is None else y
        position = {a: torch.arange(v.shape[-2], device=x.device) for a, v in
                    ((ROW, x), (COL, columns))}  # fmt: skip
        if y is None:
            channels = [replace(c, pairs=(*c.pairs, differs(INDEX))) for c in channels]
        if any(INDEX in c.ids for c in channels):
            rows, cols = {INDEX: position[ROW], **rows}, {INDEX: position[COL], **cols}
        forms = frozenset().union(*[c.forms for c in channels])
        parts, offsets = [], []
        blocks = [b for b in position[COL].tensor_split(shards) if len(b)]
        for block in blocks or [position[COL]]:
            own = {
                name: value[..., block, :] if name in forms else value[..., block]
                for name, value in cols.items()
            }
            sided = {k: v[..., block] if k.startswith("col") and v is not None else v
                     for k, v in call.items()}  # fmt: skip
            part = columns[..., block, :]
            parts.append(whole(x, part, channels, rows=rows, cols=own, **sided))
            offsets.append(int(block[0]) if len(block) else 0)
        return [
            ops.merge(c, values, offsets if isinstance(c, MAX) else None)
            if c.axis == ROW else _joined(values)
            for c, values in zip(channels, zip(*parts, strict=True), strict=True)
        ]  # fmt: skip

    return pair_stats


@contextmanager
def _sharded(shards: int) -> Iterator[None]:
    """Inside, all statistics are those of blocks of columns, merged."""
    pair_stats = _in_blocks(shards)

    def pair_loss(
        x: Tensor,
        y: Tensor | None,
        channels: Any,
        parts: Any,
        *,
        reduction: str = "mean",
        row_weight: Tensor | None = None,
        **call: Any,
    ) -> tuple[Tensor, list[Any]]:
        values = pair_stats(x, y, channels, **call)
        return reduced(values, parts, reduction, row_weight), values

    with mock.patch.multiple(ops, pair_stats=pair_stats, pair_loss=pair_loss):
        yield
