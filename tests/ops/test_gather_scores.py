"""``gather_scores`` on every backend that has it, against explicit scores in fp64."""

import math

import pytest
import torch
from layouts import column_major

from contrastloss.backends import Operands, PairCall
from contrastloss.backends.choose import BACKENDS
from contrastloss.ops import GatherScores, gather_scores
from contrastloss.ops.check import checks_values
from contrastloss.program import Program

VECTORS = ("scale", "row_scale", "col_scale", "row_bias", "col_bias")


#: Triton's are the reference's
OWN = ("cpu", "cuda", "reference")

pytestmark = [pytest.mark.operators("gather_scores"), pytest.mark.among(*OWN)]


def test_who_has_it():
    """Also under a named backend, every loss may use it."""
    for name in ("gather_scores_forward", "gather_scores_backward"):
        assert len({getattr(backend, name) for backend in BACKENDS.values()}) == len(OWN)
        assert getattr(BACKENDS["triton"], name) is getattr(BACKENDS["reference"], name)


def problem(device, dtype, lead=(), m=50, n=70, d=9, k=12, symmetric=False):
    n = m if symmetric else n
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    made = {
        "x": torch.randn(*lead, m, d, device=device).to(dtype),
        "y": None if symmetric else torch.randn(*lead, n, d, device=device).to(dtype),
        "scale": torch.tensor(1.25, device=device, dtype=stat),
        "row_scale": torch.rand(*lead, m, device=device, dtype=stat) + 0.5,
        "col_scale": torch.rand(n, device=device, dtype=stat) + 0.5,
        "row_bias": torch.randn(*lead, m, device=device, dtype=stat),
        "col_bias": torch.randn(*lead, n, device=device, dtype=stat),
    }
    index = torch.randint(-1, n, (*lead, m, k), device=device)
    index[..., 0, :] = -1  # a row without columns
    index[..., 1, :] = index[..., 1, :1].clamp_min(0)  # the same column several times
    return made, index


def dense(made, index, cosine):
    x, y = made["x"], made["x"] if made["y"] is None else made["y"]
    if cosine:
        x, y = (torch.nn.functional.normalize(v, dim=-1) for v in (x, y))
    s = made["scale"] * (x @ y.mT) * made["row_scale"][..., None] * made["col_scale"][..., None, :]
    s = s + made["row_bias"][..., None] + made["col_bias"][..., None, :]
    return torch.where(index < 0, -torch.inf, s.gather(-1, index.clamp_min(0)))


def both(made, index, backend, cosine, weights):
    """Scores and gradients: ours, and those of the dense formula in fp64."""
    found = []
    for wide in (False, True):
        leaves = {
            name: None if v is None else (v.double() if wide else v).detach().requires_grad_()
            for name, v in made.items()
        }
        if wide:
            out = dense(leaves, index, cosine)
        else:
            named = {name: v for name, v in leaves.items() if name in VECTORS}
            out = gather_scores(
                leaves["x"], leaves["y"], index, **named, cosine=cosine, backend=backend
            )
        total = (torch.where(index < 0, 0.0, out) * weights.to(out)).sum()
        inputs = [v for v in leaves.values() if v is not None]
        found.append([out, *torch.autograd.grad(total, inputs)])
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_scores_and_gradients(backend, device, dtype, symmetric, cosine, lead):
    made, index = problem(device, dtype, lead, symmetric=symmetric)
    weights = torch.randn(index.shape, device=device)
    got, want = both(made, index, backend, cosine, weights)
    assert got[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5}
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-10}
    for a, b in zip(got, want, strict=True):
        rtol = tolerance.get(dtype, 2e-5)
        if a.dtype in rounding:  # x's and y's gradients, in their own dtype
            rtol = rounding[a.dtype]
        size = b[b.isfinite()].abs().max()
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=float(rtol * size))


