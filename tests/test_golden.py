"""The record of outputs covers every option and argument, and detects a changed bit."""

import copy

import pytest
import torch
from golden.cases import cases
from golden.record import alone, differences, distance, record

from contrastloss.losses import LOSSES
from contrastloss.losses.clip import CLIPLoss

#: options without effect on the example: it has no second positive and no distance of exactly 0
WITHOUT_EFFECT = {("cacr", "t_positive"), ("clan", "eps")}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_option_and_argument_changes_the_output(name):
    """Otherwise a refactoring could lose the option, and the record would not show it."""
    first, *others = cases(name)
    default = alone(first, torch.float32, "reference")
    for case in others:
        if (name, case.what.split(" = ")[0]) not in WITHOUT_EFFECT:
            assert alone(case, torch.float32, "reference") != default, case.what


def test_a_changed_bit_is_seen(monkeypatch):
    want = record("reference", ["clip", "siglip"], None)
    assert not list(differences(record("reference", ["clip", "siglip"], None), want, None))
    scaled = CLIPLoss.scaled
    monkeypatch.setattr(CLIPLoss, "scaled", lambda *args: scaled(*args) * (1 + 1e-5))
    got = record("reference", ["clip", "siglip"], None)
    lines = list(differences(got, want, None))
    assert len(lines) == len(want["clip"])
    assert all(line.startswith("clip, ") for line in lines)
    assert not list(differences(got, want, 1e-3))


def test_what_is_missing_is_seen():
    want = {"clip": {"default": [["00", 1.0, 2.0]]}}
    got = {"siglip": copy.deepcopy(want["clip"])}
    assert list(differences(got, want, None)) == [
        "clip, default: gone", "siglip, default: not in the record"
    ]  # fmt: skip
    nan = float("nan")
    assert distance([["00", 1.0, nan]], [["01", 1.0, nan]]) == 0.0
    assert distance([["00", 1.0, nan]], [["01", 1.0, 1.0]]) == float("inf")
    assert distance([["00", 1.0, 2.5]], [["01", 1.0, 2.0]]) == 0.25
