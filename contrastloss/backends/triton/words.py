"""A program as one constant of the kernels, and the functions that read it while they compile."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import triton

from ...channel import COL, INDEX, LSE, ROW, ROW_TERMS, SUM, Axis, Channel, Term
from ...program import Program

__all__ = ["SumWords", "Words", "encode"]


class Words:
    """Nested tuples as one constant; two are equal if their texts are."""

    def __init__(self, content: Any) -> None:
        self.content, self.text = content, repr(content)

    def __repr__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def at(self, *path: int | str) -> Any:
        found = self.content
        for step in path:
            found = getattr(found, step) if isinstance(step, str) else found[step]
        return found

    def count(self, *path: int | str) -> int:
        return len(self.at(*path))


class ChannelWords(NamedTuple):
    """``axis`` is 0 for row channels; ``shift`` is an operand number, -1 for none; ``margin`` is
    ``relax`` of :class:`~contrastloss.channel.LSE`."""

    kind: str
    axis: int
    group: int
    theta: float
    sign: float
    psi: str
    shift: int
    margin: float | None


class TestWords(NamedTuple):
    """``row`` and ``col`` are operand numbers; -1 means the position itself."""

    op: str
    row: int
    col: int
    width: int


class TermWords(NamedTuple):
    """``extent`` is the length of a form's vectors."""

    kind: str
    value: float
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    extent: int


class SumWords(NamedTuple):
    """What a backward pass adds up in addition to H: along which axis, and of which channel."""

    what: str
    axis: int
    channel: int


@lru_cache(maxsize=1024)
def encode(program: Program, extents: tuple[int, ...]) -> Words:
    """``(groups, channels)``: groups are the tests and terms that channels share. Operands are
    numbers; -1 means the position itself. ``extents`` are the lengths of the row operands that are
    forms."""
    groups = list(dict.fromkeys((c.pairs, c.weight) for c in program.channels))

    def index(axis: Axis, name: str) -> int:
        names = program.rows if axis == ROW else program.cols
        return -1 if name == INDEX and name not in names else names.index(name)

    def term(t: Term) -> TermWords:
        rows = tuple(index(ROW, n) for n in t.names) if t.kind != "col" else ()
        cols = tuple(index(COL, n) for n in t.names) if t.kind not in ROW_TERMS else ()
        extent = extents[rows[0]] if rows and rows[0] >= 0 else 1
        return TermWords(t.kind, t.value, rows, cols, extent)

    def channel(c: Channel) -> ChannelWords:
        shift = c.shift if isinstance(c, SUM) else None
        return ChannelWords(
            c.kind,
            0 if c.axis == ROW else 1,
            groups.index((c.pairs, c.weight)),
            float(getattr(c, "theta", 1.0)),
            float(getattr(c, "sign", 1.0)),
            c.psi if isinstance(c, SUM) else "",
            -1 if shift is None else index(c.axis, shift),
            c.relax if isinstance(c, LSE) else None,
        )

    coded = tuple(
        (
            tuple(TestWords(t.op, index(ROW, t.name), index(COL, t.name), t.width) for t in pairs),
            tuple(term(t) for t in weight),
        )
        for pairs, weight in groups
    )
    return Words((coded, tuple(channel(c) for c in program.channels)))


# called by kernels: Triton reads the body of such a function and lets it use only its arguments


@triton.constexpr_function
def channels(words: Words) -> int:
    return words.count(1)


@triton.constexpr_function
def channel(words: Words, c: int, field: str) -> Any:
    return words.at(1, c, field)


@triton.constexpr_function
def offset(words: Words, c: int) -> float:
    """What an exponent with a pace subtracts from its scores."""
    one: ChannelWords = words.at(1, c)
    assert one.margin is not None
    return one.margin if one.theta > 0 else 1.0 - one.margin


@triton.constexpr_function
def tests(words: Words, group: int) -> int:
    return words.count(0, group, 0)


@triton.constexpr_function
def test(words: Words, group: int, k: int, field: str) -> Any:
    return words.at(0, group, 0, k, field)


@triton.constexpr_function
def terms(words: Words, group: int) -> int:
    return words.count(0, group, 1)


@triton.constexpr_function
def term(words: Words, group: int, k: int, field: str) -> Any:
    return words.at(0, group, 1, k, field)


@triton.constexpr_function
def names(words: Words, group: int, k: int) -> int:
    """How many operands a term compares."""
    return words.count(0, group, 1, k, "rows")


@triton.constexpr_function
def name(words: Words, group: int, k: int, field: str, t: int) -> int:
    return words.at(0, group, 1, k, field, t)


@triton.constexpr_function
def sums(listed: Words) -> int:
    return listed.count()


@triton.constexpr_function
def summed(listed: Words, k: int, field: str) -> Any:
    return listed.at(k, field)


@triton.constexpr_function
def live(flags: int, c: int, which: int) -> bool:
    """Whether a channel's value, or an EXPECT's second value, has a gradient."""
    return (flags >> (2 * c + which)) % 2 == 1
