"""Bad operands: the message names the argument, what it got and what was expected."""

import pytest
import torch
from torch import nn

from contrastloss.channel import (
    COL,
    INDEX,
    LSE,
    SUM,
    col_weight,
    differs,
    form,
    not_above,
    row_weight,
    same,
)
from contrastloss.ops import pair_stats

X, Y = torch.randn(4, 3), torch.randn(5, 3)
SAME = (LSE(pairs=(same("a"),)),)
IDS = {"a": torch.zeros(4, dtype=torch.int64)}
COLS = {"a": torch.zeros(5, dtype=torch.int64)}


def case(name, kind, message, *args, **kwargs):
    return pytest.param(kind, message, args, kwargs, id=name)


LSES = (LSE(),)
WEIGHT = (LSE(weight=(row_weight("u"),)),)
FORM = (LSE(weight=(form("t"),)),)
BOUND = (LSE(axis=COL, weight=(not_above("t"),)),)
SHIFT = (SUM(shift="c"),)

CASES = [
    # x and y
    case("x list", TypeError, "x: got list, expected a tensor", [[1.0]], Y, LSES),
    case("x rank", ValueError, r"x: got shape \(3,\), expected \(\.\.\., M, D\)", X[0], Y, LSES),
    case("x D=0", ValueError, r"x: got shape \(4, 0\), expected at least", X[:, :0], None, LSES),
    case("x int", TypeError, "x: got dtype torch.int64, expected one of", X.long(), Y, LSES),
    case("x complex", TypeError, "x: got dtype torch.complex64", X.to(torch.complex64), Y, LSES),
    case("x sparse", TypeError, "x: got a tensor of layout .*sparse", X.to_sparse(), Y, LSES),
    case("y int", TypeError, "y: got dtype torch.int64, expected", X, Y.long(), LSES),
    case("y dtype", TypeError, "y: got dtype torch.float64, expected x's", X, Y.double(), LSES),
    case("y D", ValueError, r"y: got shape \(5, 2\), expected \(N, 3\)", X, Y[:, :2], LSES),
    case("y rank", ValueError, r"y: got shape \(1, 5, 3\), expected", X, Y[None], LSES),
    case("y batch", ValueError, r"y: got shape \(2, 5, 3\), expected \(1, N, 3\)", X[None],
         Y.expand(2, 5, 3), LSES),
    case("y device", ValueError, "y: got device meta, expected x's cpu", X, Y.to("meta"), LSES),
    case("channels", ValueError, "channels: got 64 values, expected at most 63", X, Y, LSES * 64),
    # scale, scales and biases
    case("scale shape", ValueError, r"scale: got shape \(4,\), expected a 0-dim", X, Y, LSES,
         scale=torch.ones(4)),
    case("scale text", TypeError, "scale: got str, expected a tensor", X, Y, LSES, scale="1"),
    case("scale int", TypeError, "scale: got dtype torch.int64, expected a floating", X, Y, LSES,
         scale=torch.tensor(2)),
    case("bias list", TypeError, "row_bias: got list", X, Y, LSES, row_bias=[0.0] * 4),
    case("bias length", ValueError, r"row_bias: got shape \(5,\), expected .*\(4,\)", X, Y, LSES,
         row_bias=torch.ones(5)),
    case("bias rank", ValueError, r"col_bias: got shape \(1, 5\), expected", X, Y, LSES,
         col_bias=torch.ones(1, 5)),
    case("scale length", ValueError, r"col_scale: got shape \(4,\), expected .*\(5,\)", X, Y, LSES,
         col_scale=torch.ones(4)),
    case("bias int", TypeError, "row_scale: got dtype torch.int64", X, Y, LSES,
         row_scale=torch.ones(4, dtype=torch.int64)),
    case("bias device", ValueError, "col_bias: got device meta, expected x's", X, Y, LSES,
         col_bias=torch.ones(5, device="meta")),
    # operands by name
    case("ids missing", ValueError, r"rows: got \[\], expected 'a'", X, Y, SAME, cols=COLS),
    case("cols missing", ValueError, r"cols: got \[\], expected 'a'", X, Y, SAME, rows=IDS),
    case("unknown", ValueError, "rows: got 'b', expected only names that channels use", X, Y, LSES,
         rows={"b": torch.ones(4)}),
    case("ids float", TypeError, r"rows\['a'\]: got dtype torch.float32, expected an integer", X, Y,
         SAME, rows={"a": torch.ones(4)}, cols=COLS),
    case("ids length", ValueError, r"cols\['a'\]: got shape \(4,\), expected .*\(5,\)", X, Y, SAME,
         rows=IDS, cols=IDS),
    case("ids list", TypeError, r"rows\['a'\]: got list, expected a tensor", X, Y, SAME,
         rows={"a": [0] * 4}, cols=COLS),
    case("ids device", ValueError, r"rows\['a'\]: got device meta", X, Y, SAME,
         rows={"a": IDS["a"].to("meta")}, cols=COLS),
    case("index float", TypeError, r"rows\['index'\]: got dtype torch.float32", X, Y,
         (LSE(pairs=(differs(INDEX),)),), rows={INDEX: torch.ones(4)}),
    case("weight grad", ValueError, r"rows\['u'\]: got a tensor that requires grad", X, Y, WEIGHT,
         rows={"u": nn.Parameter(torch.zeros(4))}),
    case("bound grad", ValueError, r"rows\['t'\]: got a tensor that requires grad", X, Y, BOUND,
         rows={"t": nn.Parameter(torch.zeros(4))}),
    case("bound missing", ValueError, r"rows: got \[\], expected 't'", X, Y, BOUND),
    case("form shape", TypeError, r"rows\['t'\]: got torch.float32 \(4,\), expected floating", X, Y,
         FORM, rows={"t": torch.ones(4)}, cols={"t": torch.ones(5, 2)}),
    case("form grad", ValueError, r"cols\['t'\]: got a tensor that requires grad", X, Y, FORM,
         rows={"t": torch.ones(4, 2)}, cols={"t": nn.Parameter(torch.ones(5, 2))}),
    case("form extent", ValueError, r"cols\['t'\]: got shape \(5, 3\)", X, Y, FORM,
         rows={"t": torch.ones(4, 2)}, cols={"t": torch.ones(5, 3)}),
    # the rest
    case("no channel", ValueError, "channels: got none, expected at least one", X, Y, ()),
    case("no channels", TypeError, "channels: got 'LSE', expected", X, Y, ("LSE",)),
    case("scale beyond floats", ValueError, "scale: got an integer of 1329 bits, expected a number",
         X, Y, LSES, scale=10**400),
    case("backend", ValueError, "backend: got 'gpu', expected .*reference", X, Y, LSES,
         backend="gpu"),
    case("compute dtype", TypeError, "compute_dtype: got torch.int8, expected", X, Y, LSES,
         compute_dtype=torch.int8),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "args", "kwargs"), CASES)
def test_bad_operand(kind, message, args, kwargs):
    with pytest.raises(kind, match=f"^{message}"):
        pair_stats(*args, **kwargs)


def test_a_shift_may_need_a_gradient_on_its_own_axis_only():
    shift = nn.Parameter(torch.zeros(4))
    pair_stats(X, Y, SHIFT, rows={"c": shift})[0].sum().backward()
    # d/dc sum_j (s_ij - c_i) = -5 for each of the five columns
    assert shift.grad.tolist() == [-5.0] * 4
    channels = (*SHIFT, LSE(weight=(col_weight("c"),)))
    with pytest.raises(ValueError, match=r"^cols\['c'\]: got a tensor that requires grad"):
        pair_stats(X, Y, channels, rows={"c": shift}, cols={"c": nn.Parameter(torch.zeros(5))})


def test_a_shift_that_is_a_weight_too_has_no_silent_gradient():
    """A name in two roles is an error if it requires a gradient: the gradient would cover only its
    use as a shift."""
    channels = (*SHIFT, LSE(weight=(row_weight("c"),)))
    with pytest.raises(ValueError, match=r"^rows\['c'\]: got a tensor that requires grad"):
        pair_stats(X, Y, channels, rows={"c": nn.Parameter(torch.zeros(4))})
