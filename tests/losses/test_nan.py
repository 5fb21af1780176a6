"""NaN in, NaN out: for every loss and backend, whichever rows contain NaN."""

import inspect
import math

import pytest
import torch

from contrastloss.losses import LOSSES, RowLoss
from contrastloss.testing import example

#: losses that sort scores, for which NaN is an error
REFUSED = ("diff_sort", "spearman", "topk_cross_entropy")
#: which rows of an input are NaN; "number" is a single component of one row
ROWS = {
    "one": lambda n: slice(n // 2, n // 2 + 1),
    "number": lambda n: slice(n // 2, n // 2 + 1),
    "block": lambda n: slice(n // 3, n - n // 6),
    "all": lambda n: slice(None),
}
#: number of instances, and which of them are NaN; 60 of 120 rows cover whole tiles
CASES = ((1, "all"), (1, "number"), (8, "one"), (8, "number"), (8, "all"), (120, "block"))


def everything_takes_part(name, values):
    """Example inputs in which no label, mask, index or selection excludes a row."""
    values = list(values)
    if name in ("proto_nce", "selfcon"):  # -1 means no cluster or no label
        values[-1] = values[-1].clamp_min(0)
    elif name == "bank_contrastive":
        values[3:] = [torch.zeros_like(v) for v in values[3:]]
    elif name in ("jepa", "latent_positive", "region_attribute"):
        values[-1] = torch.ones_like(values[-1])
    elif name == "sampled":
        n, size = len(values[0]), len(values[1])
        everyone = torch.arange(size).expand(n, size)
        values[2] = torch.cat([torch.arange(n)[:, None], everyone], 1)
    elif name == "mil_contrastive":  # bags of one snippet, all of them positive
        values = [*(v[:, :1] for v in values[:4]), torch.ones_like(values[4])]
    return values


def inputs_of(name, n, partners=True):
    cls = LOSSES[name]
    values = example(cls, n, 5, torch.Generator().manual_seed(0))
    values = everything_takes_part(name, values)
    names = list(inspect.signature(cls.forward).parameters)[1:]
    if not partners and "labels" in names[: len(values)]:
        place = names.index("labels")
        if not values[place].is_floating_point() and values[place].ndim == 1:
            values[place] = torch.arange(len(values[place]))
    return values


def spoiled(values, place, where):
    """The inputs, with NaN in some rows of input ``place``."""
    value = values[place].clone()
    rows = value[ROWS[where](len(value))]
    (rows.flatten()[-1:] if where == "number" else rows).fill_(math.nan)
    return [*values[:place], value, *values[place + 1 :]]


def hidden(name, values, where, options):
    """The inputs whose NaN does not appear in the reduced loss or in the loss of its own row."""
    cls, found = LOSSES[name], []
    for place, value in enumerate(values):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        bad = spoiled(values, place, where)
        for reduction in ("mean", "sum", "none") if issubclass(cls, RowLoss) else ("whole",):
            if reduction == "sum" and where != "one":
                continue
            more = {} if reduction == "whole" else {"reduction": reduction}
            shown = cls(**options, **more)(*bad).isnan()
            if reduction == "none":
                shown = of_rows(shown, where, len(value))
            if not shown.all():
                found.append(f"input {place}, {reduction}")
    return found


def of_rows(shown, where, n):
    """Which spoiled rows have a NaN loss (in any view); without losses per row, whether any has."""
    if len(shown) not in (n, 2 * n):
        return shown.any()
    shown = shown.view(-1, n, *shown.shape[1:]).transpose(0, 1)[ROWS[where](n)]
    return shown.flatten(1).any(1)


def options_of(name, backend):
    cosines = "normalize" in LOSSES[name].__dataclass_fields__
    return [{"backend": backend}, *[{"backend": backend, "normalize": False}] * cosines]


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {*REFUSED}))
def test_nan_is_not_hidden(name, backend, device):
    found = []
    for n, where in CASES:
        values = [v.to(device) if hasattr(v, "to") else v for v in inputs_of(name, n)]
        for options in options_of(name, backend)[: 2 if where == "all" else 1]:
            assert not LOSSES[name](**options)(*values).isnan().any()
            lines = hidden(name, values, where, options)
            found += [f"{where} of {n}, {options}: {line}" for line in lines]
    assert not found, "\n".join(found)


LABELLED = sorted(
    name
    for name in LOSSES.keys() - {*REFUSED}
    if "labels" in inspect.signature(LOSSES[name].forward).parameters
    and name not in ("bank_contrastive", "mil_contrastive", "region_attribute", "sepclr", "simlap")
)


@pytest.mark.parametrize("name", LABELLED)
def test_nan_of_a_row_without_a_partner(name, backend, device):
    """NaN appears in the loss although the row is not counted."""
    values = [v.to(device) for v in inputs_of(name, 8, partners=False)]
    assert not hidden(name, values, "one", {"backend": backend})


@pytest.mark.parametrize("name", REFUSED)
def test_nan_cannot_be_sorted(name):
    values = spoiled(inputs_of(name, 8), 0, "one")
    with pytest.raises(ValueError, match=r"^x: got NaN, expected numbers that can be sorted"):
        LOSSES[name]()(*values)


def test_ignored_values_may_be_nan(backend, device):
    """Values excluded by a mask, a label or an index."""
    x, y = torch.randn(2, 6, 4, device=device)
    ids = torch.tensor([0, 1, -1, 0, 1, 0], device=device)
    x[2] = math.nan
    there = ids >= 0
    index = torch.where(there[:, None], torch.tensor([0, 3, 5], device=device), -1)
    calls = {
        "proto_nce": (x, y, ids),
        "sampled": (x, y, index),
        "selfcon": (x[:, None], ids),
        "jepa": (x, y, x, there, torch.zeros_like(there)),
        "region_attribute": (x.view(2, 3, 4), y, torch.ones(2, 6, dtype=torch.bool, device=device)),
        "simctg": (x[None],),
    }
    masks = {"region_attribute": {"valid": there.view(2, 3)}, "simctg": {"valid": there[None]}}
    for name, values in calls.items():
        assert LOSSES[name](backend=backend)(*values, **masks.get(name, {})).isfinite(), name
