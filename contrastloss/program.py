"""A program: the channels of one call and the names of their operands, and its text, by which the
operators of torch.library get it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from .channel import COL, EXPECT, LSE, MAX, ROW, SUM, Axis, Channel, Term, Test
from .options import Fitting

__all__ = ["Program"]

_KINDS: dict[str, type[Channel]] = {kind.kind: kind for kind in (LSE, SUM, EXPECT, MAX)}


@dataclass(eq=False)
class Program:
    """The channels of one call and the order of their operands. What calls need of them is computed
    once, by plain assignments that can be traced."""

    channels: tuple[Channel, ...]
    rows: tuple[str, ...] = ()
    cols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        everything = self.channels
        none: frozenset[str] = frozenset()
        channels = ",".join([c.text for c in everything])
        rows, cols = (",".join([f'"{n}"' for n in names]) for names in (self.rows, self.cols))
        #: the text that represents a program in the operator's schema
        self.text = f"[[{channels}],[{rows}],[{cols}]]"
        #: operands that are (..., M, E) and (..., N, E); those that are compared, so they are
        #: integers
        self.forms = none.union(*[c.forms for c in everything])
        self.ids = none.union(*[c.ids for c in everything])
        #: the operands that the channels need along each axis; those that must not require a
        #: gradient
        self.called = {a: none.union(*[c.called[a] for c in everything]) for a in (ROW, COL)}
        self.fixed = {a: none.union(*[c.fixed[a] for c in everything]) for a in (ROW, COL)}
        #: whether there are channels of columns
        self.columns = any(c.axis == COL for c in everything)
        #: the kinds of operands of which ``ops.check`` has found that they fit
        self.fitting = Fitting()
        used = {(c.axis, c.shift) for c in everything if isinstance(c, SUM)}
        #: the operands of each axis that get a gradient: the shifts of SUM channels
        self.shifts: dict[Axis, tuple[str, ...]] = {
            axis: tuple([n for n in names if (axis, n) in used])
            for axis, names in ((ROW, self.rows), (COL, self.cols))
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @staticmethod
    def decode(text: str) -> Program:
        return _decode(text)

    @property
    def features(self) -> frozenset[str]:
        """What a backend must support to serve the program, in the words of its table
        ``DECLINES``."""
        return _features(self)


@lru_cache(maxsize=4096)
def _decode(text: str) -> Program:
    channels, rows, cols = json.loads(text)
    return Program(tuple(map(_channel, channels)), tuple(rows), tuple(cols))


def _channel(fields: dict) -> Channel:
    kind = _KINDS[fields.pop("kind")]
    fields["pairs"] = tuple(Test(*test) for test in fields["pairs"])
    fields["weight"] = tuple(Term(k, tuple(names), v) for k, names, v in fields["weight"])
    return kind(**fields)


@lru_cache(maxsize=4096)
def _features(program: Program) -> frozenset[str]:
    found = set()
    for channel in program.channels:
        found.add(f"SUM {channel.psi}" if isinstance(channel, SUM) else channel.kind)
        found.update(f"test {test.op}" for test in channel.pairs)
        found.update(f"weight {term.kind}" for term in channel.weight)
        if isinstance(channel, SUM) and channel.shift is not None:
            found.add("shift")
        if isinstance(channel, LSE) and channel.relax is not None:
            found.add("LSE relax")
    return frozenset(found)
