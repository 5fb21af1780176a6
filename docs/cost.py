"""What a loss costs: the matrix products and channels of the operators that it calls."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from contrastloss import ops
from contrastloss.channel import EXPECT, LSE, ROW, SUM, Channel, Term, Test
from contrastloss.losses import Loss
from contrastloss.testing import example

__all__ = ["ROWS", "STORED", "Cost", "cost_of"]

#: the number of instances in the batch whose cost is counted, and of their features
ROWS, FEATURES = 64, 8
#: the cost of losses that compute products themselves, some rows at a time
PRODUCTS = {
    "ada_meow": "1 + 3, and N² h tanh",
    "recall_at_k": "2 + 3, and N² K sigmoids",
    "smooth_ap": "2 + 3, and N² K sigmoids",
}
#: arguments of ``forward`` that are stored columns
STORED = {"memory", "queue", "bank"}
TESTS = {"eq": "=", "ne": "!=", "lt": "<", "within": "~"}


@dataclass
class Cost:
    """The number of products of N x D by D x N that a loss needs, and its channels.

    ``one_pass``: the forward pass may find the gradients too.
    """

    name: str
    forward: float = 0.0
    backward: float = 0.0
    one_pass: bool = False
    channels: list[str] = field(default_factory=list)

    def text(self) -> str:
        if self.name in PRODUCTS:
            return PRODUCTS[self.name]
        if not self.forward:
            return "none"
        if self.forward < 0.05:  # the pairs are pairs of features
            return "D x D"
        found = f"{round(self.forward, 1):g} + {round(self.backward, 1):g}"
        return f"{found}, one pass" if self.one_pass else found

    def statistics(self, x: Tensor, y: Tensor | None, channels: Sequence[Channel]) -> None:
        """Those of one channel give gradients of rows, if only rows have any, from one pass."""
        self.add(x, y, [_words(c) for c in channels])
        fixed = y is not None and x.requires_grad and not y.requires_grad
        found = [c for c in channels if isinstance(c, (LSE, SUM)) and c.axis == ROW]
        self.one_pass |= fixed and len(found) == len(channels) == 1

    def add(self, x: Tensor, y: Tensor | None, channels: Sequence[str]) -> None:
        columns = x if y is None else y
        size = x[..., 0].numel() * columns.shape[-2] / ROWS**2
        scores = size / 2 if y is None else size  # a symmetric problem computes half of its tiles
        self.forward += scores
        sides = (x.requires_grad,) if y is None else (x.requires_grad, y.requires_grad)
        if torch.is_grad_enabled() and any(sides):
            self.backward += scores + size * sum(sides)
        self.channels += [c for c in channels if c not in self.channels]


def cost_of(name: str, cls: type[Loss]) -> Cost:
    """Of the default options. Stored columns have no gradient."""
    cost, loss = Cost(name), cls()
    inputs = example(cls, ROWS, FEATURES, torch.Generator().manual_seed(0))
    names = [*inspect.signature(cls.forward).parameters][1:]
    names += names[-1:] * (len(inputs) - len(names))  # for *args: the last name again
    leaves = []
    for value, argument in zip(inputs, names, strict=False):
        if isinstance(value, Tensor) and value.is_floating_point():
            fixed = argument in loss.constants or argument in STORED
            value = value.float().requires_grad_(not fixed)
        leaves.append(value)
    with _recorded(cost):
        loss(*leaves)
    cost.channels = list(dict.fromkeys(cost.channels))
    return cost


@contextlib.contextmanager
def _recorded(cost: Cost) -> Iterator[None]:
    """Counts the calls of operators inside the context."""
    names = ("pair_stats", "pair_loss", "pair_topk", "gather_scores", "sort_network")
    whole = {name: getattr(ops, name) for name in names}

    def pair_stats(x: Tensor, y: Tensor | None, channels: Any, **call: Any) -> Any:
        cost.statistics(x, y, channels)
        return whole["pair_stats"](x, y, channels, **call)

    def pair_loss(x: Tensor, y: Tensor | None, channels: Any, parts: Any, **call: Any) -> Any:
        cost.add(x, y, [_words(c) for c in channels])
        cost.one_pass = True
        return whole["pair_loss"](x, y, channels, parts, **call)

    def pair_topk(x: Tensor, y: Tensor | None, k: int, **call: Any) -> Any:
        with torch.no_grad():
            cost.add(x, y if y is not None else x, ["top k"])
        return whole["pair_topk"](x, y, k, **call)

    def gather_scores(*args: Any, **call: Any) -> Any:
        cost.channels += ["scores of given pairs"]
        return whole["gather_scores"](*args, **call)

    def sort_network(*args: Any, **call: Any) -> Any:
        cost.channels += ["sorting network"]
        return whole["sort_network"](*args, **call)

    made = (pair_stats, pair_loss, pair_topk, gather_scores, sort_network)
    with mock.patch.multiple(ops, **{f.__name__: f for f in made}):
        yield


def _words(channel: Channel) -> str:
    """A channel in a few words."""
    kind = channel.kind
    if isinstance(channel, SUM):
        kind += f" {channel.psi}"
    elif isinstance(channel, LSE) and channel.relax is not None:
        kind += " relaxed"
    if isinstance(channel, (LSE, EXPECT)) and channel.theta != 1.0:
        kind += " θ"
    if channel.axis == "col":
        kind += " of columns"
    parts = [_test(t) for t in channel.pairs] + [_term(t) for t in channel.weight]
    return f"{kind} ({', '.join(parts)})" if parts else kind


def _test(test: Test) -> str:
    return f"{test.name} {TESTS[test.op]}"


def _term(term: Term) -> str:
    return f"weight {term.kind.replace('_', ' ')}"
