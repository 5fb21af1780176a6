"""What the losses share whose rows may be spread over ranks: reductions and statistics.

``channels`` says what a loss needs of the pair scores, ``combine`` turns those vectors into one
loss per row, and ``reference`` is its textbook formula on dense scores. See CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import dataclass_transform  # of typing from Python 3.11 on

from ... import ops
from ...channel import COL, LSE, MAX, Channel, Test, differs
from ...distributed import WORLD, Layout, Peers, Strategy, describe, total
from ...memory import EmbeddingQueue
from .blocks import ID, Block, Stored, Turned
from .checks import check_queue, check_stored
from .loss import ScoreLoss
from .merging import chosen
from .negatives import Negatives
from .scores import Scores
from .spread import Spread

__all__ = ["Memory", "PairLoss", "covering"]

#: a queue of columns, or one of columns and one of rows
Memory = EmbeddingQueue | tuple[EmbeddingQueue, EmbeddingQueue] | None


@dataclass_transform(kw_only_default=False)
class PairLoss(ScoreLoss):
    """Base of the losses whose rows may be spread over ranks; these options are common to them.

    Args:
        temperature: divides the scores: a float, a 0-dim tensor or Parameter, or an (N,) tensor
            (one per row), except for losses of several views, scales or modalities. Tensors are
            never synchronised.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's. ``'world'`` is the default group, looked up at the first call.
            Parts have any size: rows are compared with the columns of all ranks, and every rank
            returns the mean, or sum, over all rows. A rank's gradient is W times its share, so that
            with gradients averaged over ranks, as DDP and FSDP do, a step is that of one process on
            the whole batch. ``reduction='none'``: this rank's rows, with unscaled gradients.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass. They
            are detached 0-dim tensors: ``accuracy`` (top-1), ``positive`` (mean score),
            ``hardest_negative`` and ``lse`` (means over rows).
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    ``forward(..., logit_scale=None, logit_bias=None)`` takes an already exponentiated scale, which
    overrides the temperature, and a bias added to every score.
    """

    _: KW_ONLY
    group: Any = None
    strategy: Strategy = "auto"
    equal_sizes: bool = False
    return_stats: bool = False

    VECTORS = frozenset({"temperature"})
    #: whether the statistics leave out rows without a negative
    OF_ROWS_WITH_NEGATIVES: ClassVar[bool] = False
    #: what losses have as options that take negatives in place of the batch's
    in_batch_negatives = True
    gather_negatives = True
    #: which pairs are negatives, for ``return_stats``
    negatives: ClassVar[tuple[Test, ...]] = ()

    def check(self) -> None:
        super().check()
        for option, reason in self.without.items():
            if getattr(self, option, None):
                got = getattr(self, option)
                raise ValueError(f"{option}: got {got!r}, expected none: {reason}")

    def fitting(self, name: str, value: Any) -> Any:
        if name == "group" and value is not None:
            return value if isinstance(value, str) and value == WORLD else Peers.of(value)
        return super().fitting(name, value)

    def prepare(self) -> None:
        super().prepare()
        self._channels = self.channels()
        hardest: Channel = MAX(pairs=self.negatives)
        everything: Channel = LSE()
        self._extra = hardest, everything
        #: the same where pairs of equal ids are left out
        self._channels_by_ids = tuple([self.by_ids(channel) for channel in self._channels])
        apart = (differs(ID),)
        self._extra_by_ids: tuple[Channel, Channel] = (MAX(pairs=apart), LSE(pairs=apart))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward``, of which the ranks of a group learn whether all of them make the same."""
        if self.group == WORLD:
            self.group = Peers.of(WORLD)
        if self.group is None or self.equal_sizes:
            return super().__call__(*args, **kwargs)
        about, device = self._about(args, kwargs)
        with self.group.call(about, device):
            return super().__call__(*args, **kwargs)

    def _about(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, str], torch.device | None]:
        """What has to be the same on every rank, and the device of the embeddings."""
        given = (*args, *kwargs.values())
        device = next((v.device for v in given if isinstance(v, Tensor)), None)
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        del options["group"]
        first = len(self.positional) - 1
        if first >= 0 and self.positional[first].startswith("*"):
            args = (*args[:first], tuple(args[first:]))
        positional = dict(zip(self.arguments, args, strict=False))
        inputs = {**dict.fromkeys(self.arguments), **positional, **kwargs}
        cast = ops.autocast_dtype(device or torch.device("cpu"))
        about = {"call": type(self).__name__, "autocast": str(cast or "none")}
        described = {name: describe(value) for name, value in {**options, **inputs}.items()}
        for name, spec in self.inputs.items():
            if "T" in spec.split() and isinstance(inputs.get(name), Tensor):  # columns of labels
                described[name] += f", {tuple(inputs[name].shape[1:])} each"
        return {**about, **described}, device

    # ---- what a forward is made of ----------------------------------------------------------

    def stored(
        self,
        memory: Memory,
        ids: Tensor | None,
        like: tuple[str, Tensor],
        *,
        labels: str | None = None,
        copies: int = 1,
        views: int = 1,
        of_batch: bool = False,
        of_cols: tuple[str, Tensor] | None = None,
        col_ids: Tensor | None = None,
    ) -> tuple[Block, ...]:
        """The blocks that a call with a queue adds to the batch.

        Args:
            memory, ids: those of ``forward``.
            like: the embeddings that meet the queue's, by name; ids are of their rows.
            of_batch: whether ids are of use without a queue, too.
            of_cols: what meets the second queue, where it is not ``like``.
            col_ids: its ids, where they are others. Then all ids are those of positives, and a
                queue may have none: its columns are negatives.
            labels: the name by which channels call the labels, if they do.
            copies, views: the rows are these embeddings so often, one copy after the other, and
                each so many times in a row.
        """
        if memory is None and (ids is None or of_batch or col_ids is not None):
            return ()
        if self.both_sides and not (isinstance(memory, (tuple, list)) and len(memory) == 2):
            got = type(memory).__name__
            raise TypeError(f"memory: got {got}, expected two queues, of columns and of rows")
        queues: Any = memory if self.both_sides else (memory,)
        sides = (like, ids), (of_cols or like, ids if col_ids is None else col_ids)
        blocks: list[Block] = []
        for queue, (of, own) in zip(queues, sides, strict=False):
            if col_ids is not None and getattr(queue, "ids", None) is None:
                own = None
            held = check_queue(
                self, "memory", queue, of, of[1].shape[0], own, labels=labels is not None
            )
            if own is not None:
                own = own.repeat(copies) if views == 1 else own.repeat_interleave(views)
            blocks.append(Stored(held, ids=own, labels=labels))
        return (blocks[0], *map(Turned, blocks[1:]))

    def given(
        self,
        x: Tensor,
        negatives: Negatives,
        ids: Tensor | None = None,
        *,
        copies: int = 1,
        views: int = 1,
    ) -> tuple[Block, ...]:
        """The block of the negatives that a call brings, if it brings any.

        Args:
            x: N embeddings, of instances with these ids.
            copies, views: as of :meth:`stored`.
        """
        negatives.check(x.shape[0], ids)
        if negatives.values is None:
            return ()
        everywhere = self.gather_negatives
        return (negatives.block(ids, everywhere=everywhere, copies=copies, views=views),)

    def queued(
        self, queue: EmbeddingQueue | Tensor, ids: Tensor | None, like: tuple[str, Tensor]
    ) -> Stored:
        """The block of a queue, or of a tensor of its embeddings, that a loss takes as such."""
        check_stored(self, "queue", queue, like, ids)
        return Stored(queue, ids=ids)

    @property
    def both_sides(self) -> bool:
        """Whether columns have statistics, too, so that ``memory`` is a pair of queues: of the
        columns that rows meet, and of the rows that columns meet."""
        return any(channel.axis == COL for channel in self._channels)

    def scores(
        self,
        x: Tensor,
        y: Tensor | None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        *,
        copies: int = 1,
        alone: bool = False,
        spread: Spread | None = None,
        **options: Any,
    ) -> Scores:
        """The scores of checked embeddings; x holds ``copies`` rows per temperature. ``alone``: of
        this process, whatever the group. ``spread``: that of other scores of the same call, whose
        rows and columns are as many on each rank."""
        if self.group is not None and not alone:
            if logit_scale is None and isinstance(self.temperature, Tensor):
                self._check_temperature(x, copies)  # before the ranks meet
            sizes = (x.shape[-2], (x if y is None else y).shape[-2])
            options["spread"] = spread or Spread(
                self.group, self.strategy, self._layout(sizes, x), self.equal_sizes
            )
        return super().scores(x, y, logit_scale, logit_bias, copies=copies, **options)

    def _layout(self, sizes: tuple[int, int], x: Tensor) -> Layout:
        """How many rows and columns each rank has: they meet here, unless all have the same."""
        if self.equal_sizes:
            rows, cols = sizes
            return Layout((rows,) * self.group.world, (cols,) * self.group.world)
        about = {"D": str(x.shape[-1]), "batch": str(tuple(x.shape[:-2])), "dtype": str(x.dtype)}
        return self.group.meet(sizes, about, x.device)

    def by_ids(self, channel: Channel) -> Channel:
        """The channel without pairs of equal ids, which those of one position have, too."""
        pairs = [differs(ID) if test in self.negatives else test for test in channel.pairs]
        return channel.adapted(tuple(dict.fromkeys(pairs)), channel.axis)

    def channels(self) -> tuple[Channel, ...]:
        """What the loss asks of the pair scores, in the order of ``combine``'s arguments."""
        return ()

    def measure(
        self,
        scores: Scores,
        channels: Sequence[Channel],
        rows: Mapping[str, Tensor] | None = None,
        cols: Mapping[str, Tensor] | None = None,
    ) -> tuple[list[Any], list[Tensor]]:
        """The values of the channels and, with ``return_stats``, every row's hardest negative and
        log-sum-exp, from the same pass; else nothing in their place."""
        if not self.return_stats:
            return scores.stats(channels, rows, cols), []
        more = self._extra if scores.apart is None else self._extra_by_ids
        observed = scores.observed()
        if observed is scores:
            found = scores.stats((*channels, *more), rows, cols)
            own, (hardest, lse) = found[: len(channels)], found[len(channels) :]
        else:
            own = scores.stats(channels, rows, cols)
            called = frozenset().union(*[channel.ids for channel in more])
            rows, cols = (v if v is None else chosen(v, called) for v in (rows, cols))
            hardest, lse = observed.stats(more, rows, cols)
        return own, [hardest.value, lse]

    def reduce(
        self, losses: Tensor, counted: Tensor | None = None, nan: Tensor | None = None
    ) -> Tensor:
        if self.group is None or self.reduction == "none":
            return super().reduce(losses, counted, nan)
        losses = self.taking_part(losses, counted, nan)
        (whole,), size = self._over_ranks([losses], counted)
        return (whole / size if self.reduction == "mean" else whole).to(losses.dtype)

    def _over_ranks(
        self, rows: Sequence[Tensor], counted: Tensor | None
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Sums of vectors over the rows of all ranks, and how many rows these are, at least 1."""
        wide = ops.widest(rows[0])
        sums = [value.sum(dtype=wide) for value in rows]
        if counted is None:
            size = torch.full_like(sums[0], rows[0].numel())
        else:
            size = counted.sum(dtype=wide)
        self.group.settle(rows[0].device)
        *found, size = total(torch.stack([*sums, size]), self.group).unbind()
        return found, size.clamp_min(1)

    def finish(
        self,
        losses: Tensor,
        extra: Sequence[Any],
        positive: Tensor,
        *,
        best_positive: Tensor | None = None,
        aligned: Scores | None = None,
        counted: Tensor | None = None,
        nan: Tensor | None = None,
    ) -> Any:
        """The reduced loss, with its statistics if they were asked for. ``aligned``: the scores
        whose ``aligned`` the positives are; a negative that only rounding puts below
        such a positive is a tie."""
        loss = self.reduce(losses, counted, nan)
        if not self.return_stats:
            return loss
        if aligned is not None:
            best_positive = aligned.surpassing(positive)
        return loss, self.statistics(extra, positive, best_positive, counted)

    def statistics(
        self,
        extra: Sequence[Any],
        positive: Tensor,
        best_positive: Tensor | None,
        counted: Tensor | None,
    ) -> dict[str, Tensor]:
        """Means over the rows that ``counted`` marks."""
        hardest, lse = (value.detach() for value in extra)
        if self.OF_ROWS_WITH_NEGATIVES:
            counted = hardest != -torch.inf
        positive = positive.detach()
        best = positive if best_positive is None else best_positive.detach()
        rows = {
            "accuracy": (best > hardest).to(lse.dtype),
            "positive": positive,
            "hardest_negative": hardest,
            "lse": lse,
        }
        if counted is not None:
            counted = counted.flatten()
            rows = {name: torch.where(counted, value, 0.0) for name, value in rows.items()}
        if self.group is not None:
            sums, size = self._over_ranks(list(rows.values()), counted)
            means = [(value / size).to(lse.dtype) for value in sums]
            return dict(zip(rows, means, strict=True))
        if counted is None:
            return {name: value.mean() for name, value in rows.items()}
        size = counted.sum().clamp_min(1)
        return {name: value.sum() / size for name, value in rows.items()}


def covering(extra: list[Tensor], positive: Tensor) -> list[Tensor]:
    """The values for statistics, if there are any, of rows whose positive is not among the columns:
    the log-sum-exp covers it."""
    return extra and [extra[0], torch.logaddexp(extra[1], positive.detach())]
