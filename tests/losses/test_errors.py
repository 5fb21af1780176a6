"""Invalid options and inputs: the message has the argument, the value and what was expected."""

import math
import re

import pytest
import torch

from contrastloss import functional
from contrastloss.losses import LOSSES, PairLoss, TwoViewLoss
from contrastloss.losses.base.label_loss import LabelLoss
from contrastloss.testing import Subject, example

#: the losses that accept a group
PAIRS = {name: cls for name, cls in LOSSES.items() if issubclass(cls, PairLoss)}


def declared(name):
    """The shapes of the first two inputs."""
    cls = LOSSES[name]
    return [cls.inputs.get(argument, "") for argument in cls.positional[:2]]


#: the losses of a matrix, of two matrices with equal shapes, and of rows with labels
MATRICES = [name for name in PAIRS if declared(name)[0].startswith("N D")]
PAIRED = [name for name in MATRICES if declared(name) == ["N D", "N D"]]
LABELLED = [name for name in MATRICES if declared(name) == [*LabelLoss.inputs.values()]]
every_loss = pytest.mark.parametrize("name", PAIRS)
every_matrix = pytest.mark.parametrize("name", MATRICES)
every_pair = pytest.mark.parametrize("name", PAIRED)


def inputs(name, n=4):
    return Subject(PAIRS[name]).inputs(n=n, d=3, dtype=torch.float32)


def first(name):
    return PAIRS[name].positional[0]


def second(name):
    return PAIRS[name].positional[1]


# One loss with every value that a check rejects, and every loss with one value of every check.


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("temperature", 0.0, ValueError),
        ("temperature", -0.1, ValueError),
        ("temperature", math.nan, ValueError),
        ("temperature", math.inf, ValueError),
        ("temperature", "0.1", TypeError),
        ("temperature", True, TypeError),
        ("temperature", torch.ones(2, 2), ValueError),
        ("temperature", torch.tensor(1), TypeError),
        ("reduction", "average", ValueError),
    ],
    ids=repr,
)
def test_bad_option(option, value, kind):
    with pytest.raises(kind, match=f"^{option}: got .*, expected"):
        PAIRS["clip"](**{option: value})
    with pytest.raises(kind, match=f"^{option}: got .*, expected"):
        functional.clip(*inputs("clip"), **{option: value})


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("logit_scale", 0.0, ValueError),
        ("logit_scale", -1.0, ValueError),
        ("logit_scale", torch.ones(4), ValueError),
        ("logit_scale", "1", TypeError),
        ("logit_bias", torch.ones(4), ValueError),
        ("logit_bias", "1", TypeError),
    ],
    ids=repr,
)
def test_bad_override(option, value, kind):
    with pytest.raises(kind, match=f"^{option}: got .*, expected"):
        PAIRS["clip"]()(*inputs("clip"), **{option: value})


