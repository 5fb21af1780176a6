"""``pair_stats`` for a batch that is sharded over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from .. import ops
from ..backends import Gradients, stat_dtype
from ..channel import COL, INDEX, ROW, Axis, Channel, Program, differs
from ..ops.check import check_channels, check_operands
from ..ops.form import product_dtype
from ..ops.merge import merge
from ..ops.results import named
from .collectives import exchange, gather
from .header import describe
from .peers import Layout, Peers
from .ring import Ring, RingStats

__all__ = ["STRATEGIES", "Strategy", "pair_stats"]

Strategy = Literal["auto", "gather", "ring"]
STRATEGIES = ("auto", "gather", "ring")

#: 'auto' gathers if the columns of all ranks, in the statistics' dtype, take at most so many bytes
GATHERED = 256 << 20

#: an id: positions among the rows of all ranks, which exclude the self pairs of ``y=None``
_SELF = "position among all"


def pair_stats(
    x: Tensor,
    y: Tensor | None,
    channels: Sequence[Channel],
    *,
    group: Any,
    strategy: Strategy = "auto",
    equal_sizes: bool = False,
    layout: Layout | None = None,
    scale: Tensor | float | None = None,
    row_scale: Tensor | None = None,
    col_scale: Tensor | None = None,
    row_bias: Tensor | None = None,
    col_bias: Tensor | None = None,
    rows: Mapping[str, Tensor] | None = None,
    cols: Mapping[str, Tensor] | None = None,
    cosine: bool = False,
    compute_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> tuple[list[Any], Layout]:
    """:func:`contrastloss.ops.pair_stats` over the rows and columns of all ranks, in the order of
    ranks. Row channels return values for this rank's rows over all columns; column channels return
    values for this rank's columns over all rows. Positions (``INDEX``, ``MAX``) count over all
    ranks.

    Args:
        x, y: this rank's rows (..., M, D) and columns (..., N, D); a rank may have none. With batch
            dimensions, which are the same on every rank, there are no column channels and no ring.
        group: a ProcessGroup or a DeviceMesh of one dimension. All of its ranks make this call.
        strategy: 'gather' holds the columns of all ranks at once. 'ring' holds those of two ranks,
            and sends them around while it computes. 'auto' gathers up to 256 MB.
        equal_sizes: True promises that all ranks have the same numbers of rows and columns. Then no
            header is exchanged, which saves a synchronisation, and nothing is compared.
        layout: the numbers of rows and columns of all ranks, if ``Peers.meet`` has already returned
            them; None: the ranks meet here.

    The other arguments are those of :func:`contrastloss.ops.pair_stats`, for this rank's rows and
    columns. Gradients: each rank computes a value from its results. A rank's backward pass gives
    the derivative of the sum of these values over all ranks by this rank's tensors, including their
    use on other ranks. Neither strategy is differentiable twice.

    Returns:
        The results, and the :class:`Layout` of the call.

    Raises:
        TypeError, ValueError: as ``ops.pair_stats``; or, on every rank, if another rank raised or
            the ranks differ. The message names the ranks and the error or difference.
        RuntimeError: a rank does not answer within the group's timeout; the message names it.
    """
    peers = Peers.of(group)
    rows = dict(rows or {})
    cols = rows if cols is None and y is None else dict(cols or {})
    columns, device = x if y is None else y, x.device if isinstance(x, Tensor) else None
    vectors = [scale, row_scale, col_scale, row_bias, col_bias]
    settings: dict[str, Any] = {"cosine": cosine, "backend": backend}
    met = equal_sizes or layout is not None
    with nullcontext() if met else peers.call({"call": "pair_stats"}, device):
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy: got {strategy!r}, expected one of {', '.join(STRATEGIES)}")
        channels = check_channels(channels)
        program = Program(channels, tuple(rows), tuple(cols))
        check_operands(x, y, vectors, rows, cols, program, compute_dtype)
        if x.ndim > 2 and (strategy == "ring" or any(c.axis == COL for c in channels)):
            what = "strategy='ring'" if strategy == "ring" else "column channels"
            raise ValueError(f"x: got shape {tuple(x.shape)} with {what}, expected (M, D)")
        settings["compute_dtype"] = product_dtype(x) if compute_dtype is None else compute_dtype
        if layout is None:
            layout = Layout((x.shape[-2],) * peers.world, (columns.shape[-2],) * peers.world)
        if not met:
            about = _about(x, y, vectors, rows, cols, program.forms)
            about |= {name: describe(v) for name, v in {"strategy": strategy, **settings}.items()}
            about["channels"] = program.text
            layout = peers.meet((x.shape[-2], columns.shape[-2]), about, device)
    if y is None:
        channels = tuple(replace(c, pairs=(*c.pairs, differs(_SELF))) for c in channels)
    cols = {name: _along(v, columns, name in program.forms) for name, v in cols.items()}
    _add_positions(channels, rows, cols, peers, layout, x.device, y is None)
    if strategy == "auto":
        held = sum(layout.cols) * x.shape[-1] * stat_dtype(x).itemsize
        strategy = "gather" if held <= GATHERED or peers.world == 1 or x.ndim > 2 else "ring"
    run = _gathered if strategy == "gather" else _around
    stat = stat_dtype(x)
    if isinstance(scale, (int, float)):
        scale = torch.full((), scale, dtype=stat, device=x.device)
    scale, row_scale, row_bias = (
        v if v is None else v.to(stat) for v in (scale, row_scale, row_bias)
    )
    vectors = [scale, row_scale, _along(col_scale, columns), row_bias, _along(col_bias, columns)]
    return run(peers, layout, channels, x.to(stat), columns, vectors, rows, cols, settings), layout


def _about(
    x: Tensor,
    y: Tensor | None,
    vectors: Sequence[Tensor | float | None],
    rows: Mapping[str, Tensor],
    cols: Mapping[str, Tensor],
    forms: frozenset[str],
) -> dict[str, str]:
    """The properties of the operands that have to be the same on every rank."""
    given = {"x": x, "y": y, **dict(zip(Gradients.NAMES[2:7], vectors, strict=True))}
    given |= {f"rows[{name!r}]": value for name, value in rows.items()}
    given |= {f"cols[{name!r}]": value for name, value in cols.items()}
    found = {"D": str(x.shape[-1]), "batch": str(tuple(x.shape[:-2])), "dtype": str(x.dtype)}
    found |= {name: describe(value) for name, value in given.items()}
    for name in sorted(forms):
        found[f"width of {name!r}"] = str(cols[name].shape[-1])  # E of a bilinear form
    return found


def _gathered(
    peers: Peers,
    layout: Layout,
    channels: Sequence[Channel],
    x: Tensor,
    columns: Tensor,
    vectors: Sequence[Any],
    rows: Mapping[str, Tensor],
    cols: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> list[Any]:
    """The gather strategy: this rank's rows against the columns of all ranks. The values of column
    channels are merged on the rank that owns the columns."""

    def all_of(value: Tensor | None, dim: int = -1, dtype: torch.dtype | None = None) -> Any:
        if value is None:
            return None
        return gather(value.movedim(dim, 0), peers, layout, dtype or value.dtype).movedim(0, dim)

    scale, row_scale, col_scale, row_bias, col_bias = vectors
    forms = frozenset().union(*[channel.forms for channel in channels])
    results = ops.pair_stats(
        x,
        all_of(columns, -2, x.dtype),
        channels,
        scale=scale,
        row_scale=row_scale,
        col_scale=all_of(col_scale),
        row_bias=row_bias,
        col_bias=all_of(col_bias),
        rows=rows,
        cols={name: all_of(value, -2 if name in forms else -1) for name, value in cols.items()},
        **settings,
    )
    offsets = [layout.offset(ROW, rank) for rank in range(peers.world)]
    for k, channel in enumerate(channels):
        if channel.axis == COL:
            values = [results[k]] if isinstance(results[k], Tensor) else list(results[k])
            parts = zip(*[exchange(v, peers, layout) for v in values], strict=True)
            results[k] = merge(channel, [named(channel, list(p)) for p in parts], offsets)
    return results


def _around(
    peers: Peers,
    layout: Layout,
    channels: Sequence[Channel],
    x: Tensor,
    columns: Tensor,
    vectors: Sequence[Any],
    rows: Mapping[str, Tensor],
    cols: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> list[Any]:
    """The ring strategy, by :class:`RingStats`."""
    program = Program(tuple(channels), tuple(rows), tuple(cols))
    ring = Ring(peers, layout, program, **settings)
    flat = iter(
        RingStats.apply(ring, len(rows), x, columns, *vectors, *rows.values(), *cols.values())
    )
    return [named(channel, [next(flat) for _ in channel.returns]) for channel in channels]


def _along(value: Tensor | None, columns: Tensor, form: bool = False) -> Any:
    """A column operand expanded to one value per column, so that it can be sent. A floating one is
    cast to the statistics' dtype, so that its gradients are summed in it."""
    if value is None:
        return None
    value = value.to(stat_dtype(columns)) if value.is_floating_point() else value
    last = value.shape[-1:] if form else ()
    return value.expand(*value.shape[: -1 - form], columns.shape[-2], *last)


def _add_positions(
    channels: Sequence[Channel],
    rows: dict[str, Tensor],
    cols: dict[str, Tensor],
    peers: Peers,
    layout: Layout,
    device: torch.device,
    symmetric: bool,
) -> None:
    """Add positions over all ranks: INDEX if a channel uses it, and the id of self pairs."""
    called = {name for channel in channels for name in channel.called[ROW] | channel.called[COL]}
    sides: tuple[tuple[Axis, dict[str, Tensor]], ...] = ((ROW, rows), (COL, cols))
    for axis, given in sides:
        size, first = layout.sizes(axis)[peers.rank], layout.offset(axis, peers.rank)
        position = torch.arange(first, first + size, device=device)
        if INDEX in called and INDEX not in given:
            given[INDEX] = position
        if symmetric:
            given[_SELF] = position
