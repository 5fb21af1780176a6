from math import exp, log, log1p, sqrt

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, tensor
from torch.nn.functional import normalize

from contrastloss import ProtoNCELoss
from contrastloss.functional import proto_nce
from contrastloss.testing import CHECKS, Subject


@every_check
def test_properties(check, device):
    check(Subject(ProtoNCELoss, {}, device, thorough=False))


def test_on_every_backend(device, backend):
    CHECKS[0](Subject(ProtoNCELoss, {}, device, backend))


def test_by_hand(device, backend):
    z, prototypes = tensor(E1, E1, E2, device=device), tensor([5, 0], E2, device=device)
    assignment = torch.tensor([0, 1, -1], device=device)
    options = {"temperature": 0.5, "backend": backend}
    rows = proto_nce(z, prototypes, assignment, reduction="none", **options)
    want = [log1p(exp(-2)), log1p(exp(2)), 0.0]
    close(rows, want)
    close(proto_nce(z, prototypes, assignment, **options), (want[0] + want[1]) / 2)
    # temperature 1/4 for the first prototype, 1 for the second; row 2 has another cluster
    density = tensor(0.25, 1, device=device)
    assignment[2] = 1
    rows = proto_nce(z, prototypes, assignment, density=density, reduction="none", **options)
    close(rows, [log1p(exp(-4)), log1p(exp(4)), log1p(exp(-1))])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_densities(dtype, device, backend):
    z, prototypes, assignment = Subject(ProtoNCELoss, {}, device).inputs(dtype=dtype)
    z, prototypes = z.requires_grad_(), prototypes.requires_grad_()
    density = torch.linspace(0.05, 0.3, len(prototypes), device=device, requires_grad=True)
    loss = proto_nce(z, prototypes, assignment, density=density, backend=backend)
    wide = [v.detach().double().requires_grad_() for v in (z, prototypes)]
    rows, counted = ProtoNCELoss.reference(
        *(normalize(v) for v in wide), assignment, scale=1.0, bias=0.0, density=density.detach()
    )
    want = rows.sum() / counted.sum()
    rtol = max(10 * torch.finfo(dtype).eps, 1e-12)
    torch.testing.assert_close(loss.double(), want, rtol=min(rtol, 1e-6), atol=0)
    for got, grad in zip(gradients(loss, z, prototypes), gradients(want, *wide), strict=True):
        torch.testing.assert_close(got.double(), grad, rtol=rtol, atol=rtol * grad.abs().max())


def test_density_by_hand(device):
    # cluster 0: distances 1 and 3; cluster 1: 2, 2 and 2; cluster 2: one row; cluster 3: none
    prototypes = torch.zeros(4, 2, device=device, dtype=torch.float64)
    z = tensor(E1, [0, 3], [2, 0], [0, 2], [-2, 0], [9, 9], [7, 7], device=device)
    assignment = torch.tensor([0, 0, 1, 1, 1, 2, -1], device=device)
    phi = [2 / log(12), 2 / log(13)]
    # the 10th percentile of one smaller and three equal numbers
    low = phi[1] + 0.3 * (phi[0] - phi[1])
    want = torch.tensor([phi[0], low, phi[0], phi[0]], dtype=torch.float64)
    got = ProtoNCELoss.density(z, prototypes, assignment, temperature=0.3)
    close(got, 0.3 * want / want.mean())
    same = ProtoNCELoss.density(prototypes, prototypes, assignment[:4], temperature=0.3)
    close(same, [0.3] * 4)
    close(ProtoNCELoss.density(z[:0], prototypes, assignment[:0]), [0.1] * 4)
    # rows that equal their prototype: the density is small, not 0
    found = ProtoNCELoss.density(z[[0, 0, 2, 3]], z[[0, 1]], assignment[[0, 1, 2, 3]])
    assert (found > 0).all()
    two = ProtoNCELoss.density(z[:2], prototypes[:1], assignment[:2], alpha=sqrt(2))
    close(two, [0.1])


def test_density_of_products_by_hand(device):
    # cluster 0: roots of the products 1 and 3; cluster 1: 2, and 0 of a negative product
    prototypes = tensor([1, 0], [0, 2], device=device)
    z = tensor([1, 5], [9, 5], [7, 2], [1, -8], device=device)
    assignment = torch.tensor([0, 0, 1, 1], device=device)
    phi = torch.tensor([2 / log(7), 1 / log(7)], dtype=torch.float64)
    phi = phi.clamp(phi[1] + 0.1 * phi[1], phi[1] + 0.9 * phi[1])
    options = {"alpha": 5.0, "by": "product", "temperature": 0.3}
    found = ProtoNCELoss.density(z, prototypes, assignment, **options)
    close(found, 0.3 * phi / phi.mean())
    with pytest.raises(ValueError, match="by: got 'angle', expected one of distance, product"):
        ProtoNCELoss.density(z, prototypes, assignment, by="angle")


def test_no_row_has_a_cluster(device, backend):
    z, prototypes = torch.randn(2, 4, 3, device=device, requires_grad=True)
    loss = proto_nce(z, prototypes, torch.tensor([-1, 4, -9, 5], device=device), backend=backend)
    assert loss.item() == 0.0
    assert not any(grad.any() for grad in gradients(loss, z, prototypes))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8], ids=str)
def test_more_prototypes_than_the_assignments_dtype_counts(dtype, device, backend):
    generator = torch.Generator().manual_seed(0)
    z, prototypes = (torch.randn(n, 4, generator=generator).to(device) for n in (5, 300))
    assignment = torch.tensor([0, 50, 100, 120, 127], device=device)
    want = proto_nce(z, prototypes, assignment, backend=backend)
    assert torch.equal(proto_nce(z, prototypes, assignment.to(dtype), backend=backend), want)
    kinds = [assignment, assignment.to(dtype)]
    one, other = (ProtoNCELoss.density(z, prototypes, kind) for kind in kinds)
    assert torch.equal(one, other)


def test_errors(device):
    z, assignment = torch.ones(3, 2, device=device), torch.zeros(3, device=device).long()
    with pytest.raises(ValueError, match=r"prototypes: got shape \(3, 1\), expected \(K, 2\)"):
        proto_nce(z, z[:, :1], assignment)
    with pytest.raises(ValueError, match=r"density: got shape \(2,\), expected \(3,\)"):
        proto_nce(z, z, assignment, density=z[0])
    for name in ("logit_scale", "logit_bias"):
        with pytest.raises(ValueError, match=f"^{name}: got a value with density, expected None"):
            proto_nce(z, z, assignment, density=torch.ones(3, device=device), **{name: 2.0})
    with pytest.raises(ValueError, match="assignment: got shape"):
        proto_nce(z, z, assignment[:2])
