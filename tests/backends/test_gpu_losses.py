"""Losses on the GPU backends, also without a GPU: in Triton's interpreter (TRITON_INTERPRET=1) and
in the CUDA emulation (--cuda-host)."""

import pytest
import torch

import contrastloss
import contrastloss.testing
from contrastloss.losses import LOSSES, PairLoss

#: at their own temperature the example is nearly solved, and gradients are differences of large
#: terms: those of the reference itself are off by 7e-6 for supcon
OPTIONS = {"focal_contrastive": {"temperature": 0.5}, "supcon": {"temperature": 0.5}}


pytestmark = pytest.mark.among("cuda", "triton")


@pytest.mark.parametrize(
    "name", sorted(name for name, cls in LOSSES.items() if issubclass(cls, PairLoss))
)
def test_losses(device, backend, name):
    cls = LOSSES[name]
    subject = contrastloss.testing.Subject(cls, device=device)
    inputs = subject.inputs(n=36, dtype=torch.float32)
    found = []
    for chosen in (backend, "reference"):
        torch.manual_seed(1)  # some losses draw random numbers
        leaves = subject.leaves(inputs)
        value = cls(backend=chosen, **OPTIONS.get(name, {}))(*leaves)
        value.backward()
        found.append([value.detach(), *(v.grad for v in leaves if v.requires_grad)])
    for got, want in zip(*found, strict=True):
        assert (got - want).norm() <= 1e-5 * want.norm()


def test_a_compiled_loss(device, backend):
    loss = contrastloss.NTXentLoss(backend=backend)
    x, y = (torch.randn(23, 9, device=device, requires_grad=True) for _ in range(2))
    found = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        value = function(x, y)
        found.append((value, *torch.autograd.grad(value, (x, y))))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


def test_autocast(device, backend):
    """Embeddings are rounded only for the products."""
    # Triton's interpreter does not multiply bfloat16
    dtype = torch.float16 if (backend, device.type) == ("triton", "cpu") else torch.bfloat16
    loss, exact = (
        contrastloss.CLIPLoss(backend=name, reduction="none") for name in (backend, "reference")
    )
    x, y = (torch.randn(33, 20, device=device, requires_grad=True) for _ in range(2))
    with torch.autocast(device.type, dtype=dtype):
        values = loss(x, y)
    grads = torch.autograd.grad(values.sum(), (x, y))
    rounded = [v.detach().to(dtype).double().requires_grad_() for v in (x, y)]
    want = exact(*rounded)
    torch.testing.assert_close(values, want.float(), rtol=1e-5, atol=1e-5)
    for got, wanted in zip(grads, torch.autograd.grad(want.sum(), rounded), strict=True):
        assert got.dtype == torch.float32
        assert (got - wanted).norm() <= torch.finfo(dtype).eps * wanted.norm()
