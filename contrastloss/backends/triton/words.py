"""A program as one constant of the kernels, and the functions that read it while they compile."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import triton

from ...channel import COL, INDEX, LSE, ROW, ROW_TERMS, SUM, Axis, Channel, Term
from ...program import Program

__all__ = ["LOG2E", "STEPS", "SumWords", "Words", "encode"]


#: log2(e), rounded to fp32
LOG2E = 1.4426950216293335
#: How a tile is evaluated: the axis of its rows, step by step. A tile above the diagonal of a
#: symmetric problem also stands for the one on the other side: "both" evaluates it twice, direct
#: and transposed; "mirrored" once, since all its pairs have equal values in either direction.
STEPS: dict[str, tuple[int | None, ...]] = {"direct": (0,), "both": (0, 1), "mirrored": (None,)}


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

    # of a program: what kernels ask while they compile

    def plain(self, step: int, k: int) -> bool:
        """Whether the exponents of a view are theta times the scores."""
        view: ViewWords = self.at(2, step, 1, k)
        return view.margin is None and view.theta != 0 and not self.at(0, view.group, 1)

    def rate(self, step: int, k: int) -> float:
        """What turns the numbers of :func:`~.maths.exponents` into exponents of 2."""
        return LOG2E * (self.at(2, step, 1, k, "theta") if self.plain(step, k) else 1.0)

    def offset(self, step: int, k: int) -> float:
        """What an exponent with a pace subtracts from its scores."""
        view: ViewWords = self.at(2, step, 1, k)
        assert view.margin is not None
        return view.margin if view.theta > 0 else 1.0 - view.margin

    def positional(self) -> bool:
        """Whether positions are compared."""
        return any(test.positional for tests, _ in self.at(0) for test in tests)

    def settled(self, group: int, k: int) -> bool:
        """Whether all pairs of different positions have one result of a test."""
        test: TestWords = self.at(0, group, 0, k)
        return test.positional and test.op in ("eq", "ne")

    def dead(self, step: int, k: int) -> bool:
        """Whether a view has no pairs of different positions."""
        tests = self.at(0, self.at(2, step, 1, k, "group"), 0)
        return any(test.positional and test.op == "eq" for test in tests)

    def alive(self, step: int, k: int, live: int, part: str) -> int:
        """The channel of a part of a view if it has a gradient, else -1."""
        channel: int = self.at(2, step, 1, k, part)
        return channel if channel >= 0 and live >> 2 * channel & 3 else -1

    def counts(self, step: int, k: int, live: int, interior: bool) -> bool:
        """Whether a view has gradients."""
        parts = [self.alive(step, k, live, part) for part in ("first", "second")]
        return max(parts) >= 0 and not (interior and self.dead(step, k))

    def partner(self, c: int, live: int) -> int:
        """The channel with which one may share its exponentials in the other direction, both having
        gradients; -1 for none."""
        for step in range(self.count(2)):
            for view in self.at(2, step, 1):
                parts = view.first, view.second
                if c in parts and min(parts) >= 0 and view.kind in ("LSE", "EXPECT"):
                    other = parts[1] if parts[0] == c else parts[0]
                    return other if live >> 2 * c & 3 and live >> 2 * other & 3 else -1
        return -1

    def theta(self, c: int) -> float:
        """The factor of a channel's scores in its exponents."""
        views = [view for _, views in self.at(2) for view in views]
        return next(view.theta for view in views if c in (view.first, view.second))

    def idle(self) -> bool:
        """Whether no view has pairs of different positions."""
        steps = range(self.count(2))
        return all(self.dead(t, k) for t in steps for k in range(self.count(2, t, 1)))


class ViewWords(NamedTuple):
    """Channels with one formula, which a tile evaluates together. ``first`` is the channel whose
    results lie along axis 0 of the tile, ``second`` the one along axis 1; -1 for none. ``shift`` is
    an operand number, -1 for none; ``margin`` is ``relax`` of an LSE channel."""

    kind: str
    group: int
    theta: float
    sign: float
    psi: str
    shift: int
    margin: float | None
    first: int = -1
    second: int = -1


class ChannelWords(NamedTuple):
    """``axis`` is 0 for row channels."""

    kind: str
    axis: int


