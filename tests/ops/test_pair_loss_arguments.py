"""Wrong arguments of ``pair_loss``, and operands that its native operators refuse."""

import pytest
import torch
from torch.autograd import forward_ad

from contrastloss.backends import Operands, PairCall, cpu
from contrastloss.channel import COL, EXPECT, LSE, MAX, SUM
from contrastloss.ops import Part, pair_loss
from contrastloss.program import Program

pytestmark = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ([Part(0, 2)], {}, "parts: got channel 2, expected 0 to 1 or None"),
        ([Part(-1)], {}, "parts: got channel -1, expected 0 to 1 or None"),
        ([Part(1)], {}, "parts: got channel 1, MAX, expected LSE or SUM"),
        ([], {}, "parts: got none, expected at least one"),
        ([Part(None)], {}, "parts: got a term of no channel, expected plus or minus"),
        ([Part(0)], {"reduction": "none"}, "reduction: got 'none', expected 'mean' or 'sum'"),
        (
            [Part(0)],
            {"row_weight": torch.ones(1)},
            r"row_weight: got shape \(1,\), expected \(4,\)",
        ),
        ([Part(0)], {"row_weight": torch.ones(4, 1)}, r"row_weight: got shape \(4, 1\), expected"),
    ],
    ids=str,
)
def test_wrong_arguments(parts, options, message, backend):
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match=f"^{message}"):
        pair_loss(x, torch.randn(4, 3), [LSE(), MAX()], parts, backend=backend, **options)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_columns_are_as_many_as_rows(rows, gradient, backend):
    """Also where one row's number would go with each of five columns."""
    x = torch.randn(rows, 3, requires_grad=gradient)
    message = f"^parts: got a channel of 5 columns, expected as many as rows, {rows}$"
    with pytest.raises(ValueError, match=message):
        pair_loss(x, torch.randn(5, 3), [LSE(), LSE(axis=COL)], [Part(0), Part(1)], backend=backend)


@pytest.mark.parametrize("backend", [None, "reference"])
def test_weights_have_derivatives_in_forward_mode(backend):
    x, y = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    weight, tangent = torch.rand(6), torch.randn(6)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, tangent)
        loss, _ = pair_loss(x, y, [LSE()], [Part(0)], row_weight=dual, backend=backend)
        found = forward_ad.unpack_dual(loss).tangent
    torch.testing.assert_close(found, (tangent * (x @ y.mT).logsumexp(1)).mean().detach())


def native(channels=None, n=4, **changes):
    """The operator itself, which anyone may call, with other arguments than ours."""
    program = Program(channels or (LSE(), SUM("id")), ("b",), ())
    operands = Operands(torch.randn(4, 3), torch.randn(n, 3), rows=(torch.zeros(4),))
    call = PairCall(operands, program, False, torch.float32)
    given = {
        "strip": 4,
        "parts": torch.tensor([[0, 0, 1]]),
        "weights": torch.ones(1, dtype=torch.float64),
        "row_weight": None,
        "divisor": 4.0,
        "needs": 3,
        **changes,
    }
    return torch.ops.contrastloss.cpu_pair_loss(
        *call.lifted().native(), torch.float32, -1, *given.values()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strip": -1}, "rows: got -1, expected 0 for sums"),
        ({"strip": 0}, "rows: got 0, expected 0 for sums"),
        (
            {"strip": 3, "channels": (LSE(axis=COL), SUM("id"))},
            "rows: got 3, expected 0 for sums, all",
        ),
        (
            {"n": 5, "channels": (LSE(axis=COL), SUM("id"))},
            "parts: got columns, expected as many as rows",
        ),
        ({"parts": torch.tensor([[0, 2, 1]])}, "parts: no such channel: 2"),
        ({"parts": torch.tensor([[0, 0]])}, "parts: got 2 elements, expected 3"),
        ({"parts": torch.ones(1, 3)}, "parts: wrong dtype"),
        ({"weights": torch.ones(1)}, "weights: wrong dtype"),
        ({"row_weight": torch.ones(5)}, "row_weight: got 5 elements, expected 4"),
        ({"needs": 128}, "needs: got 128"),
        ({"channels": (LSE(), MAX())}, "parts: got a maximum"),
        ({"channels": (LSE(), EXPECT())}, "channels: got EXPECT"),
        ({"channels": (LSE(), SUM("relu", shift="b"))}, "channels: got a shift, expected none"),
    ],
    ids=str,
)
def test_the_operator_checks_its_operands(changes, message):
    native()
    with pytest.raises(RuntimeError, match=message):
        native(**changes)


def test_the_second_operator_checks_its_operands():
    scale = torch.ops.contrastloss.cpu_scale
    unit = torch.arange(6.0).reshape(3, 2)
    found = unit.clone(), unit.clone()
    scale(torch.tensor(2.0), found)
    torch.testing.assert_close(found, (2 * unit, 2 * unit))
    rows = torch.tensor([1.0, -1.0, 0.5])
    found = unit.clone(), rows.clone()
    scale(rows, found)
    torch.testing.assert_close(found, (rows[:, None] * unit, rows.square()))
    with pytest.raises(RuntimeError, match="grad: got 4 elements"):
        scale(torch.ones(4), [unit])
    with pytest.raises(RuntimeError, match="unit: wrong dtype"):
        scale(torch.ones(1), [unit.double()])
