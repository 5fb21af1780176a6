"""The normal tests catch a fault of each kind."""

import pytest
from mutants import MUTANTS, PACKAGE, caught

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=str)


@every_mutant
def test_its_text_is_there_once(mutant):
    assert (PACKAGE / mutant.file).read_text().count(mutant.old) == 1


def test_they_are_of_many_kinds():
    assert len({mutant.kind for mutant in MUTANTS}) == len(MUTANTS) >= 25


@pytest.mark.extra
@every_mutant
def test_it_is_caught(mutant, tmp_path):
    done = caught(mutant, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr  # tests were collected, and failed
    assert " failed" in done.stdout
