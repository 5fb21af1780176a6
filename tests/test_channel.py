"""Channels are values: frozen, hashable, and unchanged after encoding as the schema's string."""

import dataclasses
import math

import pytest
from hypothesis import given, strategies as st

from contrastloss import channel as ch
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    ROW,
    SUM,
    at_most,
    col_weight,
    differing,
    differs,
    distance,
    form,
    not_above,
    precedes,
    row_weight,
    same,
    within,
)
from contrastloss.program import Program

NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\\'), min_size=1, max_size=8)
NAMES = NAMES.filter(str.isprintable)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TESTS = st.one_of(
    st.builds(same, NAMES),
    st.builds(differs, NAMES),
    st.builds(precedes, NAMES),
    st.builds(within, NAMES, st.integers(0, 2**40)),
)
TERMS = st.one_of(
    st.builds(row_weight, NAMES),
    st.builds(col_weight, NAMES),
    st.builds(distance, NAMES, FINITE),
    st.builds(lambda names: differing(*names), st.lists(NAMES, min_size=1, max_size=3)),
    st.builds(form, NAMES, log=st.just(False), eps=FINITE),
    st.builds(form, NAMES, log=st.just(True), eps=FINITE.map(abs)),
    st.builds(at_most, NAMES),
    st.builds(not_above, NAMES),
)
SHARED = {
    "axis": st.sampled_from([ROW, COL]),
    "pairs": st.lists(TESTS, max_size=3).map(tuple),
    "weight": st.lists(TERMS, max_size=3).map(tuple),
}
CHANNELS = st.one_of(
    st.builds(LSE, FINITE, **SHARED),
    st.builds(EXPECT, FINITE, **SHARED),
    st.builds(SUM, st.sampled_from(PSI), FINITE, st.none() | NAMES, **SHARED),
    st.builds(MAX, FINITE, **{k: v for k, v in SHARED.items() if k != "weight"}),
)


@given(st.lists(CHANNELS, max_size=4).map(tuple))
def test_a_program_survives_its_string(channels):
    program = Program(channels, ("a", "b"), (INDEX,))
    again = Program.decode(program.text)
    assert again == program
    assert hash(again) == hash(program)
    assert [type(c) for c in again.channels] == [type(c) for c in channels]
    assert again.features == program.features


@pytest.mark.parametrize("name", ["ä", " ", "it's", "[]{}:"])
def test_names_are_free(name):
    program = Program((LSE(pairs=(same(name),)),), (name,), (name,))
    assert Program.decode(program.text) == program


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline"])
def test_names_that_would_break_the_string(name):
    for make in (lambda: LSE(pairs=(same(name),)), lambda: SUM(shift=name)):
        with pytest.raises(
            ValueError, match=r"^(name|shift): got .*, expected a printable name without quotes"
        ):
            make()


def test_channels_are_frozen():
    channel = LSE(2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        channel.theta = 1.0
    assert channel.theta == 2.0


def test_equal_channels_are_one_key():
    assert LSE(1.0, pairs=(same("a"),)) == LSE(pairs=(same("a"),))
    assert len({LSE(), LSE(1.0), LSE(2.0), EXPECT(), LSE(axis=COL)}) == 4
    assert LSE() != EXPECT()


def test_options_of_all_channels_are_keywords():
    with pytest.raises(TypeError):
        LSE(1.0, COL)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: LSE(axis="rows"), ValueError, r"axis: got 'rows', expected one of row, col"),
        (lambda: LSE(math.nan), ValueError, r"theta: got nan, expected a finite number"),
        (lambda: EXPECT(math.inf), ValueError, r"theta: got inf, expected a finite number"),
        (lambda: MAX(math.inf), ValueError, r"sign: got inf, expected a finite number"),
        (lambda: SUM("gelu"), ValueError, r"psi: got 'gelu', expected one of one, id, square"),
        (
            lambda: LSE(pairs=("a",)),
            TypeError,
            r"pairs: got a tuple with str, expected a tuple of tests",
        ),
        (lambda: LSE(pairs=same("a")), TypeError, r"pairs: got .*, expected a tuple of tests"),
        (lambda: LSE(weight=(same("a"),)), TypeError, r"weight: got .*, expected a tuple of terms"),
        (lambda: MAX(weight=(row_weight("u"),)), ValueError, r"weight: got .*, expected none"),
        (lambda: LSE(True), TypeError, r"theta: got bool, expected a number"),
        (lambda: LSE(relax=True), TypeError, r"relax: got bool, expected a number"),
        (lambda: LSE("a"), TypeError, r"theta: got str, expected a number"),
        (lambda: SUM(shift=3), TypeError, r"shift: got int, expected a string"),
        (lambda: ch.Test("gt", "a"), ValueError, r"op: got .gt., expected one of eq, ne, lt"),
        (lambda: same(3), TypeError, r"name: got int, expected a string"),
        (lambda: within("a", 1.5), TypeError, r"width: got float, expected an integer"),
        (lambda: within("a", True), TypeError, r"width: got bool, expected an integer"),
        (lambda: within("a", 2**63), ValueError, r"width: got an integer beyond int64"),
        (lambda: distance("a", math.inf), ValueError, r"coefficient: got inf, expected a finite"),
        (lambda: distance("a", "x"), TypeError, r"coefficient: got str, expected a number"),
        (lambda: form("a", eps=math.nan), ValueError, r"eps: got nan, expected a finite number"),
        (lambda: form("a", log=True, eps=-1), ValueError, r"eps: got -1, expected a .*>= 0"),
        (lambda: ch.Term("zz", ("a",)), ValueError, r"kind: got 'zz', expected one of row, col"),
        (lambda: ch.Term("row", ("a", "b")), ValueError, r"names: got 2, expected one"),
        (lambda: ch.Term("row", "a"), TypeError, r"names: got str, expected a tuple of names"),
        (differing, ValueError, r"names: got 0, expected one"),
    ],
)
def test_bad_channel(make, kind, message):
    with pytest.raises(kind, match=f"^{message}"):
        make()


def test_operands_by_axis():
    program = Program(
        (
            SUM(shift="c", axis=COL, pairs=(same("a"),)),
            LSE(weight=(row_weight("u"), form("t"), distance("age"), differing("p", "q"))),
        ),
        ("u", "a", "t", "age", "p", "q"),
        ("c", "a", "t", "age", "p", "q"),
    )
    both = {"a", "t", "age", "p", "q"}
    assert program.called[ROW] == both | {"u"}
    assert program.called[COL] == both | {"c"}
    assert program.shifts[ROW] == ()
    assert program.shifts[COL] == ("c",)
    assert program.ids == {"a", "p", "q"}
    assert program.forms == {"t"}


def test_features_are_the_words_of_the_tables():
    program = Program(
        (SUM("relu", shift="c", pairs=(within("a", 2),)), MAX(), LSE(weight=(form("t", log=True),)))
    )
    assert program.features == {
        "SUM relu", "shift", "test within", "MAX", "LSE", "weight log_form",
    }  # fmt: skip


def test_what_is_exported_exists():
    assert all(hasattr(ch, name) for name in ch.__all__)
