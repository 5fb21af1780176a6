from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import EmbeddingQueue, SwAVLoss
from contrastloss.functional import swav
from contrastloss.losses.base.prototypes import sinkhorn
from contrastloss.testing import CHECKS, Subject


# the codes are constants that depend on the inputs, so finite differences are not the gradient;
# gradients are compared with the reference
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c.__name__ != "check_gradients"], ids=lambda c: c.__name__
)
def test_properties(check, device):
    check(Subject(SwAVLoss, {"iterations": 2}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(SwAVLoss, {"eps": 0.1}, device, backend))


def test_by_hand(device, backend):
    # the rows of x are equal: its balanced codes are 1/2; codes of y: from e : 1, e : 1 and 1 : e
    x, y = tensor(E1, E1, E1, device=device), tensor(E1, E1, E2, device=device)
    prototypes = tensor([3, 0], E2, device=device)
    options = {"temperature": 0.5, "eps": 1.0, "iterations": 1, "backend": backend}
    near, far = e / (2 * e + 1), 1 / (2 + e)  # of the first and second prototype, rows 0 and 1
    first = near / (near + far)
    near, far = 1 / (2 * e + 1), e / (2 + e)
    last = near / (near + far)
    own, other = log(1 + exp(-2)), log(1 + exp(2))  # -log p of both prototypes
    half = (own + other) / 2
    want = [(first * own + (1 - first) * other + half) / 2] * 2
    want += [(last * own + (1 - last) * other + half) / 2]
    close(swav(x, y, prototypes, reduction="none", **options), want)
    close(swav(y, x, prototypes, **options), sum(want) / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_each_view_may_have_prototypes_of_any_dtype(dtype, device, backend):
    """Two equal sets give the loss of one set, and share its gradient."""
    inputs = [v.requires_grad_() for v in Subject(SwAVLoss, {}, device).inputs(dtype=dtype)]
    own = inputs[2].detach().clone().requires_grad_()
    want = swav(*inputs, backend=backend)
    value = swav(*inputs, y_prototypes=own, backend=backend)
    torch.testing.assert_close(value, want)
    (whole,), parts = gradients(want, inputs[2]), gradients(value, inputs[2], own)
    rtol = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(sum(v.double() for v in parts), whole.double(), rtol=0,
                               atol=rtol * whole.abs().max().item())  # fmt: skip


def codes(x, y, v, eps):
    return (x @ y.mT / eps + v).softmax(1)


def test_sinkhorn(device, backend):
    x, y = (normalize(torch.randn(k, 8, device=device).double()) for k in (30, 7))
    q = torch.exp(x @ y.mT / 0.05)
    for _ in range(3):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdim=True)
    close(codes(x, y, sinkhorn(x, y, backend=backend), 0.05), q)
    even = codes(x, y, sinkhorn(x, y, iterations=12, eps=1.0, backend=backend), 1.0)
    torch.testing.assert_close(even.sum(0), torch.full_like(even[0], 30 / 7))
    assert codes(x, y, 0.0, 1.0).sum(0).std() > 0.2  # without potentials the codes are not balanced
    # large scores and a single row do not overflow
    assert sinkhorn(1e4 * x, y, backend=backend).isfinite().all()
    close(codes(x[:1], y, sinkhorn(x[:1], y, backend=backend), 0.05), [[1 / 7] * 7])
    close(sinkhorn(x[:0], y, backend=backend), [0.0] * 7)


def test_many_features(device, backend):
    """SwAV's sizes, in fp32 with 128 features."""
    inputs = [v.requires_grad_() for v in Subject(SwAVLoss, {}, device).inputs(n=50, d=128)]
    found = []
    for ours in (True, False):
        leaves = [v.detach().float() if ours else v.detach() for v in inputs]
        leaves = [v.requires_grad_() for v in leaves]
        if ours:
            rows = swav(*leaves, reduction="none", backend=backend)
        else:
            unit = [normalize(v) for v in leaves]
            rows = SwAVLoss.reference(*unit, scale=10.0, bias=0.0, eps=0.05, iterations=3)
        found.append([rows, *torch.autograd.grad(rows.sum(), leaves)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_each_view_may_have_its_own_prototypes(device, backend):
    """SwALIP: two views of images with the texts of two views as prototypes."""
    inputs = torch.randn(4, 9, 6, device=device).double()
    found = []
    for ours in (True, False):
        leaves = [v.clone().requires_grad_() for v in inputs]
        if ours:
            rows = swav(*leaves[:3], y_prototypes=leaves[3], reduction="none", backend=backend)
        else:
            x, y, c, others = (normalize(v) for v in leaves)
            options = {"scale": 10.0, "bias": 0.0, "eps": 0.05, "iterations": 3}
            rows = SwAVLoss.reference(x, y, c, y_prototypes=others, **options)
        found.append([rows, *torch.autograd.grad(rows.mean(), leaves)])
    for got, want in zip(*found, strict=True):
        close(got, want)


def test_errors(device):
    x = torch.ones(3, 2, device=device)
    with pytest.raises(ValueError, match=r"prototypes: got shape \(3, 1\), expected \(K, 2\)"):
        swav(x, x, x[:, :1])
    with pytest.raises(ValueError, match=r"prototypes: got shape \(0, 2\), .* with K >= 1"):
        swav(x, x, x[:0])
    with pytest.raises(ValueError, match=r"y_prototypes: .*, expected prototypes' \(3, 2\)"):
        swav(x, x, x, y_prototypes=x[:2])
    queue = EmbeddingQueue(4, 2, device=device)
    with pytest.raises(TypeError, match=r"queues: got EmbeddingQueue, expected two queues, of x's"):
        swav(x, x, x, queues=queue)
    with pytest.raises(ValueError, match=r"queues: got shape \(4, 3\), expected \(K, 2\)"):
        swav(x, x, x, queues=(queue, EmbeddingQueue(4, 3, device=device)))
    with pytest.raises(ValueError, match=r"crops: got a value with y_prototypes, expected None"):
        swav(x, x, x, crops=x[:, None], y_prototypes=x)
    with pytest.raises(ValueError, match=r"crops: got shape \(3, 2\), expected \(3, C, 2\)"):
        swav(x, x, x, crops=x)
    with pytest.raises(ValueError, match=r"eps: got 0\.0, expected a positive"):
        SwAVLoss(eps=0.0)
    with pytest.raises(TypeError, match="iterations: got float, expected an integer"):
        SwAVLoss(iterations=3.0)
