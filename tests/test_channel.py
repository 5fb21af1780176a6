"""Channels are values: frozen, hashable, and unchanged after encoding as the schema's string."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Program,
    col_weight,
    differing,
    differs,
    distance,
    form,
    precedes,
    row_weight,
    same,
    within,
)

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
    st.builds(lambda n, log, eps: form(n, log=log, eps=eps), NAMES, st.booleans(), FINITE),
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
            ValueError, match=r"^name: got .*, expected a printable name without quotes"
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
        (lambda: LSE(axis="rows"), ValueError, r"axis: got 'rows', expected 'row' or 'col'"),
        (lambda: LSE(math.nan), ValueError, r"theta: got nan, expected a finite number"),
        (lambda: EXPECT(math.inf), ValueError, r"theta: got inf, expected a finite number"),
        (lambda: MAX(math.inf), ValueError, r"sign: got inf, expected a finite number"),
        (lambda: SUM("gelu"), ValueError, r"psi: got 'gelu', expected one of one, id, square"),
        (lambda: LSE(pairs=("a",)), TypeError, r"pairs: got \('a',\), expected a tuple of tests"),
        (lambda: LSE(pairs=same("a")), TypeError, r"pairs: got .*, expected a tuple of tests"),
        (lambda: LSE(weight=(same("a"),)), TypeError, r"weight: got .*, expected a tuple of terms"),
        (lambda: MAX(weight=(row_weight("u"),)), ValueError, r"weight: got .*, expected none"),
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
