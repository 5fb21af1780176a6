"""Ranks that choose backends by different times."""

import pytest
from preferring import told

SAID = (
    "group: {} and rank 0 choose backends by different times, of `python -m contrastloss tune`, or "
    "by CONTRASTLOSS_BACKEND: results may differ in their last bits. CONTRASTLOSS_TUNED names a "
    "file that all ranks can read"
)


@pytest.mark.parametrize(
    ("seconds", "who"),
    [
        ((None, None, None), None),
        ((1.0, 1.0, 1.0), None),
        ((1.0, 2.0, 1.0), "rank 1"),
        ((None, 1.0, 1.0), "ranks 1, 2"),
    ],
)
def test_one_warning_names_the_ranks_and_determinism_makes_it_an_error(ranks, seconds, who):
    said = [SAID.format(who)] if who else []
    assert ranks.run(told, 3, seconds, False) == [said] * 3
    error = [f"ValueError: {text}" for text in said]
    assert ranks.run(told, 3, seconds, True) == [error] * 3