def test_hand_computed(backend, device):
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]], device=device, requires_grad=True)
    y = torch.tensor([[3.0, 1.0], [1.0, 0.0], [0.0, 2.0]], device=device, requires_grad=True)
    index = torch.tensor([[0, 2, -1], [1, 1, 0]], device=device)
    out = gather_scores(x, y, index, scale=2.0, backend=backend)
    assert out.tolist() == [[10.0, 8.0, -math.inf], [0.0, 0.0, 2.0]]
    out[out > -math.inf].sum().backward()
    assert x.grad.tolist() == [[6.0, 6.0], [10.0, 2.0]]
    assert y.grad.tolist() == [[2.0, 6.0], [0.0, 4.0], [2.0, 4.0]]


@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 3), (4, 0, 2), (4, 5, 0)])
def test_nothing(backend, device, m, n, k):
    x, y = (torch.randn(r, 3, device=device, requires_grad=True) for r in (m, n))
    index = torch.full((m, k), -1, device=device)
    out = gather_scores(x, y, index, backend=backend)
    assert out.shape == (m, k)
    assert (out == -torch.inf).all()
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_gradients_of_no_column_pass_nothing(backend, device):
    """The incoming gradient of index -1 is ignored, even if it is NaN."""
    x, y = torch.randn(2, 4, 3, device=device)
    x.requires_grad_()
    index = torch.tensor([[0, -1]] * 4, device=device)
    out = gather_scores(x, y, index, backend=backend)
    out.backward(torch.tensor([[1.0, math.nan]] * 4, device=device))
    torch.testing.assert_close(x.grad, y[:1].expand(4, 3))


def test_repeats_bit_for_bit(backend, device):
    made, index = problem(device, torch.float32, m=500, n=40, d=33, k=50)
    weights = torch.randn(index.shape, device=device)
    first = both(made, index, backend, True, weights)[0]
    for _ in range(3):
        again = both(made, index, backend, True, weights)[0]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_gradcheck(backend, device):
    made, index = problem(device, torch.float64, (2,), m=4, n=5, d=3, k=3)
    names = list(made)

    def function(*values):
        named = dict(zip(names, values, strict=True))
        out = gather_scores(named.pop("x"), named.pop("y"), index, **named, backend=backend)
        return torch.where(index < 0, 0.0, out)

    torch.autograd.gradcheck(function, [v.requires_grad_() for v in made.values()])


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_second_derivatives(backend, device, lead, cosine):
    """Second derivatives by every operand and by the gradients of the scores are correct; a third
    derivative is an error."""
    made, index = problem(device, torch.float64, lead, m=4, n=5, d=3, k=3)
    names = list(made)

    def function(*values):
        named = dict(zip(names, values, strict=True))
        x, y = named.pop("x"), named.pop("y")
        out = gather_scores(x, y, index, **named, cosine=cosine, backend=backend)
        return torch.where(index < 0, 0.0, out)

    leaves = [v.requires_grad_() for v in made.values()]
    torch.autograd.gradgradcheck(function, leaves)
    (first,) = torch.autograd.grad(function(*leaves).sin().sum(), leaves[0], create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="gather_scores: third derivatives are not implemented"):
        second.sum().backward()


def test_second_derivative_of_rows_that_are_columns(backend, device):
    x = torch.randn(4, 3, dtype=torch.float64, device=device)
    index = torch.tensor([[1, 2], [0, -1], [3, 3], [0, 2]], device=device)

    def function(x):
        out = gather_scores(x, None, index, cosine=True, backend=backend)
        return torch.where(index < 0, 0.0, out)

    torch.autograd.gradgradcheck(function, [x.requires_grad_()])