@every_loss
def test_options_are_checked(name):
    loss, values = PAIRS[name], inputs(name)
    for options, kind, message in (
        ({"temperature": 0.0}, ValueError, "temperature: got .*, expected"),
        ({"reduction": "average"}, ValueError, "reduction: got .*, expected"),
        ({"temprature": 0.1}, TypeError, ".*temprature"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            loss(**options)
        with pytest.raises(kind, match=f"^{message}"):
            getattr(functional, name)(*values, **options)
    with pytest.raises(ValueError, match=r"^backend: got 'gpu', expected None or one of"):
        loss(backend="gpu")(*values)
    rows = values[0].shape[:-1].numel()
    fits = rf" or \({rows},\)" if "temperature" in loss.VECTORS else ""
    with pytest.raises(ValueError, match=rf"^temperature: got shape \(3,\), expected \(\){fits}$"):
        loss(temperature=torch.ones(3))(*values)
    for option in ("logit_scale", "logit_bias"):
        with pytest.raises(ValueError, match=f"^{option}: got .*, expected"):
            loss()(*values, **{option: torch.ones(4)})


@every_matrix
def test_dtype_of_the_embeddings(name):
    x, other, *rest = inputs(name)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"^{first(name)}: got dtype {dtype}, expected one of"):
            PAIRS[name]()(x.to(dtype), other, *rest)


@every_matrix
def test_rank_of_the_embeddings(name):
    x, other, *rest = inputs(name)
    expected = rf"^{first(name)}: got shape \(.*\), expected \(N, D\)"
    for bad in (x[0], x[None, None], x[:, :0]):
        with pytest.raises(ValueError, match=expected):
            PAIRS[name]()(bad, other, *rest)


@every_matrix
def test_embeddings_that_are_not_tensors(name):
    x, other, *rest = inputs(name)
    with pytest.raises(TypeError, match=f"^{first(name)}: got list, expected a tensor"):
        PAIRS[name]()(x.tolist(), other, *rest)


@every_pair
def test_views_that_differ(name):
    x, y, *rest = inputs(name)
    loss, (one, two) = PAIRS[name](), (first(name), second(name))
    for bad in (y[:3], y[:, :2], y[0], y[None]):
        with pytest.raises(
            ValueError, match=rf"^{two}: got shape \(.*\), expected {one}'s \(4, 3\)"
        ):
            loss(x, bad, *rest)
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(
            TypeError, match=f"^{two}: got dtype {dtype}, expected {one}'s torch.fl"
        ):
            loss(x, y.to(dtype), *rest)
    hint = "; labels are for losses such as SupConLoss$" if two == "y" else ""
    with pytest.raises(TypeError, match=f"^{two}: got dtype torch.int64, expected one of .*{hint}"):
        loss(x, y.long(), *rest)
    with pytest.raises(TypeError, match=f"^{two}: got list, expected a tensor"):
        loss(x, y.tolist(), *rest)
    with pytest.raises(ValueError, match=f"^{two}: got device meta, expected {one}'s cpu"):
        loss(x, y.to("meta"), *rest)


@every_pair
def test_dtypes_may_differ_under_autocast(name):
    x, y, *rest = inputs(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert PAIRS[name]()(x, y.bfloat16(), *rest).dtype == torch.float32
        with pytest.raises(TypeError, match=f"^{second(name)}: got dtype torch.float64"):
            PAIRS[name]()(x, y.double(), *rest)


@every_matrix
def test_validate_names_the_input(name):
    for position, argument in enumerate((first(name), second(name))):
        for bad in (math.nan, math.inf, -math.inf):
            values = inputs(name)
            if position >= len(values) or not values[position].is_floating_point():
                continue  # labels are integers
            values[position][1, 2] = bad
            message = f"^{argument}: got NaN or infinity in 1 of {len(values[position])} rows"
            with pytest.raises(ValueError, match=message):
                PAIRS[name](validate=True)(*values)
    PAIRS[name](validate=True)(*inputs(name))


@pytest.mark.parametrize("name", LABELLED)
def test_labels(name):
    z, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    for bad, kind, message in (
        (labels[:3], ValueError, r"got shape \(3,\), expected \(4,\)"),
        (labels.float(), TypeError, r"got dtype torch.float32, expected an integer one"),
        ([0.5, 0, 1, 1], TypeError, r"got dtype torch.float32, expected an integer one"),
        (["a"] * 4, TypeError, r"got list, expected a tensor"),
        (labels.to_sparse(), TypeError, r"got a tensor of layout torch.sparse_coo, expected a den"),
        (labels.to("meta"), ValueError, r"got device meta, expected"),
    ):
        with pytest.raises(kind, match=f"^labels: {message}"):
            PAIRS[name]()(z, bad)
    labels = torch.tensor([0, 0, 1, 1])
    for given in (labels[:, None], labels.tolist(), labels.numpy(), labels.int(), labels > 0):
        assert torch.equal(PAIRS[name]()(z, given), PAIRS[name]()(z, labels))


def test_negatives():
    x, loss = torch.randn(4, 3), PAIRS["info_nce"]()
    for bad, kind, message in (
        (torch.ones(3), ValueError, r"got shape \(3,\), expected \(K, 3\) or \(4, K, 3\)"),
        (torch.ones(5, 2), ValueError, r"got shape \(5, 2\), expected"),
        (torch.ones(5, 6, 3), ValueError, r"got shape \(5, 6, 3\), expected"),
        (torch.ones(5, 3).double(), TypeError, r"got dtype torch.float64, expected x's"),
        (torch.ones(5, 3).long(), TypeError, r"got dtype torch.int64, expected"),
        ([[1.0]], TypeError, r"got list, expected a tensor"),
        (torch.ones(5, 3, device="meta"), ValueError, r"got device meta, expected x's cpu"),
    ):
        with pytest.raises(kind, match=f"^negatives: {message}"):
            loss(x, x, bad)
    bad = torch.ones(5, 3)
    bad[2] = math.nan
    with pytest.raises(ValueError, match=r"^negatives: got NaN or infinity in 1 of 5 rows"):
        PAIRS["info_nce"](validate=True)(x, x, bad)


def test_integers_beyond_64_bits():
    x, y = torch.randn(2, 4, 3)
    got = PAIRS["clip"](loss_weight=2**64)(x, y, logit_scale=2**65, logit_bias=-(2**65))
    want = PAIRS["clip"](loss_weight=2.0**64)(x, y, logit_scale=2.0**65, logit_bias=-(2.0**65))
    assert torch.equal(got, want)
    for name in ("logit_scale", "logit_bias"):
        with pytest.raises(ValueError, match=f"^{name}: got an integer of 1329 bits, expected"):
            PAIRS["clip"]()(x, y, **{name: 10**400})


def test_siglip_bias():
    for bad in ("1", torch.ones(3)):
        with pytest.raises((ValueError, TypeError), match=r"^bias: got .*, expected"):
            PAIRS["siglip"](bias=bad)


@pytest.mark.parametrize("name", LOSSES)
def test_every_input_is_checked(name):
    """For each input with a declared shape: no tensor, and a tensor without dimensions."""
    cls = LOSSES[name]
    values = example(cls, 4, 3, torch.Generator().manual_seed(0))
    stars = [f"embeddings[{k}]" for k in range(len(values))]
    names = stars if cls.positional[0].startswith("*") else cls.positional
    for k, argument in enumerate(names[: len(values)]):
        if argument.partition("[")[0] not in cls.inputs:
            continue
        for bad, kind, message in (
            (object(), TypeError, "got object, expected a tensor"),
            (values[k].flatten()[0], ValueError, r"got shape \(\), expected "),
        ):
            with pytest.raises(kind, match=f"^{re.escape(argument)}: {message}"):
                cls()(*values[:k], bad, *values[k + 1 :])


@every_loss
def test_empty_input_is_accepted(name):
    rows = PAIRS[name](reduction="none")(*inputs(name, n=0))
    assert not rows.numel()
    assert PAIRS[name]()(*inputs(name, n=0)).item() == 0.0


def test_rows_of_two_views():
    for name in PAIRED:
        copies = 2 if issubclass(PAIRS[name], TwoViewLoss) else 1
        assert PAIRS[name](reduction="none")(*inputs(name)).shape == (4 * copies,)
