"""Channels: what one pass over the pair scores returns.

A channel is a frozen value: a kind, an axis, pairs and a log-weight. It holds no tensor. Ids,
weights and shifts are names, and the operands of :func:`contrastloss.ops.pair_stats` provide the
vectors of these names. Every layer of the package may import this module; it imports none of them.

With the score ``s_ij`` and the log-weight ``w_ij`` (0 by default, -inf for a pair that fails a
test), a row channel returns for every row i

    ======================  ====================================================================
    ``LSE(theta)``          ``log sum_j exp(theta s_ij + w_ij)``; not divided by theta
    ``SUM(psi)``            ``sum_j exp(w_ij) psi(u_ij)``, ``u_ij = sign (s_ij - shift_i)``
    ``EXPECT(theta)``       ``sum_j p_ij s_ij``, ``p_ij`` the softmax behind ``LSE(theta)``
    ``MAX(sign)``           ``max_j sign s_ij`` and its index, the smallest one among equals
    ======================  ====================================================================

and a column channel returns the same for every column j. If no pair is left, the values are -inf,
0, 0, and (-inf, -1). A score of NaN makes all of them NaN, except those that do not depend on
scores: ``LSE(0)`` and ``SUM("one")`` without :func:`not_above`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, ClassVar, Literal

__all__ = [
    "COL",
    "EXPECT",
    "INDEX",
    "LSE",
    "MAX",
    "PSI",
    "ROW",
    "SUM",
    "Channel",
    "Term",
    "Test",
    "at_most",
    "col_weight",
    "differing",
    "differs",
    "distance",
    "form",
    "members",
    "not_above",
    "precedes",
    "row_weight",
    "same",
    "within",
]

Axis = Literal["row", "col"]
ROW: Axis = "row"
COL: Axis = "col"

#: The one id that needs no operand: the position of a row or column. An operand may override it.
INDEX = "index"

TERMS = ("row", "col", "distance", "differing", "form", "log_form", "at_most", "not_above")
#: those that have an operand of rows alone
ROW_TERMS = ("row", "not_above")
PSI = ("one", "id", "square", "relu", "relu2", "softplus", "focal", "step")


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not -math.inf < number < math.inf:
        got = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else value
        raise ValueError(f"{name}: got {got}, expected a finite number")
    return number


def _check_name(value: Any, field: str = "name") -> None:
    if not isinstance(value, str):
        raise TypeError(f"{field}: got {type(value).__name__}, expected a string")
    if not value.isprintable() or '"' in value or "\\" in value:
        raise ValueError(f"{field}: got {value!r}, expected a printable name without quotes")


def _check_choice(field: str, value: Any, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        got = repr(value) if isinstance(value, str) else type(value).__name__
        raise ValueError(f"{field}: got {got}, expected one of {', '.join(choices)}")


def members(field: str, values: Any, kind: type, what: str) -> tuple:
    """The values of a tuple or list, all of one type."""
    if not isinstance(values, (tuple, list)):
        raise TypeError(f"{field}: got {type(values).__name__}, expected a tuple of {what}")
    for value in values:
        if not isinstance(value, kind):
            got = f"a tuple with {type(value).__name__}"
            raise TypeError(f"{field}: got {got}, expected a tuple of {what}")
    return tuple(values)


@dataclass(frozen=True)
class Test:
    """An integer test that a pair must pass, on the ids called ``name``."""

    op: Literal["eq", "ne", "lt", "within"]
    name: str
    width: int = 0

    def __post_init__(self) -> None:
        _check_choice("op", self.op, ("eq", "ne", "lt", "within"))
        _check_name(self.name)
        width = self.width
        if isinstance(width, bool) or not isinstance(width, int):
            raise TypeError(f"width: got {type(width).__name__}, expected an integer")
        if not -(1 << 63) <= width < 1 << 63:
            raise ValueError("width: got an integer beyond int64, expected one that fits in it")


def same(name: str) -> Test:
    """Pairs whose ids are equal."""
    return Test("eq", name)


def differs(name: str) -> Test:
    """Pairs whose ids differ; ``differs(INDEX)`` drops the diagonal."""
    return Test("ne", name)


def precedes(name: str) -> Test:
    """Pairs whose row id is smaller than the column id."""
    return Test("lt", name)


def within(name: str, width: int) -> Test:
    """Pairs whose ids differ by at most ``width``, an int64."""
    return Test("within", name, width)


@dataclass(frozen=True)
class Term:
    """One term of a channel's log-weight, which is a sum. Log-weights carry no gradient."""

    kind: Literal["row", "col", "distance", "differing", "form", "log_form", "at_most", "not_above"]
    names: tuple[str, ...]
    value: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, TERMS)
        names = members("names", self.names, object, "names")
        if not names or (len(names) > 1 and self.kind != "differing"):
            raise ValueError(f"names: got {len(names)}, expected one")
        for name in names:
            _check_name(name)
        value = _finite("value", self.value)
        if self.kind == "log_form" and value < 0:
            raise ValueError(f"value: got {value}, expected a finite number >= 0")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "value", value)


