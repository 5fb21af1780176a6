"""``pair_stats`` for a batch that is sharded over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..backends import NAMES, Operands, PairCall
from ..channel import COL, INDEX, ROW, Axis, Channel, differs
from ..ops.check import check_channels, checked_call, named_operands, no_transforms
from ..ops.merge import merge
from ..ops.pair_stats import stats_of
from ..ops.results import named
from ..program import Program
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
        The results, and the ``Layout`` of the call.

    Raises:
        TypeError, ValueError: as ``ops.pair_stats``; or, on every rank, if another rank raised or
            the ranks differ. The message names the ranks and the error or difference.
        RuntimeError: a rank does not answer within the group's timeout; the message names it.
    """
    peers = Peers.of(group)
    rows, cols = named_operands(rows, cols, y is None)
    device = x.device if isinstance(x, Tensor) else None
    operands = Operands(
        x, y, scale, row_scale, col_scale, row_bias, col_bias, (*rows.values(),), (*cols.values(),)
    )
    met = equal_sizes or layout is not None
    with nullcontext() if met else peers.call({"call": "pair_stats"}, device):
        no_transforms("pair_stats")
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy: got {strategy!r}, expected one of {', '.join(STRATEGIES)}")
        program = Program(check_channels(channels), tuple(rows), tuple(cols))
        call = checked_call(operands, program, cosine, compute_dtype, backend)
        if x.ndim > 2 and (strategy == "ring" or any(c.axis == COL for c in program.channels)):
            what = "strategy='ring'" if strategy == "ring" else "column channels"
            raise ValueError(f"x: got shape {tuple(x.shape)} with {what}, expected (M, D)")
        sizes = call.length(ROW), call.length(COL)
        if layout is None:
            layout = Layout((sizes[0],) * peers.world, (sizes[1],) * peers.world)
        if not met:
            layout = peers.meet(sizes, _about(operands, call, strategy), device)
    if strategy == "auto":
        held = sum(layout.cols) * x.shape[-1] * call.stat_dtype.itemsize
        strategy = "gather" if held <= GATHERED or peers.world == 1 or x.ndim > 2 else "ring"
    run = _gathered if strategy == "gather" else _around
    return run(peers, layout, _prepared(peers, layout, call)), layout


def _about(given: Operands, call: PairCall, strategy: str) -> dict[str, str]:
    """The properties of a call and of its operands, as given, that have to be the same on every
    rank."""
    x, forms = given.x, sorted(call.program.forms)
    values = dict(zip(NAMES, given[:7], strict=True))
    values |= {f"rows[{n!r}]": v for n, v in zip(call.program.rows, given.rows, strict=True)}
    values |= {f"cols[{n!r}]": v for n, v in zip(call.program.cols, given.cols, strict=True)}
    found = {"D": str(x.shape[-1]), "batch": str(tuple(x.shape[:-2])), "dtype": str(x.dtype)}
    found |= {name: describe(value) for name, value in values.items()}
    for name in forms:
        found[f"width of {name!r}"] = str(call.named(COL, name).shape[-1])  # E of a bilinear form
    settings = {"strategy": strategy, "cosine": call.cosine, "backend": call.backend}
    settings["compute_dtype"] = call.compute_dtype
    found |= {name: describe(value) for name, value in settings.items()}
    return {**found, "channels": call.program.text}


def _prepared(peers: Peers, layout: Layout, call: PairCall) -> PairCall:
    """The call as both strategies take it, with y for ``y=None``. Column operands are expanded to
    one value per column, so that they can be sent. All floating operands except y have the
    statistics' dtype, in which their gradients are summed. Positions among all ranks are added."""
    given, columns, program = call.operands, call.columns, call.program
    channels = program.channels
    if given.y is None:
        channels = tuple(replace(c, pairs=(*c.pairs, differs(_SELF))) for c in channels)

    def wide(value: Tensor | None) -> Any:
        return None if value is None else value.to(call.stat_dtype)

    def along(value: Tensor | None, form: bool = False) -> Any:
        if value is None:
            return None
        value = wide(value) if value.is_floating_point() else value
        last = value.shape[-1:] if form else ()
        return value.expand(*value.shape[: -1 - form], columns.shape[-2], *last)

    rows = dict(zip(program.rows, given.rows, strict=True))
    cols = {n: along(v, n in program.forms) for n, v in zip(program.cols, given.cols, strict=True)}
    _add_positions(channels, rows, cols, peers, layout, columns.device, given.y is None)
    operands = Operands(
        x=given.x.to(call.stat_dtype),
        y=columns,
        scale=wide(given.scale),
        row_scale=wide(given.row_scale),
        col_scale=along(given.col_scale),
        row_bias=wide(given.row_bias),
        col_bias=along(given.col_bias),
        rows=tuple(rows.values()),
        cols=tuple(cols.values()),
    )
    return PairCall(operands, Program(channels, tuple(rows), tuple(cols)), *call[2:])


def _gathered(peers: Peers, layout: Layout, call: PairCall) -> list[Any]:
    """The gather strategy: this rank's rows against the columns of all ranks. The values of column
    channels are merged on the rank that owns the columns."""

    def all_of(value: Tensor | None, dim: int = -1, dtype: torch.dtype | None = None) -> Any:
        if value is None:
            return None
        return gather(value.movedim(dim, 0), peers, layout, dtype or value.dtype).movedim(0, dim)

    given, program = call.operands, call.program
    cols = zip(program.cols, given.cols, strict=True)
    whole = call.replace(
        y=all_of(given.y, -2, given.x.dtype),
        col_scale=all_of(given.col_scale),
        col_bias=all_of(given.col_bias),
        cols=tuple([all_of(value, -2 if name in program.forms else -1) for name, value in cols]),
    )
    results = stats_of(whole)
    offsets = [layout.offset(ROW, rank) for rank in range(peers.world)]
    for k, channel in enumerate(program.channels):
        if channel.axis == COL:
            values = [results[k]] if isinstance(results[k], Tensor) else list(results[k])
            parts = zip(*[exchange(v, peers, layout) for v in values], strict=True)
            results[k] = merge(channel, [named(channel, list(p)) for p in parts], offsets)
    return results


def _around(peers: Peers, layout: Layout, call: PairCall) -> list[Any]:
    """The ring strategy, by :class:`RingStats`."""
    ring = Ring(peers, layout, call.bare())
    flat, channels = iter(RingStats.apply(ring, *call.operands.flat())), call.program.channels
    return [named(channel, [next(flat) for _ in channel.returns]) for channel in channels]


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