class TestWords(NamedTuple):
    """``row`` and ``col`` are operand numbers; -1 means the position itself."""

    op: str
    row: int
    col: int
    width: int

    @property
    def positional(self) -> bool:
        return self.row < 0 and self.col < 0


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
def encode(program: Program, extents: tuple[int, ...], steps: str) -> Words:
    """``(groups, channels, steps)``: groups are the tests and terms that channels share. Operands
    are numbers; -1 means the position itself. ``extents`` are the lengths of the row operands that
    are forms. A tile is evaluated in the steps of this name, each with its own views."""
    groups = list(dict.fromkeys((c.pairs, c.weight) for c in program.channels))

    def index(axis: Axis, name: str) -> int:
        names = program.rows if axis == ROW else program.cols
        return -1 if name == INDEX and name not in names else names.index(name)

    def term(t: Term) -> TermWords:
        rows = tuple(index(ROW, n) for n in t.names) if t.kind != "col" else ()
        cols = tuple(index(COL, n) for n in t.names) if t.kind not in ROW_TERMS else ()
        extent = extents[rows[0]] if rows and rows[0] >= 0 else 1
        return TermWords(t.kind, t.value, rows, cols, extent)

    def view(c: Channel) -> ViewWords:
        shift = c.shift if isinstance(c, SUM) else None
        return ViewWords(
            c.kind,
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
    channels = tuple(ChannelWords(c.kind, 0 if c.axis == ROW else 1) for c in program.channels)
    formulas = [view(c) for c in program.channels]
    made = tuple((rows or 0, _views(formulas, channels, rows)) for rows in STEPS[steps])
    return Words((coded, channels, made))


def _views(
    formulas: list[ViewWords], channels: tuple[ChannelWords, ...], rows: int | None
) -> tuple[ViewWords, ...]:
    """The views of a step; None stands for both orientations."""
    found: list[ViewWords] = []
    for number, (formula, channel) in enumerate(zip(formulas, channels, strict=True)):
        first = number if rows is None or channel.axis == rows else -1
        second = number if rows is None or channel.axis != rows else -1
        for k, other in enumerate(found):
            alone = other._replace(first=-1, second=-1) == formula and formula.shift < 0
            if rows is not None and alone and (other.first if first >= 0 else other.second) < 0:
                both = max(first, other.first), max(second, other.second)
                found[k] = other._replace(first=both[0], second=both[1])
                break
        else:
            found.append(formula._replace(first=first, second=second))
    return tuple(found)


# called by kernels: Triton reads the body of such a function and lets it use only its arguments


@triton.constexpr_function
def channels(words: Words) -> int:
    return words.count(1)


@triton.constexpr_function
def channel(words: Words, c: int, field: str) -> Any:
    return words.at(1, c, field)


@triton.constexpr_function
def steps(words: Words) -> int:
    return words.count(2)


@triton.constexpr_function
def orientation(words: Words, step: int) -> int:
    """The axis of a tile along which the rows of the problem are."""
    return words.at(2, step, 0)


@triton.constexpr_function
def views(words: Words, step: int) -> int:
    return words.count(2, step, 1)


@triton.constexpr_function
def view(words: Words, step: int, k: int, field: str) -> Any:
    return words.at(2, step, 1, k, field)


@triton.constexpr_function
def plain(words: Words, step: int, k: int) -> bool:
    return words.plain(step, k)


@triton.constexpr_function
def rate(words: Words, step: int, k: int) -> float:
    return words.rate(step, k)


@triton.constexpr_function
def offset(words: Words, step: int, k: int) -> float:
    return words.offset(step, k)


@triton.constexpr_function
def positional(words: Words) -> bool:
    return words.positional()


@triton.constexpr_function
def settled(words: Words, group: int, k: int, interior: bool) -> bool:
    return interior and words.settled(group, k)


@triton.constexpr_function
def dead(words: Words, step: int, k: int, interior: bool) -> bool:
    return interior and words.dead(step, k)


@triton.constexpr_function
def alive(words: Words, step: int, k: int, live: int, part: str) -> int:
    return words.alive(step, k, live, part)


@triton.constexpr_function
def counts(words: Words, step: int, k: int, live: int, interior: bool) -> bool:
    return words.counts(step, k, live, interior)


@triton.constexpr_function
def partner(words: Words, c: int, live: int) -> int:
    return words.partner(c, live)


@triton.constexpr_function
def theta(words: Words, c: int) -> float:
    return words.theta(c)


@triton.constexpr_function
def partial(words: Words, step: int, k: int) -> bool:
    """Whether a view has sums of columns."""
    return words.at(2, step, 1, k, "second") >= 0 and words.at(2, step, 1, k, "kind") != "MAX"


@triton.constexpr_function
def single(words: Words, step: int, k: int) -> int:
    """A channel of a view; those with a shift are alone."""
    return max(words.at(2, step, 1, k, "first"), words.at(2, step, 1, k, "second"))


@triton.constexpr_function
def number(words: Words, step: int, k: int) -> int:
    """The number of a view among those of all steps."""
    return k + sum([words.count(2, before, 1) for before in range(step)])


@triton.constexpr_function
def idle(words: Words) -> bool:
    return words.idle()


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