def row_weight(name: str) -> Term:
    """``u_i``, the row vector ``name``; -inf excludes the row."""
    return Term("row", (name,))


def col_weight(name: str) -> Term:
    """``v_j``, the column vector ``name``; -inf excludes the column."""
    return Term("col", (name,))


def distance(name: str, coefficient: float = -1.0) -> Term:
    """``coefficient * log(1 + |a_i - b_j|)`` for the real labels ``name`` (SupReMix)."""
    return Term("distance", (name,), _finite("coefficient", coefficient))


def differing(*names: str) -> Term:
    """``log #{t : ids differ}``: the log of how many of several id vectors differ (MEOW)."""
    return Term("differing", names)


def form(name: str, *, log: bool = False, eps: float = 0.0) -> Term:
    """``t_ij = <m_i, n_j>``, or ``log(eps + t_ij)``: a second bilinear form, of the operands
    ``name`` with shapes (..., M, E) and (..., N, E), for soft labels, teacher logits and kernels of
    labels."""
    if log is not True and log is not False:
        raise TypeError(f"log: got {type(log).__name__}, expected a bool")
    if _finite("eps", eps) < 0 and log:
        raise ValueError(f"eps: got {eps}, expected a finite number >= 0")
    return Term("log_form" if log else "form", (name,), eps)


def at_most(name: str) -> Term:
    """0 where ``<m_i, n_j> <= 0`` and -inf where it is positive, for a form's operands ``name``;
    NaN stays NaN. To give each row its own bound t_i, append a feature: -t_i to m_i and 1 to
    n_j."""
    return Term("at_most", (name,))


def not_above(name: str) -> Term:
    """0 where ``s_ij <= t_i`` and -inf where ``s_ij > t_i``, for the row vector ``name``; NaN stays
    NaN. It bounds the score itself, before theta, sign, shift and pace; a column channel, too, has
    the bounds of the rows. It drops negatives that score above their row's positive, without a
    second form."""
    return Term("not_above", (name,))