def test_torch_library_and_compilers(backend, device):
    x, y = (column_major(torch.randn(n, 3, device=device)).requires_grad_() for n in (6, 9))
    index = column_major(torch.randint(-1, 9, (6, 4), device=device))
    arguments = (x, y, *[None] * 5, [], [], "[[],[],[]]", True, torch.float32, backend, index)
    torch.library.opcheck(torch.ops.contrastloss.gather_scores.default, arguments)

    def loss(x, y, index):
        return gather_scores(x, y, index, cosine=True, backend=backend).exp().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x, y, index), loss(x, y, index))
    grads = [torch.autograd.grad(f(x, y, index), (x, y)) for f in (compiled, loss)]
    torch.testing.assert_close(*grads)


def test_the_function_is_public(device):
    x, y = torch.randn(2, 4, 3, device=device)
    index = torch.zeros(4, 2, dtype=torch.int64, device=device)
    call = PairCall(Operands(x, y), Program(()), False, x.dtype)
    out = GatherScores.apply(call, index, *call.operands.flat())
    assert torch.equal(out, gather_scores(x, y, index))


X, Y, INDEX = torch.randn(4, 3), torch.randn(5, 3), torch.zeros(4, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"index": [[0]]}, TypeError, "index: got list, expected a tensor"),
        ({"index": INDEX.int()}, TypeError, "index: got dtype torch.int32, expected int64"),
        ({"index": INDEX[:3]}, ValueError, r"index: got shape \(3, 2\), expected \(4, K\)"),
        ({"index": INDEX[0]}, ValueError, r"index: got shape \(2,\), expected \(4, K\)"),
        ({"index": INDEX + 5}, ValueError, "index: got 5, expected -1 to 4"),
        ({"index": INDEX - 2}, ValueError, "index: got -2, expected -1 to 4"),
        ({"index": INDEX.to("meta")}, ValueError, "index: got device meta, expected x's cpu"),
        ({"scale": torch.ones(2)}, ValueError, "scale: got shape"),
    ],
)
def test_bad_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        gather_scores(**{"x": X, "y": Y, "index": INDEX, **options})


def test_where_values_are_checked(monkeypatch):
    """Values are always checked on a CPU; on other devices only if CONTRASTLOSS_DEBUG is 1."""
    tensors = [torch.empty(2, device=name) for name in ("cpu", "meta")]
    for debug, expected in ((None, [True, False]), ("0", [True, False]), ("1", [True, True])):
        if debug is None:
            monkeypatch.delenv("CONTRASTLOSS_DEBUG", raising=False)
        else:
            monkeypatch.setenv("CONTRASTLOSS_DEBUG", debug)
        assert [checks_values(v) for v in tensors] == expected


def test_a_wrong_index_on_a_gpu(monkeypatch, device):
    if device.type != "cuda":
        pytest.skip("needs a GPU, and --device cuda")
    x, y, wrong = X.to(device), Y.to(device), (INDEX + 5).to(device)
    assert (gather_scores(x, y, wrong) == -math.inf).all()
    monkeypatch.setenv("CONTRASTLOSS_DEBUG", "1")
    with pytest.raises(ValueError, match="index: got 5, expected -1 to 4"):
        gather_scores(x, y, wrong)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_wrong_index_reads_nothing_foreign(name, device):
    """A backend does not read out of bounds for a wrong index, which is not checked on all devices:
    it gives -inf and no gradient."""
    if name == "cpu" and (BACKENDS["cpu"].missing() or device.type != "cpu"):
        pytest.skip("the C++ backend is missing, or the tensors are not on a CPU")
    x, y = X.to(device), Y.to(device)
    call = PairCall(Operands(x, y), Program(()), False, x.dtype)
    index = torch.tensor([[0, 5, -7, 1 << 60]] * 4, device=device)
    out = BACKENDS[name].gather_scores_forward(call, index)
    assert (out[:, 1:] == -torch.inf).all()
    found = BACKENDS[name].gather_scores_backward(
        call, index, torch.ones(4, 4, device=device), frozenset({"x", "y"})
    )
    torch.testing.assert_close(found.x, y[:1].expand(4, 3))
    assert (found.y[1:] == 0).all()
