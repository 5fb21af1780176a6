"""contrastloss._C: the channel maths of csrc/channel.h agrees with torch in fp64."""

import math

import pytest
import torch
from torch.nn.functional import sigmoid, softplus

try:
    from contrastloss import _build

    MISSING = _build.MISSING["_C"]
except ImportError:
    MISSING = "this source tree was never installed"

if MISSING is not None:
    pytest.skip(f"_C: {MISSING}", allow_module_level=True)

from contrastloss import _C
from contrastloss.channel import PSI

INF, NAN = math.inf, math.nan
POINTS = [-800.0, -40.0, -2.5, -1.0, -1e-3, -1e-12, 1e-12, 1e-3, 0.7, 1.0, 3.0, 40.0, 800.0]

FORMULAS = {
    "one": torch.ones_like,
    "id": lambda u: u,
    "square": lambda u: u * u,
    "relu": torch.relu,
    "relu2": lambda u: torch.relu(u) ** 2,
    "softplus": lambda u: torch.logaddexp(u, torch.zeros_like(u)),
    "focal": lambda u: -torch.expm1(u) * u,
    "step": lambda u: (u > 0).to(u.dtype),
}


def psi(name, points):
    return torch.tensor([_C.channel.psi(name, u) for u in points], dtype=torch.float64)


def dpsi(name, points):
    return torch.tensor([_C.channel.dpsi(name, u) for u in points], dtype=torch.float64)


def test_every_psi_of_the_package_has_a_formula_here():
    assert set(FORMULAS) == set(PSI)


@pytest.mark.parametrize("name", PSI)
class TestPsi:
    def test_is_the_formula(self, name):
        expected = FORMULAS[name](torch.tensor(POINTS, dtype=torch.float64))
        torch.testing.assert_close(psi(name, POINTS), expected, rtol=1e-14, atol=0)

    def test_slope_is_the_derivative_of_the_formula(self, name):
        u = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
        value = FORMULAS[name](u)
        expected = torch.zeros_like(u)
        if value.requires_grad:
            (expected,) = torch.autograd.grad(value.sum(), u)
        torch.testing.assert_close(dpsi(name, POINTS), expected, rtol=1e-13, atol=0)

    def test_slope_is_a_finite_difference(self, name):
        points, h = [-3.0, -0.9, -0.2, 0.4, 1.3, 4.0], 1e-5
        above, below = psi(name, [u + h for u in points]), psi(name, [u - h for u in points])
        torch.testing.assert_close(
            dpsi(name, points), (above - below) / (2 * h), rtol=1e-7, atol=1e-8
        )

    def test_nan_stays_nan_where_u_matters(self, name):
        expected = name != "one"
        assert math.isnan(_C.channel.psi(name, NAN)) is expected


# name: psi(-inf), psi(0), psi(inf), and dpsi at the same points; None where no limit exists
LIMITS = {
    "one": ((1, 1, 1), (0, 0, 0)),
    "id": ((-INF, 0, INF), (1, 1, 1)),
    "square": ((INF, 0, INF), (-INF, 0, INF)),
    "relu": ((0, 0, INF), (0, 0, 1)),
    "relu2": ((0, 0, INF), (0, 0, INF)),
    "softplus": ((0, math.log(2), INF), (0, 0.5, 1)),
    "focal": ((-INF, 0, -INF), (None, 0, -INF)),
    "step": ((0, 0, 1), (0, 0, 0)),
}


@pytest.mark.parametrize("name", PSI)
def test_ends_and_zero(name):
    values, slopes = LIMITS[name]
    for u, value, slope in zip((-INF, 0.0, INF), values, slopes, strict=True):
        assert _C.channel.psi(name, u) == pytest.approx(value, rel=1e-15)
        if slope is not None:
            assert _C.channel.dpsi(name, u) == slope


def test_softplus_agrees_with_torch_where_torch_switches_to_the_identity():
    u = torch.linspace(-50, 50, 401, dtype=torch.float64)
    torch.testing.assert_close(
        psi("softplus", u.tolist()), softplus(u, threshold=1e9), rtol=1e-14, atol=0
    )
    torch.testing.assert_close(dpsi("softplus", u.tolist()), sigmoid(u), rtol=1e-14, atol=0)


@pytest.mark.parametrize("function", [_C.channel.psi, _C.channel.dpsi])
def test_an_unknown_psi_names_the_known_ones(function):
    with pytest.raises(ValueError, match="got 'gelu', expected one of one, id, square"):
        function("gelu", 1.0)


class TestLogSum:
    def test_nothing_is_minus_infinity(self):
        assert _C.channel.log_sum([]) == -INF
        assert _C.channel.log_sum([-INF]) == -INF
        assert _C.channel.log_add(-INF, -INF) == -INF

    def test_minus_infinity_adds_nothing(self):
        assert _C.channel.log_add(-INF, 3.0) == 3.0
        assert _C.channel.log_add(3.0, -INF) == 3.0

    def test_is_logsumexp_in_any_order(self):
        values = (40 * torch.randn(200, dtype=torch.float64)).tolist()
        expected = torch.tensor(values, dtype=torch.float64).logsumexp(0).item()
        for order in (values, sorted(values), sorted(values, reverse=True)):
            assert _C.channel.log_sum(order) == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("value", [-1e6, 1e6, -745.2, 709.9])
    def test_neither_overflows_nor_underflows(self, value):
        expected = value + math.log(3)
        assert _C.channel.log_sum([value] * 3) == pytest.approx(expected, rel=1e-15)

    @pytest.mark.parametrize("values", [[NAN], [NAN, 1.0], [1.0, NAN], [-INF, NAN], [NAN, -INF]])
    def test_nan_stays_nan(self, values):
        assert math.isnan(_C.channel.log_sum(values))


def test_build_info():
    info = _C.build_info()
    assert info["compiler"] in ("gcc", "clang")
    assert info["cxx_standard"] >= 201703
    assert "-ffast-math" not in info["flags"]
    assert "-march" not in info["flags"]
    assert bool(info["cuda_architectures"]) is (_build.MISSING["_cuda"] is None)
    # the operator library contains at least one instruction set
    assert bool(info["cpu_isas"]) is (_build.MISSING["_cpu"] is None)


def test_cpu_capability_agrees_with_torch():
    level = torch.backends.cpu.get_cpu_capability()
    if level in ("AVX2", "AVX512"):
        assert {"avx2", "fma"} <= set(_C.cpu_capability())
    if level == "AVX512":
        assert "avx512f" in _C.cpu_capability()
