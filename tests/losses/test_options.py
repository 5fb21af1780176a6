"""Every option of every loss is checked against its annotation, in the constructor and when it is
set later. An invalid value raises an error that names the option and leaves the loss unchanged."""

import inspect
import math
import re
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contrastloss import CircleLoss, CLIPLoss, CosineLoss, RecallAtKLoss, SupConLoss, TripletLoss
from contrastloss.losses import LOSSES, CrossLoss
from contrastloss.options import declared, spelled

#: numbers that a bound may reject
EDGES = (-math.inf, -1e9, -1.0, -1e-9, 0.0, 1e-320, 0.5, 1.0, 1.5, 2.0, 1e9, 1e300, math.inf)
#: options that are checked together with other options
TOGETHER = {("cosine", "power"), ("topk_cross_entropy", "weights")}


def choices(hint):
    return get_args(hint) if type(None) in get_args(hint) or Tensor in get_args(hint) else (hint,)


def cases():
    for name, cls in LOSSES.items():
        for option, hint in declared(cls).items():
            yield pytest.param(cls, option, choices(hint), id=f"{name}-{option}")


def misfits(parts):
    """Values that no part of an annotation accepts."""
    yield from ([1], {}, b"1", object(), torch.ones(2, 2), torch.ones((), dtype=torch.int64))
    kinds = {get_args(p)[0] if get_origin(p) is Annotated else p for p in parts}
    if not kinds & {float, int}:
        yield from (1.5, 7)
    if kinds & {float, int}:
        yield from (10**400, -(10**400), 10**5000, math.nan, math.inf, "1", True, np.bool_(1))
        for part in parts:
            if get_origin(part) is Annotated:
                kind, bound = get_args(part)
                yield from (v for v in EDGES if not (bound.fits(v) and kind is float))
    if int in kinds:
        yield 2.0
    if str not in kinds:
        yield "no such value"
    if Tensor not in kinds:
        yield torch.tensor(0.5)


@pytest.mark.parametrize(("cls", "option", "parts"), cases())
def test_invalid_values_are_rejected(cls, option, parts):
    if option == "group" or get_origin(parts[0]) not in (None, Annotated, Literal):
        return  # tested in tests/distributed and below
    loss = cls()
    before = getattr(loss, option)
    for value in misfits(parts):
        scalar = isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 0
        if scalar and Tensor in parts:
            continue
        with pytest.raises((TypeError, ValueError), match=f"^{option}: got .*, expected"):
            cls(**{option: value})
        with pytest.raises((TypeError, ValueError), match=f"^{option}: got .*, expected"):
            setattr(loss, option, value)
        assert getattr(loss, option) is before


@pytest.mark.parametrize(("cls", "option", "parts"), cases())
def test_valid_values_are_accepted(cls, option, parts):
    """Values of ``Literal``, values at the bounds, and numpy numbers."""
    name = next(k for k, v in LOSSES.items() if v is cls)
    for part in parts:
        if get_origin(part) is Literal:
            for value in get_args(part):
                assert getattr(cls(**{option: value}), option) == value
        elif get_origin(part) is Annotated and (name, option) not in TOGETHER:
            kind, bound = get_args(part)
            for value in filter(bound.fits, (0.25, 1, 2)):
                if kind is int and value != int(value):
                    continue
                given = np.float32(value) if kind is float else np.int64(value)
                found = getattr(cls(**{option: given}), option)
                assert found == value
                assert type(found) is kind


def test_sequences():
    assert RecallAtKLoss(ks=[1, 2]).ks == (1, 2)
    for bad in ((), (1, 0), (1.5,), 3, "12", (1, 1 << 32), torch.ones(2)):
        with pytest.raises((TypeError, ValueError), match=r"^ks: got .*, expected"):
            RecallAtKLoss(ks=bad)
    weights = LOSSES["topk_cross_entropy"]
    assert weights(weights=[0.5, 0.5]).weights == (0.5, 0.5)
    for bad in ((1, 1), (-1, 2), ("1",), (10**400, 1), 1.0):
        with pytest.raises((TypeError, ValueError), match=r"^weights: got .*, expected"):
            weights(weights=bad)


def test_setting_an_option_changes_the_loss():
    z, labels = torch.randn(12, 5), torch.arange(12) % 3
    for cls, option, value in (
        (CircleLoss, "gamma", 7.0),
        (CircleLoss, "m", 0.1),
        (SupConLoss, "variant", "in"),
        (TripletLoss, "mining", "hard"),
    ):
        loss = cls()
        old = loss(z, labels)
        setattr(loss, option, value)
        new = loss(z, labels)
        assert torch.equal(new, cls(**{option: value})(z, labels))
        assert not torch.equal(old, new)