@dataclass(frozen=True, eq=False)
class Channel:
    """The fields that the four kinds share. All ``pairs`` tests must pass; ``weight`` terms are
    summed."""

    kind: ClassVar[str]
    #: names of the values that the channel returns
    returns: ClassVar[tuple[str, ...]] = ("value",)
    #: names of the kind's fields in addition to axis, pairs and weight
    fields: ClassVar[tuple[str, ...]] = ()
    #: the channel as JSON, and the part of it without axis and pairs; the names of operands that
    #: are compared; those that are forms; all of them, by axis
    text: ClassVar[str]
    numbers: ClassVar[str]
    ids: ClassVar[frozenset[str]]
    forms: ClassVar[frozenset[str]]
    called: ClassVar[dict[Axis, frozenset[str]]]
    #: those of ``called`` that tests and weights read, so that they get no gradient
    fixed: ClassVar[dict[Axis, frozenset[str]]]
    _: KW_ONLY
    axis: Axis = ROW
    pairs: tuple[Test, ...] = ()
    weight: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("axis", self.axis, (ROW, COL))
        found: dict[str, Any] = {
            "pairs": members("pairs", self.pairs, Test, "tests"),
            "weight": members("weight", self.weight, Term, "terms"),
        }
        for field in self.fields:
            value = getattr(self, field)
            if field == "shift" and value is not None:
                _check_name(value, "shift")
            elif field in ("theta", "sign") or (field == "relax" and value is not None):
                found[field] = _finite(field, value)
        for field, value in found.items():
            object.__setattr__(self, field, value)
        object.__setattr__(self, "numbers", self._numbers())
        self._derive()

    def adapted(self, pairs: tuple[Test, ...], axis: Axis) -> Channel:
        """The channel with other tests and another axis. It reads no number, so that a compiler
        that treats numbers as variables can trace it."""
        other = object.__new__(type(self))
        for name in (*self.fields, "weight", "numbers"):
            object.__setattr__(other, name, getattr(self, name))
        object.__setattr__(other, "pairs", pairs)
        object.__setattr__(other, "axis", axis)
        other._derive()
        return other

    # by one string, whose hash is cached; a dataclass would compare and hash every field
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Channel) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def _derive(self) -> None:
        """Computes what calls need of a channel once, so that calls stay cheap and traceable."""

        def names(*kinds: str) -> frozenset[str]:
            return frozenset(n for term in self.weight if term.kind in kinds for n in term.names)

        ids = frozenset(test.name for test in self.pairs) | names("differing")
        forms = names("form", "log_form", "at_most")
        both = ids | forms | names("distance")
        fixed = {ROW: both | names(*ROW_TERMS), COL: both | names("col")}
        shift = getattr(self, "shift", None)
        shifts = {self.axis: frozenset(() if shift is None else (shift,))}
        called = {a: fixed[a] | shifts.get(a, frozenset()) for a in (ROW, COL)}
        derived = {
            "text": self._text(),
            "ids": ids,
            "forms": forms,
            "called": called,
            "fixed": fixed,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _text(self) -> str:
        """JSON, built from plain strings, since a channel may be created while a compiler
        traces."""
        pairs = ", ".join([f'["{t.op}", "{t.name}", {t.width}]' for t in self.pairs])
        return (
            f'{{"kind": "{self.kind}", "axis": "{self.axis}", "pairs": [{pairs}], {self.numbers}}}'
        )

    def _numbers(self) -> str:
        """The part of the text that holds the weight and the kind's own fields."""
        terms = []
        for term in self.weight:
            names = ", ".join([f'"{name}"' for name in term.names])
            terms.append(f'["{term.kind}", [{names}], {term.value}]')
        own = ""
        for field in self.fields:
            value = getattr(self, field)
            own += f', "{field}": ' + (
                "null" if value is None else f'"{value}"' if isinstance(value, str) else f"{value}"
            )
        return f'"weight": [{", ".join(terms)}]{own}'


@dataclass(frozen=True, eq=False)
class LSE(Channel):
    """``log sum exp(theta s + w)``; ``theta=0`` gives the log of the weighted count.

    With ``relax`` m the exponent is that of circle loss: ``theta [s + m]_+ (s - m) + w`` and, for a
    negative theta, ``theta [1 + m - s]_+ (s - 1 + m) + w``. The pace ``[...]_+`` carries no
    gradient: the nearer a pair is to its optimum, -m or 1 + m, the less it counts.
    """

    kind = "LSE"
    fields = ("theta", "relax")
    theta: float = 1.0
    relax: float | None = None


@dataclass(frozen=True, eq=False)
class SUM(Channel):
    """``sum e^w psi(sign (s - shift))`` with psi one of :data:`PSI`. ``shift`` names a vector along
    the channel's own axis; it may be an earlier statistic and carry a gradient."""

    kind = "SUM"
    fields = ("psi", "sign", "shift")
    psi: str = "id"
    sign: float = 1.0
    shift: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("psi", self.psi, PSI)


@dataclass(frozen=True, eq=False)
class EXPECT(Channel):
    """``sum p s`` under the softmax ``p`` of ``theta s + w``, and that softmax's log-sum-exp."""

    kind = "EXPECT"
    returns = ("value", "lse")
    fields = ("theta",)
    theta: float = 1.0


@dataclass(frozen=True, eq=False)
class MAX(Channel):
    """``max sign * s`` and its index. ``sign=-1`` gives minus the smallest score. The index is -1
    for an empty set, whose value is -inf, and if a score is NaN, when the value is NaN."""

    kind = "MAX"
    returns = ("value", "index")
    fields = ("sign",)
    sign: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight:
            raise ValueError(f"weight: got {len(self.weight)}, expected none: MAX takes only tests")