def test_incompatible_options_are_rejected_when_set():
    loss = CosineLoss(pairs="all")
    with pytest.raises(ValueError, match=r"^power: got 2.0, expected 1 with pairs='all'"):
        loss.power = 2.0
    assert loss.power == 1.0


REFUSED = [(cls, option) for cls in LOSSES.values() for option in getattr(cls, "without", ())]


@pytest.mark.parametrize(("cls", "option"), REFUSED)
def test_options_that_a_formula_does_not_allow_are_rejected_with_the_reason(cls, option):
    message = f"^{option}: got True, expected none: {re.escape(cls.without[option])}"
    with pytest.raises(ValueError, match=message):
        cls(**{option: True})
    if option not in declared(cls):
        return
    loss = cls()
    with pytest.raises(ValueError, match=message):
        setattr(loss, option, True)
    assert not getattr(loss, option)


def test_a_parameter_can_replace_a_number():
    loss = CLIPLoss()
    loss.temperature = nn.Parameter(torch.tensor(0.3))
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    x, y = torch.randn(2, 6, 3)
    assert torch.equal(loss(x, y), CLIPLoss(temperature=torch.tensor(0.3))(x, y))


def test_bounds_of_a_temperature():
    """Its reciprocal is an fp32 scale; both have to be normal finite numbers."""
    x = torch.randn(4, 3)
    for value in (2.0**-126, 2.0**126, 1):
        assert not CLIPLoss(value)(x, x).isnan()
    for value in (1e-39, 1e-320, 1e39):
        with pytest.raises(ValueError, match=r"^temperature: got .*, expected a positive number "):
            CLIPLoss(value)


def test_user_defined_losses_are_checked():
    class Own(CrossLoss):
        temperature: float = 1.0
        mode: Literal["a", "b"] = "a"

    with pytest.raises(ValueError, match=r"^mode: got 'c', expected one of a, b"):
        Own(mode="c")
    with pytest.raises(TypeError, match=r"^temperature: got str, expected a float"):
        Own("1")


def test_annotations_are_spelled_without_bounds():
    assert spelled(declared(CLIPLoss)["temperature"]) == "float | Tensor"
    assert spelled(declared(TripletLoss)["positives"]) == "int | None"
    assert spelled(declared(RecallAtKLoss)["ks"]) == "Sequence[int]"
    assert spelled(declared(SupConLoss)["variant"]) == "Literal['out', 'in']"


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_argument_is_documented(name):
    """Options of the class itself, and the arguments of ``forward``, but for those of all losses of
    pair scores."""
    cls = LOSSES[name]
    doc = inspect.getdoc(cls)
    if "Same as :class:" in doc:
        doc += inspect.getdoc(cls.__mro__[1]) + inspect.getdoc(LOSSES["moco"])
    everywhere = {"logit_scale", "logit_bias"}
    own = [option for option in declared(cls) if option in inspect.get_annotations(cls)]
    for argument in [*own, *sorted(set(cls.arguments) - everywhere)]:
        assert re.search(rf"^\s+([\w, ]+, )?{argument}(, [\w, ]+)?:", doc, re.MULTILINE), argument


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_compiled_function_prepares_again_for_what_prepare_reads(name):
    """An option that changes what ``prepare`` makes is among those for which it is called."""
    cls = LOSSES[name]
    loss = cls()
    before = {key: loss.__dict__[key] for key in loss.prepared}
    for option, values in OTHER_VALUES.items():
        if option not in declared(cls) or option in cls.OWN:
            continue
        for value in values:
            try:
                setattr(loss, option, value)
            except (TypeError, ValueError):
                continue
            assert {key: loss.__dict__[key] for key in loss.prepared} == before, option


#: values of options that several losses share
OTHER_VALUES = {
    "temperature": [0.31], "normalize": [False], "reduction": ["sum", "none"], "loss_weight": [2.0],
    "validate": [True], "return_stats": [True], "variant": ["in", "out"], "label_smoothing": [0.3],
    "in_batch_negatives": [False], "gather_negatives": [False], "ignore_index": [0, None],
    "backend": ["reference"], "equal_sizes": [True], "strategy": ["ring"],
}  # fmt: skip
